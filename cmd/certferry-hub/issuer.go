package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/daemon"
)

func issuerCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "issuer", Usage: "issuers of certificates, while the hub is stopped",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{
				Name: "add", Usage: "add an issuer", ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "ca", Usage: "`NAME` of a known CA: " + strings.Join(daemon.KnownCAs(), ", ")},
					&cli.StringFlag{Name: "directory", Usage: "`URL` of an ACME directory, which acme_directories must list; without it and --ca a private CA is added"},
					&cli.StringFlag{Name: "eab-credential", Usage: "`NAME` of the credential that binds the account, where the CA asks for that"},
					&cli.StringFlag{Name: "private-ca", Usage: "`NAME` of a private CA made by privateca init (default: the hub's own)"},
					&cli.StringFlag{Name: "email", Usage: "contact `ADDRESS` of the ACME account"},
					&cli.StringFlag{Name: "profile", Usage: "ACME `PROFILE` to ask for"},
					&cli.StringFlag{Name: "preferred-chain", Usage: "`NAME` of the root to prefer"},
					&cli.DurationFlag{Name: "lifetime", DefaultText: "2160h", Usage: "lifetime of a private CA's certificates"},
				},
				Action: addIssuer,
			}, 1),
		},
	})
}

func addIssuer(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	issuer := &manifest.Issuer{Name: c.Args().First(), Type: "privateca"}
	directory := c.String("directory")
	if c.IsSet("ca") {
		if directory, err = daemon.DirectoryOf(c.String("ca")); err != nil {
			return err
		}
	}
	if directory != "" {
		issuer.Type = "acmesh"
		issuer.ACME = &manifest.ACMEIssuer{
			Directory: directory, EABCredential: c.String("eab-credential"), Email: c.String("email"), Profile: c.String("profile"), PreferredChain: c.String("preferred-chain"),
		}
	} else if c.IsSet("lifetime") || c.IsSet("private-ca") {
		issuer.PrivateCA = &manifest.PrivateCAIssuer{CA: c.String("private-ca")}
		if c.IsSet("lifetime") {
			issuer.PrivateCA.Lifetime = c.Duration("lifetime").String()
		}
	}
	if err := daemon.AddIssuer(c.Context, cfg, time.Now, issuer); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "issuer %s added\n", issuer.Name)
	return err
}
