// This file holds the commands about credentials for DNS providers and CAs. Values are asked for on a terminal, or read
// from a file or standard input; never from the command line, which others see.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func credentialCommand() *cli.Command {
	flags := func() []cli.Flag {
		return []cli.Flag{
			&cli.StringFlag{Name: "provider", Required: true, Usage: "DNS `HOOK` such as dns_cf, or eab for the account at a CA"},
			&cli.StringFlag{Name: "values", Usage: "`FILE` of lines NAME=value, - for standard input (default: they are asked for)"},
		}
	}
	return &cli.Command{
		Name: "credential", Usage: "secrets for DNS providers and CAs: list, add, change, test, remove",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{
				Name: "providers", Usage: "list what credentials can be for, with their variables",
				Flags: []cli.Flag{&cli.StringFlag{Name: "query", Aliases: []string{"q"}, Usage: "only those that hold `TEXT`"}}, Action: listProviders,
			},
			{Name: "ls", Usage: "list credentials, without values", Action: listCredentials},
			{Name: "add", Usage: "keep a credential", ArgsUsage: "NAME", Flags: flags(), Action: func(c *cli.Context) error { return putCredential(c, true) }},
			{Name: "set", Usage: "replace the values of a credential", ArgsUsage: "NAME", Flags: flags(), Action: func(c *cli.Context) error { return putCredential(c, false) }},
			{
				Name: "test", Usage: "add a random TXT record, look for it and remove it", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.StringFlag{Name: "domain", Required: true, Usage: "`DOMAIN` that the credential may change"}}, Action: testCredential,
			},
			{Name: "rm", Usage: "forget a credential that nothing uses", ArgsUsage: "NAME", Action: removeCredential},
		},
	}
}

func listProviders(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.DNSProvider
	for item, err := range client.All(c.Context, hub.DNSProviders, client.Page{Query: c.String("query")}) {
		if err != nil {
			return fmt.Errorf("list providers: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"PROVIDER", "TITLE", "VARIABLES", "DOCS"}, func(p apiv1.DNSProvider) []string {
		text := namesOf(p.Options)
		if len(p.Alternative) > 0 {
			text += " or " + namesOf(p.Alternative)
		}
		return []string{p.Hook, p.Title, text, p.Docs}
	})
}

// namesOf lists variables, those that may be left out in brackets.
func namesOf(options []apiv1.ProviderOption) string {
	names := make([]string, 0, len(options))
	for _, o := range options {
		if o.Optional {
			names = append(names, "["+o.Name+"]")
		} else {
			names = append(names, o.Name)
		}
	}
	return strings.Join(names, " ")
}

func listCredentials(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Credential
	for item, err := range client.All(c.Context, hub.Credentials, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list credentials: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "PROVIDER", "VARIABLES", "USED BY"}, func(x apiv1.Credential) []string {
		provider := x.Provider
		if x.InFile {
			provider = "(file)"
		}
		return []string{x.Name, provider, strings.Join(x.Variables, " "), strings.Join(x.UsedBy, ", ")}
	})
}

func putCredential(c *cli.Context, create bool) error {
	name, err := argument(c, "credential name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	in := apiv1.CredentialRequest{Name: name, Provider: c.String("provider")}
	if in.Values, err = credentialValues(c, hub, in.Provider); err != nil {
		return err
	}
	put := hub.ReplaceCredential
	if create {
		put = hub.CreateCredential
	}
	x, err := put(c.Context, in)
	if err != nil {
		return fmt.Errorf("keep credential %s: %w", name, err)
	}
	return render(c, x, func(w io.Writer) { printCredential(w, x) })
}

// credentialValues reads values from a file, or asks for each.
func credentialValues(c *cli.Context, hub *client.Client, provider string) (map[string]string, error) {
	switch path := c.String("values"); path {
	case "":
		return askValues(c, hub, provider)
	case "-":
		return readValues(c.App.Reader)
	default:
		file, err := os.Open(path) //nolint:gosec // the path is the caller's
		if err != nil {
			return nil, fmt.Errorf("read values: %w", err)
		}
		defer func() { _ = file.Close() }()
		return readValues(file)
	}
}

// readValues reads lines NAME=value. Errors name lines and never values.
func readValues(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, 256<<10))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, usageError{fmt.Errorf("read values: line %d does not read NAME=value", n)}
		}
		values[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	return values, nil
}

