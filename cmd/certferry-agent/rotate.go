package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func rotateKeyCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "rotate-key", Usage: "make a new key for this server and offer it to the hub",
		Description: "The present key stays in force until the hub has sealed a state to the new one. The hub takes the new key at once\n" +
			"where an operator asked for it within half an hour; otherwise one approves its fingerprint. Where the present key may\n" +
			"be in other hands, do not use this: an operator runs certferry server rotate-key --compromised.",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, Usage: "give up after this time, waiting for another run included"}},
		Action: func(c *cli.Context) error {
			a, err := open(c)
			if err != nil {
				return err
			}
			status, err := a.Status()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer cancel()
			r, err := a.RotateKey(ctx)
			if err != nil {
				return err
			}
			return render(c, r, func(w *strings.Builder) {
				fmt.Fprintf(w, "fingerprint  %s\nstate        %s\n", r.Fingerprint, r.State)
				if r.State == "pending" {
					fmt.Fprintf(w, "\nNow an operator compares the fingerprint and runs: certferry server approve --fingerprint %s %s\n", r.Fingerprint, status.Server)
				}
			})
		},
	}, 0)
}
