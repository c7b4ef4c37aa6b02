// This file holds the commands about jobs: the orders of certificates.

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func jobCommand() *cli.Command {
	return &cli.Command{
		Name: "job", Usage: "orders of certificates: list, show, read the log, cancel",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list jobs, newest first",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "certificate", Usage: "only those of this certificate"},
					&cli.IntFlag{Name: "limit", Value: 20, Usage: "how many"},
				},
				Action: listJobs,
			},
			{Name: "show", Usage: "show a job and what helps", ArgsUsage: "ID", Action: showJob},
			{
				Name: "log", Usage: "read the log of a job", ArgsUsage: "ID",
				Flags:  []cli.Flag{&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the job is over"}},
				Action: jobLog,
			},
			{Name: "cancel", Usage: "stop a job; its certificate is not ordered again until it is renewed by hand or changed", ArgsUsage: "ID", Action: cancelJob},
		},
	}
}

func listJobs(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Job
	fetch := func(p client.Page) (apiv1.List[apiv1.Job], error) {
		return hub.CertificateJobs(c.Context, c.String("certificate"), p)
	}
	page, err := fetch(client.Page{Limit: c.Int("limit")})
	if err != nil {
		return fmt.Errorf("list jobs: %w", err)
	}
	all = append(all, page.Items...)
	return renderList(c, all, []string{"ID", "KIND", "CERTIFICATE", "STATE", "PHASE", "ATTEMPTS", "ISSUER", "ACTOR", "ERROR"}, func(j apiv1.Job) []string {
		return []string{j.ID, string(j.Kind), j.Certificate, string(j.State), j.Phase, fmt.Sprint(j.Attempts), j.Issuer, j.Actor, j.ErrorClass}
	})
}

func showJob(c *cli.Context) error {
	id, err := argument(c, "job id")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	job, err := hub.Job(c.Context, id)
	if err != nil {
		return fmt.Errorf("show job %s: %w", id, err)
	}
	return render(c, job, func(w io.Writer) { printJob(w, job) })
}

func printJob(w io.Writer, j apiv1.Job) {
	row := rows(w)
	row("id", j.ID)
	row("kind", string(j.Kind))
	row("certificate", j.Certificate)
	row("issuer", j.Issuer)
	row("asked by", j.Actor+": "+j.Reason)
	row("state", string(j.State))
	if j.Phase != "" {
		row("phase", j.Phase)
	}
	row("attempts", fmt.Sprint(j.Attempts))
	if j.RetryAt != nil {
		row("again at", j.RetryAt.Format(time.RFC3339))
	}
	if j.Error != "" {
		row("error", errorOf(j))
	}
	if step := nextStep(j); step != "" {
		row("next step", step)
	}
}

// errorOf is what went wrong, with its class in front: most errors begin with theirs.
func errorOf(j apiv1.Job) string {
	if j.ErrorClass == "" || strings.HasPrefix(j.Error, j.ErrorClass) {
		return j.Error
	}
	return j.ErrorClass + ": " + j.Error
}

// nextStep is what helps. What the hub says is about orders that are tried again, which a dry run is not; and people
// change a certificate in its file.
func nextStep(j apiv1.Job) string {
	switch {
	case j.NextStep != "" && j.Kind == apiv1.JobDryRun:
		return "This was a dry run, and the certificate is as it was: certferry cert preflight " + j.Certificate + " tells more; mend it, then try the dry run again."
	case j.ErrorClass == "permanent" && j.NextStep != "":
		return j.NextStep + " The certificate is the file " + manifest.CertificatePath(j.Certificate) + " of the hub's repository: change it there and push."
	}
	return j.NextStep
}

func jobLog(c *cli.Context) error {
	id, err := argument(c, "job id")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	job, err := hub.Job(c.Context, id)
	if err != nil {
		return fmt.Errorf("read log of job %s: %w", id, err)
	}
	if c.Bool("follow") {
		return followJob(c, hub, job)
	}
	_, err = printLog(c, hub, id, "")
	return err
}

// printLog prints the lines of a job behind after, and answers where the next ones begin.
func printLog(c *cli.Context, hub *client.Client, id, after string) (next string, err error) {
	for {
		page, err := hub.JobLog(c.Context, id, client.Page{After: after, Limit: 200})
		if err != nil {
			return after, fmt.Errorf("read log of job %s: %w", id, err)
		}
		for _, l := range page.Items {
			_, _ = fmt.Fprintf(c.App.Writer, "%s %-9s %s\n", l.At.Format(time.TimeOnly), l.Phase, l.Line)
			after = fmt.Sprint(l.Seq)
		}
		if page.Next == "" {
			return after, nil
		}
	}
}

// followJob prints a job's log until the job is over, and fails where the job did.
func followJob(c *cli.Context, hub *client.Client, job apiv1.Job) (err error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	after := ""
	for {
		// The state is read before the log, so that no line of one that is over is missed.
		if job, err = hub.Job(c.Context, job.ID); err != nil {
			return fmt.Errorf("follow job %s: %w", job.ID, err)
		}
		if after, err = printLog(c, hub, job.ID, after); err != nil {
			return err
		}
		switch {
		case job.State == apiv1.JobDone:
			return nil
		case !job.State.Active():
			return fmt.Errorf("job %s %s: %s; %s", job.ID, job.State, errorOf(job), nextStep(job))
		}
		select {
		case <-tick.C:
		case <-c.Done():
			return c.Err()
		}
	}
}

func cancelJob(c *cli.Context) error {
	id, err := argument(c, "job id")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	job, err := hub.CancelJob(c.Context, id)
	if err != nil {
		return fmt.Errorf("cancel job %s: %w", id, err)
	}
	return render(c, job, func(w io.Writer) { printJob(w, job) })
}
