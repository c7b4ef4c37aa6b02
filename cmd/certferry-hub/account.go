package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/daemon"
)

func userCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "user", Usage: "accounts, while the hub is stopped: the way back in when nobody can log in",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{
				Name: "add", Usage: "make an account; its password is the first line of standard input", ArgsUsage: "NAME",
				Flags: []cli.Flag{&cli.StringFlag{Name: "role", Value: string(apiv1.RoleViewer), Usage: "viewer, operator or admin"}},
				Action: func(c *cli.Context) error {
					return withAccounts(c, func(a *daemon.Admin) error {
						password, err := readPassword(c)
						if err != nil {
							return err
						}
						if err := a.AddUser(c.Context, c.Args().First(), password, apiv1.Role(c.String("role"))); err != nil {
							return err
						}
						_, err = fmt.Fprintf(c.App.Writer, "account %s made\n", c.Args().First())
						return err
					})
				},
			}, 1),
			leaf(&cli.Command{
				Name: "passwd", Usage: "replace an account's password, the first line of standard input, and end its sessions", ArgsUsage: "NAME",
				Action: func(c *cli.Context) error {
					return withAccounts(c, func(a *daemon.Admin) error {
						password, err := readPassword(c)
						if err != nil {
							return err
						}
						if err := a.SetPassword(c.Context, c.Args().First(), password); err != nil {
							return err
						}
						_, err = fmt.Fprintf(c.App.Writer, "password of %s replaced\n", c.Args().First())
						return err
					})
				},
			}, 1),
			leaf(&cli.Command{
				Name: "ls", Usage: "list the accounts",
				Action: func(c *cli.Context) error {
					return withAccounts(c, func(a *daemon.Admin) error { return listUsers(c, a) })
				},
			}, 0),
		},
	})
}

func listUsers(c *cli.Context, a *daemon.Admin) error {
	users, err := a.Users(c.Context)
	if err != nil {
		return err
	}
	return render(c, users, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "NAME\tROLE\tSTATE\tMADE")
		for _, u := range users {
			state := "active"
			if u.Disabled {
				state = "disabled"
			}
			_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", u.Name, u.Role, state, u.CreatedAt.Format(time.DateOnly))
		}
		return table.Flush()
	})
}

// withAccounts runs act on the accounts of a hub that is stopped.
func withAccounts(c *cli.Context, act func(*daemon.Admin) error) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	accounts, err := daemon.OpenAdmin(c.Context, cfg, time.Now)
	if err != nil {
		return err
	}
	return errors.Join(act(accounts), accounts.Close())
}

// readPassword asks on a terminal and reads a line elsewhere. A password is never an argument: those are public.
func readPassword(c *cli.Context) (string, error) {
	if file, ok := c.App.Reader.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		_, _ = fmt.Fprint(c.App.ErrWriter, "Password: ")
		line, err := term.ReadPassword(int(file.Fd()))
		_, _ = fmt.Fprintln(c.App.ErrWriter)
		if err != nil {
			return "", fmt.Errorf("read password: %w", err)
		}
		return string(line), nil
	}
	line, err := bufio.NewReader(io.LimitReader(c.App.Reader, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read password: %w", err)
	}
	password := strings.TrimRight(line, "\r\n")
	if password == "" {
		return "", usagef("read password: give it as the first line of standard input")
	}
	return password, nil
}
