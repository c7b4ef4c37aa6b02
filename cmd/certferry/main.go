// Command certferry is the operators' command line: it talks to the hub's API.
//
// Exit codes: 0 ok, 1 failed, 2 usage, 3 nothing to do, 4 not allowed, 5 unreachable.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/client"
)

// version is set at build time.
var version = "dev"

// Exit codes, a documented contract (docs/reference/certferry.md).
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNothingToDo = 3
	exitNotAllowed  = 4
	exitUnreachable = 5
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := newApp(os.Stdin, os.Stdout, os.Stderr).RunContext(ctx, os.Args)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "certferry:", err)
	return exitCode(err)
}

// errNothingToDo: the object is in the wished state already.
var errNothingToDo = errors.New("nothing to do")

// usageError marks a command line that cannot be carried out as it stands.
type usageError struct{ error }

func exitCode(err error) int {
	status := client.StatusOf(err)
	switch {
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.Is(err, errNothingToDo):
		return exitNothingToDo
	case status == 401, status == 403, errors.Is(err, errNotLoggedIn):
		return exitNotAllowed
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	default:
		return exitFailed
	}
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:    "certferry",
		Usage:   "steers certificates and servers through the hub",
		Version: version, HideVersion: true,
		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         func(_ *cli.Context, err error, _ bool) error { return usageError{err} },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "hub", EnvVars: []string{"CERTFERRY_HUB"}, Usage: "`URL` of the hub (default: the one logged in to)"},
			&cli.StringFlag{Name: "ca-file", EnvVars: []string{"CERTFERRY_CA_FILE"}, Usage: "PEM `FILE` that the hub's TLS certificate must chain to"},
			&cli.StringFlag{Name: "session", EnvVars: []string{"CERTFERRY_SESSION"}, Usage: "`FILE` that keeps the login (default: certferry/session.json in the user's configuration folder)"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "how to print: table, json or yaml"},
		},
		Before: func(c *cli.Context) error {
			switch c.String("output") {
			case "table", "json", "yaml":
				return nil
			default:
				return usageError{errors.New("read flag --output: it must be table, json or yaml")}
			}
		},
		Action: unknownCommand,
		Commands: []*cli.Command{
			setupCommand(), loginCommand(), logoutCommand(),
			certificateCommand(), jobCommand(), issuerCommand(), credentialCommand(), endpointCommand(), reportCommand(), serverCommand(), rollbackCommand(), rolloutCommand(), proposalCommand(), commitCommand(), alertCommand(), remoteCommand(), statusCommand(), gitCredentialCommand(),
			planCommand(), lintCommand(),
			{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
				_, err := fmt.Fprintln(c.App.Writer, version)
				return err
			}},
		},
	}
	strict(app.Commands)
	return app
}

// strict makes each command say that a flag stands behind a name, where it is not read, and which one is missing. The
// library's own check of required flags comes before and does not know of the first.
func strict(commands []*cli.Command) {
	for _, command := range commands {
		strict(command.Subcommands)
		if len(command.Subcommands) > 0 {
			continue
		}
		var required []string
		for _, f := range command.Flags {
			if text, ok := f.(*cli.StringFlag); ok && text.Required {
				text.Required = false
				required = append(required, text.Name)
			}
		}
		command.Action = checked(command.Action, required)
	}
}

// checked is an action behind the check of its flags.
func checked(action cli.ActionFunc, required []string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if slices.ContainsFunc(c.Args().Slice(), func(arg string) bool { return len(arg) > 1 && arg[0] == '-' }) {
			return usageError{fmt.Errorf("read arguments: flags stand before arguments: %s [FLAGS] %s", c.Command.HelpName, c.Command.ArgsUsage)}
		}
		for _, name := range required {
			if !c.IsSet(name) {
				return usageError{fmt.Errorf("read flags: give --%s; see %s --help", name, c.Command.HelpName)}
			}
		}
		return action(c)
	}
}

// unknownCommand is the action of a command that only has subcommands.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return usageError{fmt.Errorf("find command %q: there is none of that name; see %s --help", c.Args().First(), c.App.Name)}
	}
	return cli.ShowSubcommandHelp(c)
}

// argument returns the only argument of a command.
func argument(c *cli.Context, what string) (string, error) {
	if c.NArg() != 1 {
		return "", usageError{fmt.Errorf("read arguments: give exactly one %s, after the flags", what)}
	}
	return c.Args().First(), nil
}