// askValues asks for the variables of a provider; an empty answer leaves one out. Those that it takes instead of others
// are asked for where the others are not complete.
func askValues(c *cli.Context, hub *client.Client, provider string) (map[string]string, error) {
	page, err := hub.DNSProviders(c.Context, client.Page{Query: provider, Limit: 200})
	if err != nil {
		return nil, fmt.Errorf("ask for values: %w", err)
	}
	at := slices.IndexFunc(page.Items, func(p apiv1.DNSProvider) bool { return p.Hook == provider })
	if at < 0 {
		return nil, usageError{fmt.Errorf("ask for values: there is no provider %s: certferry credential providers lists them", provider)}
	}
	p := page.Items[at]
	if len(p.Options) == 0 {
		return nil, usageError{errors.New("ask for values: this provider does not say what it takes: give --values")}
	}
	a, values := newAsker(c), map[string]string{}
	a.say(introduction(p))
	if err := askOptions(a, p.Options, values); err != nil {
		return nil, err
	}
	if !complete(p.Options, values) {
		if err := askOptions(a, p.Alternative, values); err != nil {
			return nil, err
		}
	}
	maps.DeleteFunc(values, func(_, value string) bool { return value == "" })
	return values, nil
}

// introduction says which variables belong together, before they are asked for.
func introduction(p apiv1.DNSProvider) string {
	text := p.Hook + " takes " + namesOf(p.Options)
	if len(p.Alternative) > 0 {
		text += ", or instead " + namesOf(p.Alternative)
	}
	return text + ".\nPress Enter to leave a variable out; those in brackets need not be given."
}

// askOptions asks for what has no answer yet.
func askOptions(a *asker, options []apiv1.ProviderOption, values map[string]string) error {
	for _, o := range options {
		if _, asked := values[o.Name]; asked {
			continue
		}
		prompt := o.Name
		if o.Description != "" {
			prompt += " (" + o.Description + ")"
		}
		value, err := a.ask(o.Name, prompt, o.Secret)
		if err != nil {
			return err
		}
		values[o.Name] = value
	}
	return nil
}

// complete says whether something is given, and nothing missing.
func complete(options []apiv1.ProviderOption, values map[string]string) bool {
	given := func(o apiv1.ProviderOption) bool { return values[o.Name] != "" }
	missing := func(o apiv1.ProviderOption) bool { return !o.Optional && !given(o) }
	return slices.ContainsFunc(options, given) && !slices.ContainsFunc(options, missing)
}

func printCredential(w io.Writer, x apiv1.Credential) {
	row := rows(w)
	row("name", x.Name)
	row("provider", x.Provider)
	row("variables", strings.Join(x.Variables, " "))
	row("used by", strings.Join(x.UsedBy, ", "))
}

func testCredential(c *cli.Context) error {
	name, err := argument(c, "credential name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	result, err := hub.TestCredential(c.Context, name, c.String("domain"))
	if err != nil {
		return fmt.Errorf("test credential %s: %w", name, err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	shown := 0
	for {
		for ; shown < len(result.Lines); shown++ {
			_, _ = fmt.Fprintln(c.App.Writer, result.Lines[shown])
		}
		if !result.Running {
			break
		}
		select {
		case <-tick.C:
		case <-c.Done():
			return c.Err()
		}
		if result, err = hub.CredentialTest(c.Context, name); err != nil {
			return fmt.Errorf("test credential %s: %w", name, err)
		}
	}
	if !result.OK {
		return fmt.Errorf("test credential %s: %s; %s", name, result.Error, result.NextStep)
	}
	_, err = fmt.Fprintf(c.App.Writer, "the test succeeded: credential %s can change %s, and the record is gone again\n", name, result.Domain)
	return err
}

func removeCredential(c *cli.Context) error {
	name, err := argument(c, "credential name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if err := hub.DeleteCredential(c.Context, name); err != nil {
		return fmt.Errorf("forget credential %s: %w", name, err)
	}
	return nil
}
