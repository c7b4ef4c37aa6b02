// Command certferry-agent runs on each server: it fetches the server's state from Git, checks it and deploys it.
//
// Exit codes: 0 ok, 1 failed, 2 usage, 3 nothing to do, 4 not allowed, 5 unreachable.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/hub/client"
)

// version is set at build time.
var version = "dev"

// Exit codes, a documented contract (docs/reference/certferry-agent.md).
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
	fmt.Fprintln(os.Stderr, "certferry-agent:", err)
	return exitCode(err)
}

// usageError marks a command line that cannot be carried out as it stands.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	var api *client.Error
	switch {
	case errors.As(err, new(usageError)), lacksFlag(err):
		return exitUsage
	case errors.Is(err, daemon.ErrNothingToDo):
		return exitNothingToDo
	case errors.Is(err, agent.ErrNotAllowed), errors.Is(err, daemon.ErrDenied), errors.As(err, &api) && (api.Status == 401 || api.Status == 403):
		return exitNotAllowed
	case errors.Is(err, daemon.ErrUnreachable), errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	default:
		return exitFailed
	}
}

// lacksFlag says whether a required flag is missing: urfave/cli has no type for that which others can name.
func lacksFlag(err error) bool { return strings.HasPrefix(err.Error(), "Required flag") }

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:    "certferry-agent",
		Usage:   "deploys this server's certificates from Git",
		Version: version, HideVersion: true,
		Reader: stdin, Writer: stdout, ErrWriter: stderr,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {},
		OnUsageError:         onUsageError,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Value: "/etc/certferry/agent.yaml", EnvVars: []string{"CERTFERRY_AGENT_CONFIG"}, Usage: "configuration `FILE`"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "how to print: table, json or yaml"},
		},
		Before: func(c *cli.Context) error {
			switch c.String("output") {
			case "table", "json", "yaml":
				return nil
			default:
				return usagef("read flag --output: it must be table, json or yaml")
			}
		},
		Action: group,
		Commands: []*cli.Command{
			enrollCommand(), runCommand(), onceCommand(), statusCommand(), recoverCommand(), rollbackCommand(), resumeCommand(), rotateKeyCommand(), policyCommand(), scanCommand(), checkHTTPCommand(),
			leaf(&cli.Command{Name: "version", Usage: "print the version", Action: func(c *cli.Context) error {
				_, err := fmt.Fprintln(c.App.Writer, version)
				return err
			}}, 0),
		},
	}
}

