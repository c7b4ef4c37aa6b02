// This file waits for a certificate that somebody asked for, and tells meanwhile what keeps it.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func waitFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "wait", Usage: "wait until it is issued and every server reported; tries that fail are shown meanwhile"},
		&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "give up waiting after this time"},
	}
}

// waitForCertificate waits until another leaf than old is issued and every placement reported on it.
func waitForCertificate(c *cli.Context, hub *client.Client, name, old string) (apiv1.Certificate, error) {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var x apiv1.Certificate
	told := ""
	for {
		now, err := hub.Certificate(ctx, name)
		if ctx.Err() != nil {
			return x, gaveUp(c, name, old, x)
		}
		if err != nil {
			return x, fmt.Errorf("wait for certificate %s: %w", name, err)
		}
		x = now
		if told, err = tellTry(screen{c.App.ErrWriter}, x.Job, told); err != nil {
			return x, fmt.Errorf("issue certificate %s: %w", name, err)
		}
		done, failed := settled(x, old)
		if failed != nil {
			return x, fmt.Errorf("deploy certificate %s on %s: %s at %s: %s", name, failed.Server, failed.State, failed.Phase, failed.Detail)
		}
		if done {
			return x, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return x, gaveUp(c, name, old, x)
		}
	}
}

// tellTry shows how the newest try of a job went, once: told is what was shown last. A job that is over without a
// certificate is an error.
func tellTry(w io.Writer, j *apiv1.Job, told string) (string, error) {
	if j == nil || j.Kind == apiv1.JobDryRun {
		return told, nil
	}
	if j.State == apiv1.JobFailed {
		return told, fmt.Errorf("%s; %s", errorOf(*j), nextStep(*j))
	}
	if j.State == apiv1.JobCancelled {
		return told, fmt.Errorf("somebody cancelled job %s: certferry job log %s", j.ID, j.ID)
	}
	try := fmt.Sprint(j.ID, " ", j.Attempts, " ", j.Error)
	if j.State != apiv1.JobWaiting || j.Error == "" || try == told {
		return told, nil
	}
	row := rows(w)
	row("waiting", fmt.Sprintf("attempt %d: %s", j.Attempts, errorOf(*j)))
	if step := nextStep(*j); step != "" {
		row("next step", step)
	}
	if j.RetryAt != nil {
		row("again at", j.RetryAt.Format(time.RFC3339))
	}
	return try, nil
}

// gaveUp says that nobody waits any more, and what kept the certificate.
func gaveUp(c *cli.Context, name, old string, x apiv1.Certificate) error {
	why := "it did not come within " + c.Duration("timeout").String()
	if errors.Is(c.Err(), context.Canceled) {
		why = "interrupted"
	}
	return fmt.Errorf("wait for certificate %s: %s: %s; it goes on without you: certferry cert show %s", name, why, missing(x, old), name)
}

// missing says what a certificate waits for.
func missing(x apiv1.Certificate, old string) string {
	switch j := x.Job; {
	case x.Name == "":
		return "the hub did not answer"
	case x.Proposal != "":
		return "its issue waits for review (certferry proposal show " + x.Name + ")"
	case x.Issued != nil && x.Issued.LeafSHA256 != old:
		return missingServers(x)
	case j == nil || !j.State.Active():
		return "no order has begun"
	case j.State == apiv1.JobWaiting && j.Error != "" && j.RetryAt != nil:
		return errorOf(*j) + "; again at " + j.RetryAt.Format(time.RFC3339)
	default:
		return fmt.Sprintf("its order is %s (certferry job log %s)", j.State, j.ID)
	}
}

// missingServers says which servers have not reported on the new issue.
func missingServers(x apiv1.Certificate) string {
	text, n := "", 0
	for _, d := range x.Placed {
		if d.WantLeafSHA256 == x.Issued.LeafSHA256 && d.State != apiv1.DeploymentPending {
			continue
		}
		if n++; n == 1 {
			text = "it is issued, and " + d.Server + " has not reported on it"
		}
	}
	if n > 1 {
		text += fmt.Sprintf(", nor %s", count(n-1, "other server"))
	}
	return text
}

// settled says whether every server has the new issue, and which one failed to take it.
func settled(x apiv1.Certificate, old string) (done bool, failed *apiv1.Deployment) {
	if x.Issued == nil || x.Issued.LeafSHA256 == old {
		return false, nil
	}
	for _, d := range x.Placed {
		switch {
		case d.WantLeafSHA256 != x.Issued.LeafSHA256 || d.State == apiv1.DeploymentPending:
			return false, nil
		case d.State != apiv1.DeploymentDeployed:
			return false, &d
		}
	}
	return true, nil
}
