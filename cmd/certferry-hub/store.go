package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/daemon"
)

func storeCommand() *cli.Command {
	return parent(&cli.Command{
		Name: "store", Usage: "the repository",
		Subcommands: []*cli.Command{
			leaf(&cli.Command{
				Name: "verify", Usage: "check, while the hub is stopped, that repository, bundles and audit history are whole",
				Action: verifyStore,
			}, 0),
			leaf(&cli.Command{
				Name: "stats", Usage: "count, while the hub is stopped, what the repository holds",
				Action: countStore,
			}, 0),
			leaf(&cli.Command{
				Name: "prune", Usage: "bound, while the hub is stopped, the history of servers, and drop what nothing leads to",
				Description: "A running hub does this once a day by store_keep. The branch of a server whose history is older than the\n" +
					"time to keep starts anew; the history before goes once all of it is that old. The history of main stays.",
				Flags: []cli.Flag{
					&cli.DurationFlag{Name: "keep", DefaultText: "store_keep", Usage: "`TIME` to keep at least, such as 720h"},
					&cli.BoolFlag{Name: "dry-run", Usage: "only say what would be done"},
				},
				Action: pruneStore,
			}, 0),
		},
	})
}

func verifyStore(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	report, err := daemon.VerifyStore(c.Context, cfg, time.Now)
	if err != nil {
		return err
	}
	if err := render(c, report, func(w io.Writer) error { return printReport(w, report) }); err != nil {
		return err
	}
	if n := len(report.Faults); n > 0 {
		return fmt.Errorf("verify store: %d faults", n)
	}
	return nil
}

func printReport(w io.Writer, r daemon.StoreReport) error {
	for _, fault := range r.Faults {
		if _, err := fmt.Fprintf(w, "fault: %s\n", fault); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "repository    %s\nmain          %s\nreferences    %d\ncertificates  %d\nservers       %d\nfaults        %d\n",
		r.RepoID, r.MainCommit, r.References, r.Certificates, r.Servers, len(r.Faults))
	return err
}

func pruneStore(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	keep := cfg.StoreKeep
	if c.IsSet("keep") {
		keep = c.Duration("keep")
	} else if keep == 0 {
		return usagef("prune store: store_keep is 0, which keeps everything: give --keep")
	}
	if keep < 0 {
		return usagef("read flag --keep: it must not be negative")
	}
	report, err := daemon.PruneStore(c.Context, cfg, keep, c.Bool("dry-run"), time.Now)
	if err != nil {
		return err
	}
	return render(c, report, func(w io.Writer) error {
		verb := "dropped"
		if report.DryRun {
			verb = "droppable now"
		}
		_, err := fmt.Fprintf(w, "histories that start anew   %d\nearlier histories let go    %d\nearlier histories held      %d\n"+
			"objects                     %d (%s)\n%-27s %d (%s)\n",
			report.Begun, report.Ended, report.Held, report.Objects, size(report.Bytes), verb, report.GarbageObjects, size(report.GarbageBytes))
		return err
	})
}

func countStore(c *cli.Context) error {
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	stats, err := daemon.CountStore(c.Context, cfg, time.Now)
	if err != nil {
		return err
	}
	return render(c, stats, func(out io.Writer) error {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "GROUP\tREFERENCES\tCOMMITS\tOBJECTS\tSIZE") // Flush tells
		for _, g := range stats.Groups {
			_, _ = fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s\n", g.Name, g.References, g.Commits, g.Objects, size(g.Bytes))
		}
		_, _ = fmt.Fprintf(w, "garbage\t\t\t%d\t%s\n", stats.GarbageObjects, size(stats.GarbageBytes))
		_, _ = fmt.Fprintf(w, "all (%d packs)\t%d\t\t%d\t%s\n\nLARGEST\tCOMMIT\tSIZE\n", stats.Packs, stats.References, stats.Objects, size(stats.Bytes))
		for _, f := range stats.Largest {
			_, _ = fmt.Fprintf(w, "%s:%s\t%.7s\t%s\n", f.Ref, f.Path, f.Commit, size(f.Bytes))
		}
		return w.Flush()
	})
}

// size prints bytes for people.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	value := float64(n)
	for i, unit := range units {
		if value < 1024 || i == len(units)-1 {
			if i == 0 {
				return fmt.Sprintf("%d B", n)
			}
			return fmt.Sprintf("%.1f %s", value, unit)
		}
		value /= 1024
	}
	return ""
}
