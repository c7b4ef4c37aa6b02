// This file holds the commands about what is watched beside the hub's own certificates, and reports.

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func endpointCommand() *cli.Command {
	return &cli.Command{
		Name: "endpoint", Usage: "TLS servers that are watched: list, add, remove",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list endpoints and what they show", Action: listEndpoints},
			{
				Name: "add", Usage: "watch an endpoint", ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "address", Required: true, Usage: "`HOST:PORT`"},
					&cli.StringFlag{Name: "server-name", Usage: "`NAME` that is sent as SNI and must be in the certificate (default: the host)"},
					&cli.StringFlag{Name: "trust", Usage: "system (default): the chain must lead to a root of the hub's system; none: only names and dates count"},
				},
				Action: addEndpoint,
			},
			{Name: "rm", Usage: "stop watching an endpoint", ArgsUsage: "NAME", Action: removeEndpoint},
		},
	}
}

func listEndpoints(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	shown := map[string]apiv1.Watch{}
	fetch := func(p client.Page) (apiv1.List[apiv1.Watch], error) { return hub.Watches(c.Context, "endpoint", p) }
	for page := (client.Page{Limit: 200}); ; {
		watches, err := fetch(page)
		if err != nil {
			return fmt.Errorf("list endpoints: %w", err)
		}
		for _, w := range watches.Items {
			shown[w.Object] = w
		}
		if page.After = watches.Next; page.After == "" {
			break
		}
	}
	var all []apiv1.Endpoint
	for item, err := range client.All(c.Context, hub.Endpoints, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list endpoints: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "ADDRESS", "SERVER NAME", "LEVEL", "EXPIRES", "ISSUER", "PROBLEM"}, func(e apiv1.Endpoint) []string {
		w, seen := shown[e.Name]
		level, expires, problem := "-", "-", w.Problem
		if seen {
			level, expires = w.Level, day(w.NotAfter)
		}
		if e.Failures > 0 {
			problem = fmt.Sprintf("does not answer (%d times)", e.Failures)
		}
		return []string{e.Name, e.Address, e.ServerName, level, expires, w.Issuer, problem}
	})
}

func addEndpoint(c *cli.Context) error {
	name, err := argument(c, "endpoint name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	e, err := hub.CreateEndpoint(c.Context, apiv1.EndpointRequest{
		Name: name, Address: c.String("address"), ServerName: c.String("server-name"), Trust: c.String("trust"),
	})
	if err != nil {
		return fmt.Errorf("watch endpoint %s: %w", name, err)
	}
	return render(c, e, func(w io.Writer) {
		row := rows(w)
		row("name", e.Name)
		row("address", e.Address)
		row("server name", e.ServerName)
		row("trust", e.Trust)
	})
}

func removeEndpoint(c *cli.Context) error {
	name, err := argument(c, "endpoint name")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if err := hub.DeleteEndpoint(c.Context, name); err != nil {
		return fmt.Errorf("stop watching endpoint %s: %w", name, err)
	}
	return nil
}

func reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "figures and tables",
		Action: unknownCommand,
		Subcommands: []*cli.Command{{
			Name: "certificates", Usage: "count certificates by state, issuer and week of expiry, and how orders went",
			Flags:  []cli.Flag{&cli.BoolFlag{Name: "csv", Usage: "print all certificates as a table (CSV)"}},
			Action: reportCertificates,
		}},
	}
}

func reportCertificates(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if c.Bool("csv") {
		table, err := hub.CertificateReport(c.Context)
		if err != nil {
			return fmt.Errorf("report certificates: %w", err)
		}
		_, err = c.App.Writer.Write(table)
		return err
	}
	s, err := hub.CertificateStats(c.Context)
	if err != nil {
		return fmt.Errorf("report certificates: %w", err)
	}
	return render(c, s, func(w io.Writer) {
		row := rows(w)
		row("certificates", fmt.Sprint(s.Total))
		for _, state := range slices.Sorted(maps.Keys(s.ByState)) {
			row("state "+string(state), fmt.Sprint(s.ByState[state]))
		}
		for _, issuer := range slices.Sorted(maps.Keys(s.ByIssuer)) {
			row("issuer "+issuer, fmt.Sprint(s.ByIssuer[issuer]))
		}
		for _, week := range slices.Sorted(maps.Keys(s.ByWeek)) {
			if n := s.ByWeek[week]; n > 0 {
				row("expire in week of "+week, strings.TrimSpace(fmt.Sprintf("%d %s", n, strings.Repeat("#", min(n, 40)))))
			}
		}
		for _, class := range slices.Sorted(maps.Keys(s.FailedByClass)) {
			row("failed, "+class, fmt.Sprint(s.FailedByClass[class]))
		}
		row("renewals in 30 days", fmt.Sprintf("%d, median %s, 95 %% within %s", s.Renewals, seconds(s.MedianSeconds), seconds(s.P95Seconds)))
	})
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond)
}
