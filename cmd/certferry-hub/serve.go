package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/daemon"
)

func initCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "init", Usage: "make a new hub: keys, repository, database and private CA",
		Description: "It makes everything in data_dir, and never touches a hub that is there.",
		Action: func(c *cli.Context) error {
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			if _, err := os.Stat(c.String("config")); errors.Is(err, fs.ErrNotExist) {
				_, _ = fmt.Fprintf(c.App.ErrWriter, "certferry-hub: no configuration was found at %s: the hub is made in %s (data_dir)\n", c.String("config"), cfg.DataDir)
			}
			made, err := daemon.Init(c.Context, cfg, time.Now)
			if err != nil {
				return err
			}
			return render(c, made, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, `hub made in       %s
root fingerprint  %s

Agents pin this fingerprint: write it down.
Move the root key offline now; the hub does not need it: %s
Then start the hub: certferry-hub serve
`, made.DataDir, made.RootFingerprint, made.RootKey)
				return err
			})
		},
	}, 0)
}

func serveCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "serve", Usage: "run the hub until stopped",
		Action: func(c *cli.Context) error {
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			hub, err := daemon.New(c.Context, cfg, daemon.Options{
				Version: version, Logger: cfg.Logger(c.App.ErrWriter), Notices: c.App.Writer, Now: time.Now,
			})
			if err != nil {
				return err
			}
			return hub.Run(c.Context)
		},
	}, 0)
}

func configCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "config", Usage: "the configuration",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{
				Name: "check", Usage: "check file and environment, and print what is in force",
				Action: func(c *cli.Context) error {
					cfg, err := loadConfig(c)
					if err != nil {
						return err
					}
					values := cfg.Values()
					return render(c, values, func(w io.Writer) error {
						table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
						for _, key := range daemon.Keys() {
							_, _ = fmt.Fprintf(table, "%s\t%v\n", key, values[key])
						}
						return table.Flush()
					})
				},
			}, 0),
			leaf(&cli.Command{
				Name: "keys", Usage: "list the keys and the environment variable of each",
				Action: func(c *cli.Context) error {
					variables := map[string]string{}
					for _, key := range daemon.Keys() {
						variables[key] = daemon.EnvPrefix + strings.ToUpper(key)
					}
					return render(c, variables, func(w io.Writer) error {
						table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
						for _, key := range daemon.Keys() {
							_, _ = fmt.Fprintf(table, "%s\t%s\n", key, variables[key])
						}
						return table.Flush()
					})
				},
			}, 0),
		},
	})
}
