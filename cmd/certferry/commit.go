// This file holds the commands that show the repository's history, and alerts.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

func commitCommand() *cli.Command {
	return &cli.Command{
		Name: "commit", Usage: "the repository's history: list, show, compare",
		Action: unknownCommand,
		Subcommands: []*cli.Command{
			{
				Name: "ls", Usage: "list commits, newest first",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "server", Usage: "of the branch of the server `NAME`"},
					&cli.StringFlag{Name: "certificate", Usage: "of main, about the certificate `NAME`"},
					&cli.StringFlag{Name: "branch", Usage: "of any `BRANCH`, such as proposals/CERTIFICATE/SERIAL"},
					&cli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "at most `N` of them"},
				},
				Action: listCommits,
			},
			{Name: "show", Usage: "show a commit, who signed it, what became of it and what it changed", ArgsUsage: "COMMIT", Action: showCommit},
			{Name: "diff", Usage: "show what changed between two commits, or since the commit before", ArgsUsage: "[FROM] TO", Action: diffCommits},
		},
	}
}

func listCommits(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageError{errors.New("read arguments: commit ls takes flags only")}
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	list, err := historyOf(c, hub)
	if err != nil {
		return err
	}
	var all []apiv1.Commit
	limit := c.Int("limit")
	for item, err := range client.All(c.Context, list, client.Page{Limit: min(max(limit, 1), 200)}) {
		if err != nil {
			return fmt.Errorf("list commits: %w", err)
		}
		if all = append(all, item); len(all) >= limit {
			break
		}
	}
	return renderList(c, all, []string{"COMMIT", "TIME", "AUTHOR", "SUBJECT"}, func(item apiv1.Commit) []string {
		return []string{short(item.Hash), day(item.CommittedAt), item.Author, item.Subject}
	})
}

// historyOf chooses the history that the flags ask for.
func historyOf(c *cli.Context, hub *client.Client) (func(context.Context, client.Page) (apiv1.List[apiv1.Commit], error), error) {
	server, certificate, branch := c.String("server"), c.String("certificate"), c.String("branch")
	given := 0
	for _, text := range []string{server, certificate, branch} {
		if text != "" {
			given++
		}
	}
	switch {
	case given > 1:
		return nil, usageError{errors.New("read flags: give one of --server, --certificate and --branch")}
	case certificate != "":
		return func(ctx context.Context, p client.Page) (apiv1.List[apiv1.Commit], error) {
			return hub.CertificateHistory(ctx, certificate, p)
		}, nil
	case server != "":
		branch = "servers/" + server
	}
	return func(ctx context.Context, p client.Page) (apiv1.List[apiv1.Commit], error) {
		return hub.Commits(ctx, branch, p)
	}, nil
}

func showCommit(c *cli.Context) error {
	name, err := argument(c, "commit")
	if err != nil {
		return err
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	commit, err := hub.Commit(c.Context, name)
	if err != nil {
		return fmt.Errorf("show commit %s: %w", name, err)
	}
	return render(c, commit, func(w io.Writer) { printCommit(w, commit) })
}

func printCommit(w io.Writer, c apiv1.CommitDetail) {
	row := rows(w)
	row("commit", c.Hash)
	row("author", c.Author)
	if c.Committer != c.Author {
		row("committer", c.Committer)
	}
	row("time", c.CommittedAt.Format(time.RFC3339))
	switch c.Signature.State {
	case "hub":
		row("signature", "of the hub's key "+c.Signature.Fingerprint)
	case "none":
		row("signature", "none")
	default:
		row("signature", "not of a key of the hub's keyring")
	}
	if v := c.Verdict; v != nil {
		row("verdict", verdict(v))
	}
	_, _ = fmt.Fprintf(w, "\n    %s\n", c.Subject)
	printIndented(w, c.Body)
	if c.Verdict != nil && c.Verdict.Reason != "" {
		_, _ = fmt.Fprintf(w, "\nrefused because:\n")
		printIndented(w, c.Verdict.Reason)
	}
	printFiles(w, c.Files, c.MoreFiles)
}

func verdict(v *apiv1.CommitVerdict) string {
	text := "refused"
	if v.Applied {
		text = "applied"
	}
	if v.Commit != "" {
		text += " by " + short(v.Commit)
	}
	return text
}

func printIndented(w io.Writer, text string) {
	if text == "" {
		return
	}
	_, _ = fmt.Fprintln(w)
	for line := range strings.SplitSeq(text, "\n") {
		_, _ = fmt.Fprintf(w, "    %s\n", line)
	}
}

func printFiles(w io.Writer, files []apiv1.FileDiff, more int) {
	for _, f := range files {
		if f.Diff != "" {
			_, _ = fmt.Fprintf(w, "\n%s", f.Diff)
			continue
		}
		_, _ = fmt.Fprintf(w, "\n%s: %s -> %s\n", f.Path, size(f.OldSize), size(f.NewSize))
	}
	if more > 0 {
		_, _ = fmt.Fprintf(w, "\nand %d more files\n", more)
	}
}

func size(n *int) string {
	if n == nil {
		return "nothing"
	}
	return fmt.Sprintf("%d bytes", *n)
}

func diffCommits(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usageError{errors.New("read arguments: give one commit, or two: commit diff [FROM] TO")}
	}
	from, to := "", c.Args().Get(c.NArg()-1)
	if c.NArg() == 2 {
		from = c.Args().First()
	}
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	d, err := hub.CompareCommits(c.Context, from, to)
	if err != nil {
		return fmt.Errorf("compare commits: %w", err)
	}
	if len(d.Files) == 0 {
		return errors.Join(errNothingToDo, errors.New("the two commits hold the same files"))
	}
	return render(c, d, func(w io.Writer) { printFiles(w, d.Files, d.MoreFiles) })
}

func alertCommand() *cli.Command {
	return &cli.Command{
		Name: "alert", Usage: "what somebody should look at",
		Action: unknownCommand,
		Subcommands: []*cli.Command{{
			Name: "ls", Usage: "list open alerts, newest first",
			Flags:  []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "resolved ones too"}},
			Action: listAlerts,
		}},
	}
}

func listAlerts(c *cli.Context) error {
	hub, err := connect(c, false)
	if err != nil {
		return err
	}
	list := func(ctx context.Context, p client.Page) (apiv1.List[apiv1.Alert], error) {
		return hub.Alerts(ctx, c.Bool("all"), p)
	}
	var all []apiv1.Alert
	for item, err := range client.All(c.Context, list, client.Page{}) {
		if err != nil {
			return fmt.Errorf("list alerts: %w", err)
		}
		all = append(all, item)
	}
	return renderList(c, all, []string{"LEVEL", "KIND", "OBJECT", "STATE", "SINCE", "TIMES", "MESSAGE"}, func(a apiv1.Alert) []string {
		first, _, _ := strings.Cut(a.Message, "\n")
		return []string{a.Level, a.Kind, a.Object, a.State, day(a.FirstAt), fmt.Sprint(a.Count), first}
	})
}