func onUsageError(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// group is the action of a command that only has subcommands.
func group(c *cli.Context) error {
	if c.Args().Present() {
		return usagef("find command %q: there is none of that name; see certferry-agent --help", c.Args().First())
	}
	return cli.ShowSubcommandHelp(c)
}

// leaf makes a command refuse more arguments than args, and flags that stand where they would not be read.
func leaf(command *cli.Command, args int) *cli.Command {
	action := command.Action
	command.OnUsageError = onUsageError
	command.Action = func(c *cli.Context) error {
		if slices.ContainsFunc(c.Args().Slice(), func(arg string) bool { return strings.HasPrefix(arg, "-") }) {
			return usagef("read arguments: flags stand before arguments; see %s --help", c.Command.HelpName)
		}
		if c.NArg() > args {
			return usagef("read arguments: %s takes %d, not %d; see %s --help", command.Name, args, c.NArg(), c.Command.HelpName)
		}
		return action(c)
	}
	return command
}

func environment(c *cli.Context, cfg daemon.Config) daemon.Environment {
	return daemon.Environment{Version: version, Now: time.Now, Logger: cfg.Logger(c.App.ErrWriter)}
}

func loadConfig(c *cli.Context) (daemon.Config, error) {
	return daemon.LoadConfig(c.String("config"), c.IsSet("config"), os.Environ())
}

func open(c *cli.Context) (*daemon.Agent, error) {
	cfg, err := loadConfig(c)
	if err != nil {
		return nil, err
	}
	return daemon.New(cfg, environment(c, cfg))
}

func enrollCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "enroll", Usage: "make this server's key and register it at the hub",
		Description: "The join token is read from CERTFERRY_JOIN_TOKEN or, where that is not set, from the first line of standard input.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "hub", Usage: "`URL` of the hub"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of this server, as the join token names it (default: the host name)"},
			&cli.StringFlag{Name: "root-fingerprint", Usage: "`FINGERPRINT` of the hub's root key"},
			&cli.BoolFlag{Name: "force", Usage: "enrol anew, in place of the identity that is there"},
		},
		Action: func(c *cli.Context) error {
			for _, name := range []string{"hub", "root-fingerprint"} {
				if c.String(name) == "" {
					return usagef("read flag --%s: it must be given; see certferry-agent enroll --help", name)
				}
			}
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			token, err := joinToken(c.App.Reader)
			if err != nil {
				return err
			}
			name := c.String("name")
			if name == "" {
				host, err := os.Hostname()
				if err != nil {
					return fmt.Errorf("find host name: %w", err)
				}
				name = strings.ToLower(host)
			}
			enrolled, err := daemon.Enroll(c.Context, cfg, version, daemon.EnrollRequest{
				HubURL: c.String("hub"), Name: name, Token: token,
				RootFingerprint: c.String("root-fingerprint"), Force: c.Bool("force"),
			}, environment(c, cfg))
			if err != nil {
				return err
			}
			return render(c, enrolled, func(w *strings.Builder) {
				fmt.Fprintf(w, "server       %s\nfingerprint  %s\nstate        %s\n", enrolled.Server, enrolled.Fingerprint, enrolled.State)
				if enrolled.State == "pending" {
					fmt.Fprintf(w, "\nNow an operator compares the fingerprint and runs: certferry server approve --fingerprint %s %s\n", enrolled.Fingerprint, enrolled.Server)
				}
			})
		},
	}, 0)
}

func joinToken(stdin io.Reader) (string, error) {
	if token := os.Getenv("CERTFERRY_JOIN_TOKEN"); token != "" {
		return strings.TrimSpace(token), nil
	}
	line, err := bufio.NewReader(io.LimitReader(stdin, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read join token: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func runCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "run", Usage: "poll, deploy and report until stopped",
		Action: func(c *cli.Context) error {
			a, err := open(c)
			if err != nil {
				return err
			}
			return a.Run(c.Context)
		},
	}, 0)
}

func onceCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "once", Usage: "poll and deploy once; exit code 3 when there is nothing to do",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "give up after this time, waiting for another run included"}},
		Action: func(c *cli.Context) error {
			return withResult(c, func(ctx context.Context, a *daemon.Agent) (daemon.Result, error) { return a.Once(ctx) })
		},
	}, 0)
}

func recoverCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "recover", Usage: "finish or undo a deployment that a crash interrupted, without network; exit code 3 when there is none",
		Description: "run does this by itself. At boot it must come before the servers that read the certificates:\nexamples/systemd/certferry-agent-recover.service.",
		Flags:       []cli.Flag{&cli.DurationFlag{Name: "timeout", Value: 2 * time.Minute, Usage: "give up after this time, waiting for another run included"}},
		Action: func(c *cli.Context) error {
			return withResult(c, func(ctx context.Context, a *daemon.Agent) (daemon.Result, error) { return a.Recover(ctx) })
		},
	}, 0)
}

func rollbackCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "rollback", Usage: "deploy an earlier commit from the local history and hold the server there",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "`COMMIT` to go back to (default: the one before the deployed one)"},
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Minute, Usage: "give up after this time, waiting for another run included"},
		},
		Action: func(c *cli.Context) error {
			return withResult(c, func(ctx context.Context, a *daemon.Agent) (daemon.Result, error) {
				return a.Rollback(ctx, c.String("to"))
			})
		},
	}, 0)
}

