// This file holds the commands about how new issues go out: rollouts, proposals, and the fleet as a whole.

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func rolloutCommand() *cli.Command {
	reason := []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the history"}}
	return &cli.Command{
		Name: "rollout", Usage: "new issues on their way to servers: list, show, pause, resume, promote, abort",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list rollouts under way", Action: listRollouts},
			{Name: "show", Usage: "show the waves of a rollout and where each server stands", ArgsUsage: "CERTIFICATE", Action: showRollout},
			{
				Name: "pause", Usage: "stop a rollout where it is", ArgsUsage: "CERTIFICATE", Flags: reason,
				Action: actOn("rollout of %s paused", func(c *cli.Context, hub *client.Client, name string) error {
					return hub.PauseRollout(c.Context, name, c.String("reason"))
				}),
			},
			{
				Name: "resume", Usage: "let a rollout go on with its present wave", ArgsUsage: "CERTIFICATE",
				Action: actOn("rollout of %s goes on", func(c *cli.Context, hub *client.Client, name string) error {
					return hub.ResumeRollout(c.Context, name)
				}),
			},
			{
				Name: "promote", Usage: "begin the next wave without waiting for the present one", ArgsUsage: "CERTIFICATE",
				Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "let the new issue go to all servers now"}},
				Action: actOn("rollout of %s promoted", func(c *cli.Context, hub *client.Client, name string) error {
					return hub.PromoteRollout(c.Context, name, c.Bool("all"))
				}),
			},
			{
				Name: "abort", Usage: "take all servers back to the issue before, and pause the renewal", ArgsUsage: "CERTIFICATE", Flags: reason,
				Action: actOn("rollout of %s aborted: its servers go back, its renewal is paused (certferry cert resume)",
					func(c *cli.Context, hub *client.Client, name string) error {
						return hub.AbortRollout(c.Context, name, c.String("reason"))
					}),
			},
		},
	}
}

// actOn makes the action of a command that does one thing to one certificate and has nothing to show for it.
func actOn(done string, act func(*cli.Context, *client.Client, string) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		name, err := argument(c, "certificate")
		if err != nil {
			return err
		}
		hub, err := connect(c, false)
		if err != nil {
			return err
		}
		if err := act(c, hub, name); err != nil {
			return fmt.Errorf("%s certificate %s: %w", c.Command.Name, name, err)
		}
		_, err = fmt.Fprintf(c.App.ErrWriter, done+"\n", name)
		return err
	}
}

func listRollouts(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Rollout
	for item, err := range client.All(c.Context, hub.Rollouts, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list rollouts: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"CERTIFICATE", "STATE", "WAVE", "SERVERS", "SINCE", "REASON"}, func(r apiv1.Rollout) []string {
		return []string{r.Certificate, r.State, waveOf(r), progress(r), day(r.StartedAt), r.Reason}
	})
}

func waveOf(r apiv1.Rollout) string {
	return fmt.Sprintf("%d of %d", min(r.Wave, len(r.Waves)), len(r.Waves))
}

// progress counts the servers that have the new issue.
func progress(r apiv1.Rollout) string {
	have, all := 0, 0
	for _, w := range r.Waves {
		for _, s := range w.Servers {
			if all++; s.State == "deployed" {
				have++
			}
		}
	}
	return fmt.Sprintf("%d/%d", have, all)
}

func showRollout(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	r, err := hub.Rollout(c.Context, name)
	if err != nil {
		return fmt.Errorf("show rollout of %s: %w", name, err)
	}
	return render(c, r, func(w io.Writer) { printRollout(w, r) })
}

func printRollout(w io.Writer, r apiv1.Rollout) {
	row := rows(w)
	row("certificate", r.Certificate)
	row("state", r.State)
	if r.Reason != "" {
		row("reason", r.Reason)
	}
	row("new leaf", r.LeafSHA256)
	row("old leaf", r.FromLeaf)
	row("progress", progress(r))
	row("since", r.StartedAt.Format(time.RFC3339))
	const most = 20
	for _, wave := range r.Waves {
		mark := ""
		if wave.Number == r.Wave {
			mark = " (under way since " + r.WaveStartedAt.Format(time.RFC3339) + ")"
		}
		_, _ = fmt.Fprintf(w, "\nwave %d: %d servers%s\n", wave.Number, len(wave.Servers), mark)
		shown := 0
		for _, s := range wave.Servers {
			// Of many, those that need a look come first.
			if len(wave.Servers) > most && (s.State == "deployed" || s.State == "later") {
				continue
			}
			if shown++; shown <= most {
				first, _, _ := strings.Cut(s.Detail, "\n")
				_, _ = fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %-20s %-9s %s", s.Server, s.State, first), " "))
			}
		}
		if shown > most {
			_, _ = fmt.Fprintf(w, "  and %d more\n", shown-most)
		}
	}
}

func proposalCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "serial", Usage: "`SERIAL` that you looked at: refuses if it is another one by now"},
		&cli.StringFlag{Name: "reason", Usage: "why, for the history"},
	}
	return &cli.Command{
		Name: "proposal", Usage: "issues that wait for review: list, show, approve, reject",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list what waits for review", Action: listProposals},
			{Name: "show", Usage: "show what a proposal brings, and who agreed", ArgsUsage: "CERTIFICATE", Action: showProposal},
			{Name: "approve", Usage: "agree to a proposal; it goes to its servers once enough people did", ArgsUsage: "CERTIFICATE", Flags: flags, Action: approveProposal},
			{
				Name: "reject", Usage: "end a proposal and pause the renewal", ArgsUsage: "CERTIFICATE", Flags: flags,
				Action: actOn("proposal of %s rejected; its renewal is paused (certferry cert resume)",
					func(c *cli.Context, hub *client.Client, name string) error {
						return hub.RejectProposal(c.Context, name, apiv1.ReviewRequest{Serial: c.String("serial"), Reason: c.String("reason")})
					}),
			},
		},
	}
}

