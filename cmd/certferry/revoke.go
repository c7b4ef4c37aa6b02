// This file holds the command that revokes certificates.

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

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
			&cli.BoolFlag{Name: "yes", Usage: "do it: a revocation cannot be taken back"},
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
	before, err := hub.Certificate(c.Context, name)
	if err != nil {
		return fmt.Errorf("revoke certificate %s: %w", name, err)
	}
	serial := c.String("serial")
	if serial == "" {
		if before.Issued == nil {
			return errors.Join(errNothingToDo, fmt.Errorf("certificate %s was never issued", name))
		}
		serial = before.Issued.Serial
	}
	if !c.Bool("yes") {
		return usageError{fmt.Errorf("revoke certificate %s: this would revoke serial %s for %s, on %s, and cannot be taken back: say --yes",
			name, serial, strings.Join(before.Names, " "), count(len(before.Placed), "server"))}
	}
	x, err := hub.RevokeCertificate(c.Context, name, apiv1.RevokeRequest{Reason: c.String("reason"), Serial: serial, NoRenew: c.Bool("no-renew")})
	if err != nil {
		return fmt.Errorf("revoke certificate %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCertificate(w, x, nil) })
}
