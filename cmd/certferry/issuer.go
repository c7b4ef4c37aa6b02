// This file holds the commands about issuers, the ways to get certificates.

package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func issuerCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "ca", Usage: "`NAME` of a CA that the hub knows, such as letsencrypt, letsencrypt_test, zerossl or google"},
		&cli.StringFlag{Name: "directory", Usage: "`URL` of another ACME directory, which the hub's configuration must allow"},
		&cli.StringFlag{Name: "email", Usage: "contact `ADDRESS` of the ACME account"},
		&cli.StringFlag{Name: "eab-credential", Usage: "`NAME` of the credential that binds the account, where the CA asks for that"},
		&cli.StringFlag{Name: "profile", Usage: "ACME `PROFILE` to ask for"},
		&cli.StringFlag{Name: "preferred-chain", Usage: "`NAME` of the root to prefer"},
		&cli.StringFlag{Name: "private-ca", Usage: "`NAME` of a private CA of the hub's, in place of an ACME CA"},
		&cli.StringFlag{Name: "lifetime", Usage: "`TIME` that a private CA's certificates last, such as 2160h"},
	}
	return &cli.Command{
		Name: "issuer", Usage: "ways to get certificates: list, show, add, change, remove, accounts at CAs",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list issuers", Action: listIssuers},
			{Name: "show", Usage: "show an issuer", ArgsUsage: "NAME", Action: showIssuer},
			{Name: "add", Usage: "add an issuer", ArgsUsage: "NAME", Flags: flags, Action: func(c *cli.Context) error { return putIssuer(c, true) }},
			{Name: "set", Usage: "change an issuer: what is not given is not kept", ArgsUsage: "NAME", Flags: flags, Action: func(c *cli.Context) error { return putIssuer(c, false) }},
			{Name: "rm", Usage: "remove an issuer that no certificate names", ArgsUsage: "NAME", Action: removeIssuer},
			{
				Name: "account", Usage: "show the account at the CA, made where there is none, and what stateless web servers are told", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.StringFlag{Name: "snippet", Usage: "print only what the `SERVER` is told: nginx, apache or haproxy"}}, Action: showAccount,
			},
			{
				Name: "deactivate", Usage: "end the account at the CA for good", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.BoolFlag{Name: "yes", Usage: "do it: the account cannot be brought back"}}, Action: deactivateAccount,
			},
		},
	}
}

func listIssuers(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Issuer
	for item, err := range client.All(c.Context, hub.Issuers, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list issuers: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "TYPE", "CA", "CERTIFICATES", "PROBLEM"}, func(i apiv1.Issuer) []string {
		return []string{i.Name, i.Type, caOf(i), strconv.Itoa(i.Certificates), i.Problem}
	})
}

// caOf is what people call the CA of an issuer.
func caOf(i apiv1.Issuer) string {
	for _, name := range []string{i.CA, i.Directory, i.PrivateCA} {
		if name != "" {
			return name
		}
	}
	return "-"
}

func showIssuer(c *cli.Context) error {
	name, err := argument(c, "issuer name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	i, err := hub.Issuer(c.Context, name)
	if err != nil {
		return fmt.Errorf("show issuer %s: %w", name, err)
	}
	return renderIssuer(c, i)
}

func renderIssuer(c *cli.Context, i apiv1.Issuer) error {
	return render(c, i, func(w io.Writer) {
		row := rows(w)
		for _, line := range [][2]string{
			{"name", i.Name},
			{"type", i.Type},
			{"CA", i.CA},
			{"directory", i.Directory},
			{"email", i.Email},
			{"EAB credential", i.EABCredential},
			{"profile", i.Profile},
			{"preferred chain", i.PreferredChain},
			{"private CA", i.PrivateCA},
			{"lifetime", i.Lifetime},
			{"certificates", strconv.Itoa(i.Certificates)},
			{"problem", i.Problem},
		} {
			if line[1] != "" {
				row(line[0], line[1])
			}
		}
	})
}

func putIssuer(c *cli.Context, create bool) error {
	name, err := argument(c, "issuer name")
	if err != nil {
		return err
	}
	spec := apiv1.IssuerSpec{
		Type: "privateca", CA: c.String("ca"), Directory: c.String("directory"), Email: c.String("email"), EABCredential: c.String("eab-credential"),
		Profile: c.String("profile"), PreferredChain: c.String("preferred-chain"), PrivateCA: c.String("private-ca"), Lifetime: c.String("lifetime"),
	}
	if spec.CA != "" || spec.Directory != "" {
		spec.Type = "acmesh"
	} else if spec.PrivateCA == "" && !c.IsSet("lifetime") {
		return usageError{errors.New("read flags: give --ca, --directory, --private-ca or --lifetime")}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	put := func() (apiv1.Issuer, error) { return hub.ReplaceIssuer(c.Context, name, spec) }
	verb := "change"
	if create {
		verb = "add"
		put = func() (apiv1.Issuer, error) {
			return hub.CreateIssuer(c.Context, apiv1.CreateIssuerRequest{Name: name, IssuerSpec: spec})
		}
	}
	i, err := put()
	if err != nil {
		return fmt.Errorf("%s issuer %s: %w", verb, name, err)
	}
	return renderIssuer(c, i)
}

func removeIssuer(c *cli.Context) error {
	name, err := argument(c, "issuer name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if err := hub.DeleteIssuer(c.Context, name); err != nil {
		return fmt.Errorf("remove issuer %s: %w", name, err)
	}
	return nil
}

func showAccount(c *cli.Context) error {
	name, err := argument(c, "issuer name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	account, err := hub.IssuerAccount(c.Context, name)
	if err != nil {
		return fmt.Errorf("show account of issuer %s: %w", name, err)
	}
	if server := c.String("snippet"); server != "" {
		for _, s := range account.Snippets {
			if s.Server == server {
				_, err := fmt.Fprint(c.App.Writer, s.Text)
				return err
			}
		}
		return usageError{errors.New("read flag --snippet: it must be nginx, apache or haproxy")}
	}
	return render(c, account, func(w io.Writer) {
		row := rows(w)
		row("account", account.URL)
		row("status", account.Status)
		row("contact", strings.Join(account.Contact, ", "))
		row("thumbprint", account.Thumbprint)
	})
}

func deactivateAccount(c *cli.Context) error {
	name, err := argument(c, "issuer name")
	if err != nil {
		return err
	}
	if !c.Bool("yes") {
		return usageError{fmt.Errorf("deactivate account of issuer %s: it cannot be brought back: say --yes", name)}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if err := hub.DeactivateAccount(c.Context, name); err != nil {
		return fmt.Errorf("deactivate account of issuer %s: %w", name, err)
	}
	return nil
}