func listProposals(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	var all []apiv1.Proposal
	for item, err := range client.All(c.Context, hub.Proposals, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list proposals: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"CERTIFICATE", "SERIAL", "UNTIL", "ASKED BY", "AGREED", "MISSING", "SERVERS"}, func(p apiv1.Proposal) []string {
		return []string{
			p.Certificate, p.Serial[:min(len(p.Serial), 12)], p.Issued.NotAfter.Format(time.DateOnly), p.AskedBy,
			strings.Join(p.AgreedBy, " "), fmt.Sprint(p.Missing), fmt.Sprint(len(p.Servers)),
		}
	})
}

func showProposal(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	p, err := hub.Proposal(c.Context, name)
	if err != nil {
		return fmt.Errorf("show proposal of %s: %w", name, err)
	}
	return render(c, p, func(w io.Writer) { printProposal(w, p) })
}

func printProposal(w io.Writer, p apiv1.Proposal) {
	row := rows(w)
	row("certificate", p.Certificate)
	row("serial", p.Serial)
	row("names", strings.Join(p.Names, " "))
	row("issuer", p.Issued.Issuer)
	row("valid", p.Issued.NotBefore.Format(time.DateOnly)+" to "+p.Issued.NotAfter.Format(time.DateOnly))
	row("leaf", p.Issued.LeafSHA256)
	if p.InUse != nil {
		key := "another key"
		if p.InUse.SPKISHA256 == p.Issued.SPKISHA256 {
			key = "the same key"
		}
		row("in use", fmt.Sprintf("serial %s until %s, %s", p.InUse.Serial, p.InUse.NotAfter.Format(time.DateOnly), key))
	}
	row("asked by", strings.TrimSpace(p.AskedBy+" "+p.Reason))
	row("proposed", p.ProposedAt.Format(time.RFC3339))
	row("agreed by", strings.Join(p.AgreedBy, " "))
	row("missing", fmt.Sprint(p.Missing))
	row("branch", p.Branch)
	row("servers", strings.Join(p.Servers, " "))
}

func approveProposal(c *cli.Context) error {
	name, err := argument(c, "certificate")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	reply, err := hub.ApproveProposal(c.Context, name, apiv1.ReviewRequest{Serial: c.String("serial"), Reason: c.String("reason")})
	if err != nil {
		return fmt.Errorf("approve proposal of %s: %w", name, err)
	}
	return render(c, reply, func(w io.Writer) {
		if reply.Merged {
			_, _ = fmt.Fprintf(w, "merged: the new issue of %s goes to its servers\n", name)
		} else {
			_, _ = fmt.Fprintln(w, "noted: somebody else must agree too")
		}
	})
}

func fleetRollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "fleet", Usage: "take all certificates back to a commit of main, and pause their renewals",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "`COMMIT` of main to go back to"},
			&cli.StringFlag{Name: "reason", Usage: "why, for the history"},
			&cli.BoolFlag{Name: "skip", Usage: "leave as they are those that cannot go back"},
			&cli.BoolFlag{Name: "dry-run", Usage: "only say what would happen"},
			&cli.BoolFlag{Name: "resume", Usage: "end the pauses that such a rollback made"},
		},
		Action: rollbackFleet,
	}
}

func rollbackFleet(c *cli.Context) error {
	if c.NArg() > 0 || (c.String("to") == "") != c.Bool("resume") {
		return usageError{errors.New("read flags: give --to COMMIT, or --resume, and no arguments")}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	if c.Bool("resume") {
		out, err := hub.ResumeFleet(c.Context)
		if err != nil {
			return fmt.Errorf("resume fleet: %w", err)
		}
		return render(c, out, func(w io.Writer) { _, _ = fmt.Fprintf(w, "%d certificates renew again\n", out.Certificates) })
	}
	out, err := hub.RollbackFleet(c.Context, apiv1.FleetRollbackRequest{
		Commit: c.String("to"), Reason: c.String("reason"), Skip: c.Bool("skip"), DryRun: c.Bool("dry-run"),
	})
	if err != nil {
		return fmt.Errorf("roll back fleet: %w", err)
	}
	if len(out.Changed) == 0 && c.Bool("dry-run") {
		return errors.Join(errNothingToDo, errors.New("no certificate would change"))
	}
	return render(c, out, func(w io.Writer) {
		for _, entry := range out.Changed {
			_, _ = fmt.Fprintf(w, "%-20s %s\n", entry.Certificate, entry.Detail)
		}
		for _, entry := range out.Skipped {
			_, _ = fmt.Fprintf(w, "%-20s left as it is: %s\n", entry.Certificate, entry.Detail)
		}
	})
}

func holdCommand() *cli.Command {
	return &cli.Command{
		Name: "hold", Usage: "keep a server at what it has until it is resumed", ArgsUsage: "NAME",
		Flags: []cli.Flag{&cli.StringFlag{Name: "reason", Usage: "why, for the history"}},
		Action: func(c *cli.Context) error {
			name, err := argument(c, "server")
			if err != nil {
				return err
			}
			hub, err := connect(c, false)
			if err != nil {
				return err
			}
			s, err := hub.HoldServer(c.Context, name, c.String("reason"))
			if err != nil {
				return fmt.Errorf("hold server %s: %w", name, err)
			}
			return render(c, s, func(w io.Writer) { printServer(w, s, nil) })
		},
	}
}
