// This file holds the command that revokes certificates.

package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

func revokeCommand() *cli.Command {
	return &cli.Command{
		Name: "revoke", Usage: "tell the CA that nobody should trust the present issue any more, and order another one", ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "reason", Required: true, Usage: "unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn"},
			&cli.StringFlag{Name: "serial", Usage: "`SERIAL` of the issue that is meant (default: the present one)"},
			&cli.BoolFlag{Name: "no-renew", Usage: "pause the renewal: no other certificate takes its place"},
		},
		Action: revokeCertificate,
	}
}

func revokeCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	serial := c.String("serial")
	if serial == "" {
		before, err := hub.Certificate(c.Context, name)
		if err != nil {
			return fmt.Errorf("revoke certificate %s: %w", name, err)
		}
		if before.Issued == nil {
			return errors.Join(errNothingToDo, fmt.Errorf("certificate %s was never issued", name))
		}
		serial = before.Issued.Serial
	}
	x, err := hub.RevokeCertificate(c.Context, name, apiv1.RevokeRequest{Reason: c.String("reason"), Serial: serial, NoRenew: c.Bool("no-renew")})
	if err != nil {
		return fmt.Errorf("revoke certificate %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}
