// This file holds the commands about servers, the short form rollback, and status.

package main

import (
	"errors"
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

func serverCommand() *cli.Command {
	return &cli.Command{
		Name: "server", Usage: "servers: list, show, approve, join token, roll back, hold, resume, replace keys",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list servers",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "query", Aliases: []string{"q"}, Usage: "only names that hold `TEXT`"}},
				Action: listServers,
			},
			{Name: "show", Usage: "show a server, what it holds and its history", ArgsUsage: "NAME", Action: showServer},
			{
				Name: "token", Usage: "make a one-time token that lets a server of this name join", ArgsUsage: "NAME",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "pre-approved", Usage: "trust whoever uses the token first, without comparing fingerprints"},
					&cli.StringSliceFlag{Name: "label", Usage: "`KEY=VALUE` that the server gets; repeat it for more"},
				},
				Action: makeToken,
			},
			{
				Name: "approve", Usage: "let a server receive certificates", ArgsUsage: "NAME",
				Flags:  []cli.Flag{&cli.StringFlag{Name: "fingerprint", Required: true, Usage: "`FINGERPRINT` that enrolling printed on the server"}},
				Action: approveServer,
			},
			{
				Name: "rollback", Usage: "take a server back to an earlier commit and hold it there", ArgsUsage: "NAME",
				Flags: rollbackFlags(), Action: rollbackServer,
			},
			holdCommand(), rotateKeyCommand(),
			{Name: "resume", Usage: "end the hold of a server", ArgsUsage: "NAME", Action: resumeServer},
		},
	}
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "roll back a server, a certificate or all certificates",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "server", Usage: "same as: server rollback", ArgsUsage: "NAME", Flags: rollbackFlags(), Action: rollbackServer},
			{Name: "certificate", Aliases: []string{"cert"}, Usage: "same as: certificate rollback", ArgsUsage: "NAME", Flags: rollbackFlags(), Action: rollbackCertificate},
			fleetRollbackCommand(),
		},
	}
}

func listServers(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Server
	for item, err := range client.All(c.Context, hub.Servers, client.Page{Query: c.String("query")}) {
		if err != nil {
			return fmt.Errorf("list servers: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"NAME", "STATE", "ONLINE", "GENERATION", "COMMIT", "CERTIFICATES", "MESSAGE"}, func(s apiv1.Server) []string {
		generation := fmt.Sprintf("%d", s.Generation)
		if s.Generation != s.WantGeneration {
			generation = fmt.Sprintf("%d of %d", s.Generation, s.WantGeneration)
		}
		return []string{s.Name, stateOf(s), yesNo(s.Online), generation, short(s.Commit), deployedOf(s.Deployments), s.Message}
	})
}

func stateOf(s apiv1.Server) string {
	if s.Hold != nil || s.Held {
		return s.State + ",held"
	}
	return s.State
}

func showServer(c *cli.Context) error {
	name, err := argument(c, "server")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	s, err := hub.Server(c.Context, name)
	if err != nil {
		return fmt.Errorf("show server %s: %w", name, err)
	}
	history, err := hub.ServerHistory(c.Context, name, client.Page{Limit: 10})
	if err != nil {
		return fmt.Errorf("show history of server %s: %w", name, err)
	}
	type shown struct {
		apiv1.Server
		History []apiv1.Commit `json:"history"`
	}
	return render(c, shown{s, history.Items}, func(w io.Writer) { printServer(w, s, history.Items) })
}

func printServer(w io.Writer, s apiv1.Server, history []apiv1.Commit) {
	row := rows(w)
	row("name", s.Name)
	row("state", stateOf(s))
	row("fingerprint", s.Fingerprint)
	if s.NextFingerprint != "" {
		row("new key", s.NextFingerprint+" waits for approval (certferry server approve)")
	}
	if len(s.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
			labels = append(labels, key+"="+s.Labels[key])
		}
		row("labels", strings.Join(labels, " "))
	}
	row("online", yesNo(s.Online))
	if s.LastSeenAt != nil {
		row("last seen", s.LastSeenAt.Format(time.RFC3339))
	}
	if s.Status != "" {
		row("status", strings.TrimSpace(s.Status+" "+s.Message))
	}
	row("holds", fmt.Sprintf("%s (generation %d)", short(s.Commit), s.Generation))
	if s.WantCommit != s.Commit {
		row("should hold", fmt.Sprintf("%s (generation %d)", short(s.WantCommit), s.WantGeneration))
	}
	if s.Hold != nil {
		row("held", strings.TrimSpace(fmt.Sprintf("at %s by %s %s (certferry server resume %s ends it)", short(s.Hold.Commit), s.Hold.By, s.Hold.Reason, s.Name)))
	}
	if s.Held {
		row("held", "on the server itself (certferry-agent resume ends it)")
	}
	if s.Facts.OS != "" {
		row("system", strings.TrimSpace(s.Facts.OS+" "+s.Facts.Kernel+" "+s.Facts.Arch))
	}
	printDeployments(w, s.Deployments)
	printHistory(w, history)
}

