// This file holds the command that checks a certificate before a CA is asked.

package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
)

func preflightCommand() *cli.Command {
	return &cli.Command{
		Name: "preflight", Usage: "check what a CA would find, without asking it", ArgsUsage: "NAME",
		Description: "Names, CAA records, addresses, a token on port 80, DNS zones, credentials, the CA's limits, clock and disk. It fails where an order would.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "show what is in order, too"}},
		Action:      preflightCertificate,
	}
}

func preflightCertificate(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	report, err := hub.Preflight(c.Context, name)
	if err != nil {
		return fmt.Errorf("check certificate %s: %w", name, err)
	}
	err = render(c, report, func(w io.Writer) { printPreflight(w, report, c.Bool("all")) })
	if err == nil && report.Failed {
		err = errors.New("an order would fail: mend what failed, then check again")
	}
	return err
}

func printPreflight(w io.Writer, report apiv1.PreflightReport, all bool) {
	count := map[apiv1.FindingState]int{}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range report.Findings {
		count[f.State]++
		if f.State == apiv1.FindingOK && !all {
			continue
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.State, f.Check, f.Object, f.Detail)
		if f.Next != "" {
			_, _ = fmt.Fprintf(tw, "\t\t\tnext: %s\n", f.Next)
		}
	}
	_ = tw.Flush()
	_, _ = fmt.Fprintf(w, "%d ok, %d skipped, %d warnings, %d failed at issuer %s\n", count[apiv1.FindingOK],
		count[apiv1.FindingSkipped], count[apiv1.FindingWarning], count[apiv1.FindingFailed], report.Issuer)
}
