// This file lets git ask for the credential of the hub's repository, so that nobody copies tokens around
// (gitcredentials, "Custom helpers").

package main

import (
	"bufio"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/client"
)

func gitCredentialCommand() *cli.Command {
	return &cli.Command{
		Name:  "git-credential",
		Usage: "answer git with the credential of the login",
		Description: "Set it up once for each hub:\n" +
			"git config --global credential.https://HUB.helper '!certferry git-credential'",
		ArgsUsage: "get|store|erase",
		Action:    gitCredential,
	}
}

func gitCredential(c *cli.Context) error {
	operation, err := argument(c, "operation")
	if err != nil {
		return err
	}
	asked := readCredential(c.App.Reader)
	if operation != "get" {
		return nil // there is nothing to keep or to forget: the login is kept elsewhere
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if !concerns(asked, hub) {
		return nil // git asks its other helpers
	}
	user, password, err := hub.GitCredential(c.Context)
	if err != nil {
		return fmt.Errorf("get credential: %w", err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "username=%s\npassword=%s\n", user, password)
	return err
}

// readCredential reads what git knows: lines key=value up to an empty one.
func readCredential(r io.Reader) map[string]string {
	asked := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, 64<<10))
	for lines.Scan() && lines.Text() != "" {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			asked[key] = value
		}
	}
	return asked
}

// concerns tells whether git asks for the hub of the login: no other host is given its token.
func concerns(asked map[string]string, hub *client.Client) bool {
	base, err := url.Parse(hub.BaseURL())
	return err == nil && asked["protocol"] == base.Scheme && asked["host"] == base.Host
}
