// Command certferry-hub runs the hub: it issues and renews certificates, seals them to the servers that need them and
// commits the result to the Git repository that agents read.
//
// Exit codes: 0 ok, 1 failed, 2 usage, 3 nothing to do, 4 not allowed, 5 unreachable.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/daemon"
)

// version is set at build time.
var version = "dev"

// Exit codes, a documented contract (docs/reference/certferry-hub.md).
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotAllowed = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := newApp(stdin, stdout, stderr).RunContext(ctx, args)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "certferry-hub:", err)
	if e, ok := errors.AsType[*hub.Error](err); ok {
		for _, f := range e.Faults {
			_, _ = fmt.Fprintln(stderr, "certferry-hub:", f.Message)
		}
	}
	return exitCode(err)
}

// usageError marks a command line that cannot be carried out as it stands.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	switch {
	case errors.As(err, new(usageError)), errors.Is(err, hub.ErrInvalid):
		return exitUsage
	case errors.Is(err, hub.ErrForbidden), errors.Is(err, hub.ErrUnauthenticated):
		return exitNotAllowed
	}
	return exitFailed
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name: "certferry-hub", Usage: "issues certificates and hands them to servers through Git",
		Version: version, HideVersion: true,
		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         onUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "config", Aliases: []string{"c"}, Value: "/etc/certferry/hub.yaml",
				EnvVars: []string{daemon.EnvConfig}, Usage: "configuration `FILE`; it may be absent where it is not named",
			},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "how to print: table, json or yaml"},
		},
		Before: func(c *cli.Context) error {
			switch c.String("output") {
			case "table", "json", "yaml":
				return nil
			}
			return usagef("read flag --output: it must be table, json or yaml")
		},
		Action:   group,
		Commands: commands(),
	}
}

func commands() []*cli.Command {
	return []*cli.Command{
		initCommand(), serveCommand(), demoCommand(), configCommand(), userCommand(), issuerCommand(), privateCACommand(), acmeCommand(), keyCommand(), storeCommand(),
		leaf(&cli.Command{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
			_, err := fmt.Fprintln(c.App.Writer, version)
			return err
		}}, 0),
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// group is the action of a command that only has subcommands.
func group(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("find command %q: there is none of that name; see %s --help", c.Args().First(), c.App.Name)
	}
	return cli.ShowSubcommandHelp(c)
}

// leaf makes a command refuse any other number of arguments. No flag of a command is Required for the library: its check
// would come first, and does not know of flags that stand where they are not read.
func leaf(command *cli.Command, args int) *cli.Command { return between(command, args, args) }

// between makes a command refuse fewer arguments than least, more than most, and flags that stand where they are not read.
func between(command *cli.Command, least, most int) *cli.Command {
	action := command.Action
	command.OnUsageError = onUsageError
	command.Action = func(c *cli.Context) error {
		if slices.ContainsFunc(c.Args().Slice(), func(arg string) bool { return strings.HasPrefix(arg, "-") }) {
			return usagef("read arguments: flags stand before arguments: %s [FLAGS] %s", c.Command.HelpName, c.Command.ArgsUsage)
		}
		if n := c.NArg(); n < least || n > most {
			return usagef("read arguments: %s takes %d, not %d; see %s --help", c.Command.FullName(), most, n, c.Command.HelpName)
		}
		return action(c)
	}
	return command
}

func parent(command *cli.Command) *cli.Command {
	command.Action, command.OnUsageError = group, onUsageError
	return command
}

func loadConfig(c *cli.Context) (daemon.Config, error) {
	cfg, err := daemon.LoadConfig(c.String("config"), c.IsSet("config"), os.Environ())
	cfg.Passphrase = sync.OnceValues(func() ([]byte, error) { return askPassphrase(c, "Passphrase of the hub's keys: ") })
	return cfg, err
}

// render prints v as the flag --output asks; table prints it for people.
func render(c *cli.Context, v any, table func(io.Writer) error) error {
	switch c.String("output") {
	case "json":
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return yaml.NewEncoder(c.App.Writer).Encode(v)
	}
	return table(c.App.Writer)
}
