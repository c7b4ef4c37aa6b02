// This file holds the command that asks this server's web server whether it answers challenges by itself.

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/agent/daemon"
)

func checkHTTPCommand() *cli.Command {
	return &cli.Command{
		Name: "check-http", Usage: "ask this server's web server whether it answers challenges for the stateless method", ArgsUsage: "NAME [NAME...]",
		Description:  "It asks port 80 of this server's own addresses. It needs no configuration and no hub.",
		OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "thumbprint", Usage: "`THUMBPRINT` of the account, as certferry issuer account prints it (default: any)"},
			&cli.StringSliceFlag{Name: "address", Usage: "`ADDRESS:PORT` to ask; repeat it for more (default: port 80 of all)"},
		},
		Action: checkHTTP,
	}
}

func checkHTTP(c *cli.Context) error {
	names := c.Args().Slice()
	if len(names) == 0 {
		return usagef("read arguments: give the DNS names to ask for")
	}
	found, right, err := daemon.CheckChallenges(c.Context, names, c.StringSlice("address"), c.String("thumbprint"))
	if err != nil {
		return usageError{err}
	}
	err = render(c, found, func(text *strings.Builder) {
		for _, f := range found {
			fmt.Fprintf(text, "%-7s %s at %s: %s\n", f.State, f.Name, f.Address, f.Detail)
		}
	})
	if err == nil && !right {
		return errors.New("check challenges: a CA would not find what it looks for: see docs/guide/acme.md for the snippets")
	}
	return err
}
