// This file holds the command that replaces the key of a server.

package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

func rotateKeyCommand() *cli.Command {
	return &cli.Command{
		Name: "rotate-key", Usage: "have a server make a new key, or shut out one whose key is stolen", ArgsUsage: "NAME",
		Description: "The agent makes the new key at its next heartbeat. With --compromised the server is shut out at once instead, and\n" +
			"every certificate in force whose private key it was ever given is issued again with a new key. The server enrols\n" +
			"anew with the join token that is printed. To print a new token, or queue what failed, run it again.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "compromised", Usage: "somebody else may have the key: shut the server out and replace what it could open"},
			&cli.StringFlag{Name: "reason", Usage: "`TEXT` for the jobs and the commits that come of it, with --compromised"},
		},
		Action: rotateServerKey,
	}
}

func rotateServerKey(c *cli.Context) error {
	name, err := argument(c, "server")
	if err != nil {
		return err
	}
	if c.IsSet("reason") && !c.Bool("compromised") {
		return usageError{fmt.Errorf("read flag --reason: it goes with --compromised")}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	r, err := hub.RotateServerKey(c.Context, name, apiv1.RotateKeyRequest{Compromised: c.Bool("compromised"), Reason: c.String("reason")})
	if err != nil {
		return fmt.Errorf("replace key of server %s: %w", name, err)
	}
	return render(c, r, func(w io.Writer) { printRotation(w, r) })
}

func printRotation(w io.Writer, r apiv1.KeyRotation) {
	if r.JoinToken == nil {
		row := rows(w)
		row("server", r.Server)
		row("state", r.State)
		if r.Until != nil {
			row("until", r.Until.Format(time.RFC3339))
		}
		_, _ = fmt.Fprintf(w, "\nThe agent makes a new key at its next heartbeat. After that time an operator has to approve it.\n")
		return
	}
	row := rows(w)
	row("server", r.Server)
	row("state", r.State)
	row("token", r.JoinToken.Token)
	row("expires", r.JoinToken.ExpiresAt.Format(time.RFC3339))
	_, _ = fmt.Fprintf(w, "\nOn the server, once it is clean, give the token on standard input to:\n  %s --force\n", r.JoinToken.Command)
	if len(r.Certificates) == 0 {
		_, _ = fmt.Fprintf(w, "\nNo certificate in force had its private key there.\n")
		return
	}
	_, _ = fmt.Fprintf(w, "\nIssued again with new keys (certferry certificate ls shows how far it is):\n")
	for _, name := range r.Certificates {
		_, _ = fmt.Fprintf(w, "  %s\n", name)
	}
	_, _ = fmt.Fprintf(w, "\nThe former issues stay valid until they expire: revoke them at their CA.\n")
}