func makeToken(c *cli.Context) error {
	name, err := argument(c, "server name")
	if err != nil {
		return err
	}
	labels := map[string]string{}
	for _, text := range c.StringSlice("label") {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return usageError{fmt.Errorf("read label %q: it reads KEY=VALUE", text)}
		}
		labels[key] = value
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	token, err := hub.CreateJoinToken(c.Context, apiv1.JoinTokenRequest{Server: name, PreApproved: c.Bool("pre-approved"), Labels: labels})
	if err != nil {
		return fmt.Errorf("make join token for %s: %w", name, err)
	}
	return render(c, token, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "token    %s\nexpires  %s\n\nOn the server, give the token on standard input to:\n  %s\n",
			token.Token, token.ExpiresAt.Format(time.RFC3339), token.Command)
	})
}

func approveServer(c *cli.Context) error {
	name, err := argument(c, "server")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	s, err := hub.ApproveServer(c.Context, name, c.String("fingerprint"))
	if err != nil {
		return fmt.Errorf("approve server %s: %w", name, err)
	}
	return render(c, s, func(w io.Writer) { printServer(w, s, nil) })
}

func rollbackServer(c *cli.Context) error {
	name, err := argument(c, "server")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	s, err := hub.RollbackServer(c.Context, name, apiv1.RollbackRequest{Commit: c.String("to"), Reason: c.String("reason")})
	if err != nil {
		return fmt.Errorf("roll back server %s: %w", name, err)
	}
	return render(c, s, func(w io.Writer) { printServer(w, s, nil) })
}

func resumeServer(c *cli.Context) error {
	name, err := argument(c, "server")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	before, err := hub.Server(c.Context, name)
	if err != nil {
		return fmt.Errorf("resume server %s: %w", name, err)
	}
	if before.Hold == nil {
		return errors.Join(errNothingToDo, fmt.Errorf("server %s is not held by the hub", name))
	}
	s, err := hub.ResumeServer(c.Context, name)
	if err != nil {
		return fmt.Errorf("resume server %s: %w", name, err)
	}
	return render(c, s, func(w io.Writer) { printServer(w, s, nil) })
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "show the hub at a glance",
		Action: func(c *cli.Context) error {
			hub, err := connect(c, false)
			if err != nil {
				return err
			}
			s, err := hub.Status(c.Context)
			if err != nil {
				return fmt.Errorf("show status: %w", err)
			}
			return render(c, s, func(w io.Writer) {
				row := rows(w)
				row("hub", s.Version)
				row("repository", s.RepoID)
				row("main", s.MainCommit)
				row("servers", counts(s.Servers))
				row("certificates", counts(s.Certificates))
				row("jobs", counts(s.Jobs))
				row("as of", s.AsOf.Format(time.RFC3339))
			})
		},
	}
}

func counts[K ~string](m map[K]int) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[key], key))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
