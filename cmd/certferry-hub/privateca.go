package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/daemon"
)

func privateCACommand() *cli.Command {
	return parent(&cli.Command{
		Name: "privateca", Usage: "private certificate authorities",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{Name: "ls", Usage: "list private CAs and where they are", Action: listPrivateCAs}, 0),
			leaf(&cli.Command{
				Name: "init", Usage: "make a further private CA, while the hub is stopped; issuer add --private-ca NAME uses it", ArgsUsage: "NAME",
				Flags:  []cli.Flag{&cli.StringSliceFlag{Name: "permit", Usage: "`DOMAIN` that it can sign for, with what is below it; repeat it for more (default: all)"}},
				Action: initPrivateCA,
			}, 1),
			between(&cli.Command{
				Name: "export-root", Usage: "print the root certificate in PEM, for the trust stores of clients", ArgsUsage: "[NAME]", Action: exportPrivateRoot,
			}, 0, 1),
			between(&cli.Command{
				Name: "renew-intermediate", Usage: "give the intermediate new dates, while the hub is stopped; the root's key must be in its place for the moment", ArgsUsage: "[NAME]",
				Action: renewIntermediate,
			}, 0, 1),
		},
	})
}

func listPrivateCAs(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	all, err := daemon.PrivateCAs(cfg)
	if err != nil {
		return err
	}
	return render(c, all, func(w io.Writer) error {
		for _, ca := range all {
			name := ca.Name
			if name == "" {
				name = "(default)"
			}
			if _, err := fmt.Fprintf(w, "%s\t%s\n", name, ca.Dir); err != nil {
				return err
			}
		}
		return nil
	})
}

func initPrivateCA(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	made, err := daemon.InitPrivateCA(cfg, c.Args().First(), c.StringSlice("permit"), time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "private CA %s made in %s\nmove %s/root.key to a safe place offline: only renew-intermediate needs it\n", made.Name, made.Dir, made.Dir)
	if permitted := c.StringSlice("permit"); err == nil && len(permitted) > 0 {
		_, err = fmt.Fprintf(c.App.Writer, "it can sign for %s and below only\n", strings.Join(permitted, ", "))
	}
	return err
}

func exportPrivateRoot(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	root, err := daemon.ExportPrivateRoot(cfg, c.Args().First(), time.Now)
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(root)
	return err
}

func renewIntermediate(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	if err := daemon.RenewPrivateIntermediate(cfg, c.Args().First(), time.Now()); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, "intermediate renewed: take the root's key away again, then start the hub")
	return err
}
