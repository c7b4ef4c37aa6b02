package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/daemon"
)

func keyCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "key", Usage: "the hub's keys",
		Subcommands: []*cli.Command{leaf(&cli.Command{
			Name: "export", Usage: "print the public keys for gpg --import",
			Description: "With the root and signing keys, git verify-commit checks every commit. With the secret escrow key,\n" +
				"gpg --decrypt opens every bundle on main, private keys and all.",
			Flags: []cli.Flag{
				&cli.BoolFlag{Name: "escrow-secret", Usage: "print the SECRET escrow key instead"},
				&cli.BoolFlag{Name: "yes-print-the-secret", Usage: "confirm --escrow-secret"},
			},
			Action: exportKeys,
		}, 0)},
	})
}

func exportKeys(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if c.Bool("escrow-secret") {
		if !c.Bool("yes-print-the-secret") {
			return usagef("export escrow key: whoever has it reads every private key on main: add --yes-print-the-secret if that is meant")
		}
		secret, err := daemon.ExportEscrowSecret(cfg, time.Now())
		if err != nil {
			return err
		}
		_, err = c.App.Writer.Write(secret)
		return err
	}
	keys, err := daemon.ExportPublicKeys(cfg, time.Now())
	if err != nil {
		return err
	}
	named := map[string]string{"root": string(keys.Root), "signing": string(keys.Signing), "escrow": string(keys.Escrow)}
	return render(c, named, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\n%s\n%s", keys.Root, keys.Signing, keys.Escrow)
		return err
	})
}
