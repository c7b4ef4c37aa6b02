// This file holds the commands that renew certificates, and stop renewals.

package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

func renewAllCommand() *cli.Command {
	return &cli.Command{
		Name: "renew-all", Usage: "renew all certificates of an issuer, or all that chain to an authority",
		Description: "For the day on which a CA has to revoke many certificates. Without --yes it only lists them.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "issuer", Usage: "those that this `ISSUER` issued"},
			&cli.StringFlag{Name: "authority", Usage: "those whose chain holds a certificate of this common `NAME`, such as R10"},
			&cli.DurationFlag{Name: "spread", DefaultText: "all at once, as fast as the CA's limits allow", Usage: "begin them over this `TIME`, such as 6h"},
			&cli.BoolFlag{Name: "new-key", Usage: "make new private keys whatever the certificates say"},
			&cli.StringFlag{Name: "reason", Usage: "why, for the history"},
			&cli.BoolFlag{Name: "yes", Usage: "do it"},
		},
		Action: renewAll,
	}
}

func renewAll(c *cli.Context) error {
	if c.IsSet("issuer") == c.IsSet("authority") {
		return usageError{errors.New("give either --issuer or --authority")}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	reply, err := hub.RenewAll(c.Context, apiv1.RenewAllRequest{
		Issuer: c.String("issuer"), Authority: c.String("authority"), SpreadSeconds: int64(c.Duration("spread") / time.Second),
		NewKey: c.Bool("new-key"), Reason: c.String("reason"), DryRun: !c.Bool("yes"),
	})
	if err != nil {
		return fmt.Errorf("renew all certificates: %w", err)
	}
	if len(reply.Certificates) == 0 {
		return errors.Join(errNothingToDo, errors.New("no certificate is of that issuer or authority, or all of them are paused"))
	}
	return render(c, reply, func(w io.Writer) {
		row := rows(w)
		for _, name := range reply.Certificates {
			row("renew", name)
		}
		for _, name := range reply.Paused {
			row("paused", name+" (certferry cert resume "+name+" ends it)")
		}
		if !c.Bool("yes") {
			row("", count(len(reply.Certificates), "certificate")+" would be renewed: give --yes")
		}
	})
}

func renewCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	before, err := hub.Certificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("renew certificate %s: %w", name, err)
	}
	job, err := hub.RenewCertificate(c.Context, name, apiv1.RenewRequest{Reason: c.String("reason"), DryRun: c.Bool("dry-run")})
	if err != nil {
		return fmt.Errorf("renew certificate %s: %w", name, err)
	}
	if c.Bool("dry-run") {
		return followJob(c, hub, job)
	}
	if !c.Bool("wait") {
		return render(c, job, func(w io.Writer) { _, _ = fmt.Fprintf(w, "job %s: %s\n", job.ID, job.State) })
	}
	old := ""
	if before.Issued != nil {
		old = before.Issued.LeafSHA256
	}
	x, err := waitForCertificate(c, hub, name, old)
	if err != nil {
		return err
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}

func pauseCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	before, err := hub.Certificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("pause certificate %s: %w", name, err)
	}
	if before.Paused {
		return errors.Join(errNothingToDo, fmt.Errorf("certificate %s is paused already", name))
	}
	x, err := hub.PauseCertificate(c.Context, name, apiv1.PauseRequest{Reason: c.String("reason")})
	if err != nil {
		return fmt.Errorf("pause certificate %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}

func resumeCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	before, err := hub.Certificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("resume certificate %s: %w", name, err)
	}
	if !before.Paused {
		return errors.Join(errNothingToDo, fmt.Errorf("certificate %s is not paused", name))
	}
	x, err := hub.ResumeCertificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("resume certificate %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}
