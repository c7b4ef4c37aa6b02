// This file holds the commands about certificates.

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func certificateCommand() *cli.Command {
	return &cli.Command{
		Name: "certificate", Aliases: []string{"cert"}, Usage: "certificates: list, show, create, check, renew, revoke, roll back, pause, resume",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list certificates",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "query", Aliases: []string{"q"}, Usage: "only names that hold `TEXT`"}},
				Action: listCertificates,
			},
			{Name: "show", Usage: "show a certificate, where it is and its history", ArgsUsage: "NAME", Action: showCertificate},
			createCommand(),
			{
				Name: "renew", Usage: "renew a certificate now", ArgsUsage: "NAME",
				Flags: append(waitFlags(),
					&cli.StringFlag{Name: "reason", Usage: "why, for the history"},
					&cli.BoolFlag{Name: "dry-run", Usage: "order at the CA's staging, and throw away what comes"},
				),
				Action: renewCertificate,
			},
			renewAllCommand(),
			preflightCommand(),
			revokeCommand(),
			{
				Name: "rollback", Usage: "bring back the previous issue on all its servers and pause renewal", ArgsUsage: "NAME",
				Flags: rollbackFlags(), Action: rollbackCertificate,
			},
			{
				Name: "pause", Usage: "stop renewals until somebody resumes them", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the history"}}, Action: pauseCertificate,
			},
			{Name: "resume", Usage: "end the pause of renewals", ArgsUsage: "NAME", Action: resumeCertificate},
		},
	}
}

func rollbackFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "to", Usage: "`COMMIT` to go back to (default: the one before)"},
		&cli.StringFlag{Name: "reason", Usage: "why, for the history"},
	}
}

func listCertificates(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Certificate
	for item, err := range client.All(c.Context, hub.Certificates, client.Page{Query: c.String("query")}) {
		if err != nil {
			return fmt.Errorf("list certificates: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "STATE", "NAMES", "ISSUER", "EXPIRES", "SERVERS"}, func(x apiv1.Certificate) []string {
		expires := "-"
		if x.Issued != nil {
			expires = day(x.Issued.NotAfter)
		}
		return []string{x.Name, string(x.State), strings.Join(x.Names, ","), x.Issuer, expires, deployedOf(x.Placed)}
	})
}

// deployedOf counts deployments that are as they should be.
func deployedOf(placed []apiv1.Deployment) string {
	done := 0
	for _, d := range placed {
		if d.State == apiv1.DeploymentDeployed {
			done++
		}
	}
	return fmt.Sprintf("%d/%d", done, len(placed))
}

func showCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	x, err := hub.Certificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("show certificate %s: %w", name, err)
	}
	history, err := hub.CertificateHistory(c.Context, name, client.Page{Limit: 10})
	if err != nil {
		return fmt.Errorf("show history of certificate %s: %w", name, err)
	}
	type shown struct {
		apiv1.Certificate
		History []apiv1.Commit `json:"history"`
	}
	return render(c, shown{x, history.Items}, func(w io.Writer) { printCertificate(w, x, history.Items) })
}

func printCertificate(w io.Writer, x apiv1.Certificate, history []apiv1.Commit) {
	row := rows(w)
	row("name", x.Name)
	row("state", string(x.State))
	row("names", strings.Join(x.Names, " "))
	row("issuer", strings.TrimSpace(x.Issuer+" "+fallbackText(x)))
	row("key", keyText(x))
	if x.Issued != nil {
		row("serial", x.Issued.Serial)
		row("valid", day(x.Issued.NotBefore)+" to "+day(x.Issued.NotAfter))
		row("leaf", x.Issued.LeafSHA256)
	}
	if x.Paused {
		row("paused", x.PausedReason+" (certferry cert resume "+x.Name+" ends it)")
	}
	if x.Review != "" {
		row("review", x.Review)
	}
	if len(x.Waves) > 0 {
		row("waves", strings.Join(x.Waves, " "))
	}
	if x.Proposal != "" {
		row("proposed", "serial "+x.Proposal+" waits for review (certferry proposal show "+x.Name+")")
	}
	if x.RenewAt != nil {
		row("renew at", x.RenewAt.Format(time.RFC3339))
	}
	if x.Job != nil && x.Job.State != apiv1.JobDone {
		row("job", strings.TrimSpace(fmt.Sprintf("%s, attempt %d %s", x.Job.State, x.Job.Attempts, errorOf(*x.Job))))
		if step := nextStep(*x.Job); step != "" {
			row("next step", step)
		}
		if x.Job.RetryAt != nil {
			row("again at", x.Job.RetryAt.Format(time.RFC3339))
		}
		row("log", "certferry job log "+x.Job.ID)
	}
	printDeployments(w, x.Placed)
	printHistory(w, history)
}

func rollbackCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	x, err := hub.RollbackCertificate(c.Context, name, apiv1.RollbackRequest{Commit: c.String("to"), Reason: c.String("reason")})
	if err != nil {
		return fmt.Errorf("roll back certificate %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}

func fallbackText(x apiv1.Certificate) string {
	if x.FallbackIssuer == "" {
		return ""
	}
	return "(else " + x.FallbackIssuer + ")"
}

// keyText says which kinds of keys it has and where they are kept.
func keyText(x apiv1.Certificate) string {
	kinds := x.KeyType
	if kinds == "" {
		kinds = "ecdsa-p256"
	}
	if x.SecondKeyType != "" {
		kinds += " and " + x.SecondKeyType
	}
	if x.KeyCustody == "server" {
		return kinds + ", made and kept on the server"
	}
	return kinds + ", made and kept by the hub"
}