// withResult runs act with the command's timeout and prints what it deployed, also when a part of it failed.
func withResult(c *cli.Context, act func(context.Context, *daemon.Agent) (daemon.Result, error)) error {
	a, err := open(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	result, err := act(ctx, a)
	if len(result.Outcomes) == 0 && result.Commit == "" {
		return err
	}
	return errors.Join(err, render(c, result, func(w *strings.Builder) {
		fmt.Fprintf(w, "commit      %s\ngeneration  %d\n", result.Commit, result.Generation)
		for _, o := range result.Outcomes {
			fmt.Fprintf(w, "%s at %s: %s (%s) %s\n", o.Certificate, o.Target, o.State, o.Phase, o.Detail)
		}
	}))
}

func resumeCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "resume", Usage: "end the hold that rollback on this server began",
		Action: func(c *cli.Context) error {
			a, err := open(c)
			if err != nil {
				return err
			}
			return a.Resume(c.Context)
		},
	}, 0)
}

func statusCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "status", Usage: "show where this server stands; exit code 1 when its last deployment failed or its remotes seem frozen",
		Action: func(c *cli.Context) error {
			a, err := open(c)
			if err != nil {
				return err
			}
			s, err := a.Status()
			if err != nil {
				return err
			}
			if err := render(c, s, func(w *strings.Builder) { printStatus(w, s) }); err != nil {
				return err
			}
			switch {
			case s.Status == "failed":
				return errors.New("the last deployment failed")
			case s.Alarm != "":
				return errors.New(s.Alarm)
			}
			return nil
		},
	}, 0)
}

func printStatus(w *strings.Builder, s daemon.Status) {
	row := func(name string, value any) { fmt.Fprintf(w, "%-12s %v\n", name, value) }
	row("server", s.Server)
	row("hub", s.Hub)
	row("fingerprint", s.Fingerprint)
	row("status", strings.TrimSpace(s.Status+" "+s.Message))
	row("commit", strings.TrimSpace(fmt.Sprintf("%s (generation %d)", s.Commit, s.Generation)))
	if s.NewestCommit != s.Commit {
		row("newest", fmt.Sprintf("%s (generation %d)", s.NewestCommit, s.NewestGeneration))
	}
	if s.Remote != "" {
		row("remote", s.Remote)
	}
	if s.Alarm != "" {
		row("alarm", s.Alarm)
	}
	if s.Held {
		row("held", "yes: certferry-agent resume ends it")
	}
	if !s.RetryAt.IsZero() {
		row("retry at", s.RetryAt.Format(time.RFC3339))
	}
	if s.WaitingReports > 0 {
		row("reports", fmt.Sprintf("%d wait for the hub", s.WaitingReports))
	}
	for i, commit := range s.History {
		if i == 0 {
			row("history", commit)
		} else {
			row("", commit)
		}
	}
}

func policyCommand() *cli.Command {
	return &cli.Command{
		Name: "policy", Usage: "what this server's policy allows", Action: group, OnUsageError: onUsageError,
		Subcommands: []*cli.Command{leaf(&cli.Command{
			Name: "check", Usage: "check the policy file and explain what it allows", ArgsUsage: "[FILE]",
			Action: func(c *cli.Context) error {
				cfg, err := loadConfig(c)
				if err != nil {
					return err
				}
				path := cfg.Policy
				if c.Args().Present() {
					path = c.Args().First()
				}
				return daemon.CheckPolicy(path, c.App.Writer)
			},
		}, 1)},
	}
}

// render prints v as the flag --output asks; table prints it for people.
func render(c *cli.Context, v any, table func(*strings.Builder)) error {
	switch c.String("output") {
	case "json":
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		return yaml.NewEncoder(c.App.Writer).Encode(v)
	default:
		var text strings.Builder
		table(&text)
		_, err := io.WriteString(c.App.Writer, text.String())
		return err
	}
}
