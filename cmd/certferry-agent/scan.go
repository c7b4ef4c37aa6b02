// This file shows what the agent finds on its server.

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/hub/apiv1"
)

func scanCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "scan", Usage: "find server software and the certificates that it uses; nothing is changed",
		Description: "It reads configurations, certificates and keys, and compares files with what is served. Without root's\n" +
			"rights it shows what it may read. Exit code 1 says that something is wrong with a certificate that is used.",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "no-handshakes", Usage: "look at files only, and not at what is served"}},
		Action: func(c *cli.Context) error {
			cfg, err := loadConfig(c)
			if err != nil {
				return err
			}
			found := daemon.Scan(c.Context, cfg.Policy, !c.Bool("no-handshakes"), time.Now)
			if err := render(c, found, func(w *strings.Builder) { printInventory(w, found) }); err != nil {
				return err
			}
			wrong := 0
			for i := range found.Certificates {
				if len(found.Certificates[i].Problems) > 0 {
					wrong++
				}
			}
			if wrong > 0 {
				return fmt.Errorf("something is wrong with %d of %d certificates", wrong, len(found.Certificates))
			}
			return nil
		},
	}, 0)
}

func printInventory(w *strings.Builder, found apiv1.Inventory) {
	for _, s := range found.Software {
		state := "not running"
		if s.PID != 0 {
			state = fmt.Sprintf("process %d", s.PID)
		}
		if s.Container {
			state += " in a container"
		}
		fmt.Fprintf(w, "%s (%s) %s\n", strings.TrimSpace(s.Name+" "+s.Version), state, s.Config)
		for _, f := range s.Faults {
			fmt.Fprintf(w, "  ! %s\n", f)
		}
	}
	if len(found.Software) > 0 && len(found.Certificates) > 0 {
		w.WriteString("\n")
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(found.Certificates) > 0 {
		_, _ = fmt.Fprintln(table, "CERTIFICATE\tNAMES\tUNTIL\tISSUER\tUSED BY\tMANAGED BY")
	}
	for i := range found.Certificates {
		r := &found.Certificates[i]
		until := ""
		if !r.NotAfter.IsZero() {
			until = r.NotAfter.Format(time.DateOnly)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Path, shortList(r.Names, 3), until, r.Issuer, usedBy(r.Uses), r.ManagedBy)
	}
	_ = table.Flush()
	for i := range found.Certificates {
		for _, p := range found.Certificates[i].Problems {
			fmt.Fprintf(w, "! %s: %s: %s\n", found.Certificates[i].Path, strings.ReplaceAll(string(p.Kind), "_", " "), p.Message)
		}
	}
	if len(found.Software)+len(found.Certificates) == 0 {
		w.WriteString("no server software that Certferry knows, and no certificate\n")
	}
}

func usedBy(uses []apiv1.FoundUse) string {
	var all []string
	for _, u := range uses {
		text := u.Software
		if u.Line > 0 {
			text = fmt.Sprintf("%s %s:%d", u.Software, u.File, u.Line)
		}
		all = append(all, text)
	}
	return shortList(all, 1)
}

func shortList(list []string, most int) string {
	if len(list) <= most {
		return strings.Join(list, " ")
	}
	return fmt.Sprintf("%s +%d", strings.Join(list[:most], " "), len(list)-most)
}
