// This file holds the commands about acme.sh, the program that orders from public CAs.

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/daemon"
)

func acmeCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "acme", Usage: "acme.sh, which orders from public CAs: install, check, take over what it did so far",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{
				Name: "install", Usage: "install acme.sh as it was published at the commit that this hub knows, each file checked",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "from", Usage: "`FILE`, a .tar.gz of that commit, for machines without internet (default: it is downloaded)"},
					&cli.StringFlag{Name: "to", Usage: "`DIR` to install to (default: the folder of acme_script, else the one where the hub looks)"},
				},
				Action: installACME,
			}, 0),
			leaf(&cli.Command{Name: "status", Usage: "tell the version of acme.sh and whether its files are as published", Action: statusOfACME}, 0),
			leaf(&cli.Command{
				Name: "import", Usage: "take over accounts, DNS credentials and certificates of acme.sh, while the hub is stopped; nothing is issued anew",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "home", Usage: "acme.sh's `DIR`, such as /root/.acme.sh"},
					&cli.BoolFlag{Name: "dry-run", Usage: "only tell what would be taken over"},
				},
				Action: importACME,
			}, 0),
		},
	})
}

func installACME(c *cli.Context) (err error) {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	var archive io.Reader
	if path := c.String("from"); path != "" {
		f, err := os.Open(path) //nolint:gosec // the file that the administrator names
		if err != nil {
			return fmt.Errorf("open archive: %w", err)
		}
		defer func() { _ = f.Close() }()
		archive = f
	}
	script, err := daemon.InstallACME(c.Context, cfg, archive, c.String("to"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "acme.sh installed: %s\n", script)
	now, againErr := loadConfig(c)
	status, statusErr := daemon.StatusOfACME(now)
	if err = errors.Join(err, againErr, statusErr); err != nil || status.Script == script {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "set acme_script: %s in the hub's configuration, and restart the hub\n", script)
	return err
}

func statusOfACME(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	status, err := daemon.StatusOfACME(cfg)
	if err != nil {
		return err
	}
	err = render(c, status, func(w io.Writer) error {
		lines := []struct{ name, value string }{
			{"script", status.Script}, {"version", status.Version}, {"pinned to", status.Pinned}, {"files", string(status.Integrity)}, {"runs as", status.User},
		}
		for _, l := range lines {
			if l.value == "" {
				l.value = "-"
			}
			if _, err := fmt.Fprintf(w, "%-10s %s\n", l.name, l.value); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && len(status.Faults) > 0 {
		return fmt.Errorf("check acme.sh: %s", strings.Join(status.Faults, "; "))
	}
	return err
}

func importACME(c *cli.Context) error {
	if !c.IsSet("home") {
		return usagef("read flags: give --home; see %s --help", c.Command.HelpName)
	}
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	report, err := daemon.ImportACME(c.Context, cfg, time.Now, c.String("home"), c.Bool("dry-run"))
	if err != nil {
		return err
	}
	return render(c, report, func(w io.Writer) error {
		if err := writeImport(w, &report); err != nil {
			return err
		}
		var next string
		switch {
		case c.Bool("dry-run"):
			next = "Nothing was changed: this was a dry run."
		case len(report.Certificates) > 0:
			next = "The certificates go to no server yet: add deployments to their files in the repository. Stop acme.sh's own renewals: acme.sh --uninstall-cronjob"
		default:
			return nil
		}
		_, err := fmt.Fprintln(w, next)
		return err
	})
}

// writeImport lists what was taken over and what was left. Names of folders are whatever somebody called them: what a
// terminal would take for a command is replaced.
func writeImport(w io.Writer, report *daemon.ACMEImport) error {
	printable := func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '\ufffd'
	}
	for _, part := range []struct {
		what  string
		names []string
	}{
		{"account", report.Accounts}, {"issuer", report.Issuers}, {"credential", report.Credentials}, {"certificate", report.Certificates}, {"left:", report.Left},
	} {
		for _, name := range part.names {
			if _, err := fmt.Fprintln(w, part.what, strings.Map(printable, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
