// This file prints: tables for people, JSON and YAML with the same keys for programs.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/certferry/certferry/hub/apiv1"
)

// render prints v as the flag --output asks; table prints it for people.
func render(c *cli.Context, v any, table func(io.Writer)) error {
	switch c.String("output") {
	case "json":
		enc := json.NewEncoder(c.App.Writer)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		// The types carry JSON keys; going through JSON gives YAML the same ones.
		data, err := json.Marshal(v)
		if err != nil {
			return err
		}
		var plain any
		if err := yaml.Unmarshal(data, &plain); err != nil {
			return err
		}
		return yaml.NewEncoder(c.App.Writer).Encode(plain)
	default:
		table(screen{c.App.Writer})
		return nil
	}
}

// renderList prints one line an item; JSON and YAML get a list, an empty one where there is nothing.
func renderList[T any](c *cli.Context, items []T, header []string, line func(T) []string) error {
	if items == nil {
		items = []T{}
	}
	return render(c, items, func(w io.Writer) {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(tw, strings.Join(header, "\t"))
		for _, item := range items {
			cells := line(item)
			for i := range cells {
				cells[i] = strings.Join(strings.Fields(cells[i]), " ") // a cell is one line
			}
			_, _ = fmt.Fprintln(tw, strings.Join(cells, "\t"))
		}
		_ = tw.Flush()
	})
}

// screen is a terminal that text of others cannot steer: certificates hold any characters that their makers like.
type screen struct{ io.Writer }

// Write implements io.Writer.
func (s screen) Write(p []byte) (int, error) {
	_, err := io.WriteString(s.Writer, strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, string(p)))
	return len(p), err
}

func rows(w io.Writer) func(name, value string) {
	return func(name, value string) { _, _ = fmt.Fprintf(w, "%-12s %s\n", name, value) }
}

func printDeployments(w io.Writer, all []apiv1.Deployment) {
	for _, d := range all {
		_, _ = fmt.Fprintf(w, "%-12s %s on %s at %s: %s", "deployment", d.Certificate, d.Server, d.Target, d.State)
		if d.State != apiv1.DeploymentDeployed && d.Phase != "" {
			_, _ = fmt.Fprintf(w, " (%s) %s", d.Phase, d.Detail)
		}
		_, _ = fmt.Fprintln(w)
	}
}

func printHistory(w io.Writer, commits []apiv1.Commit) {
	for _, commit := range commits {
		_, _ = fmt.Fprintf(w, "%-12s %s %s %s (%s)\n", "commit", short(commit.Hash), day(commit.CommittedAt), commit.Subject, commit.Author)
	}
}

func short(hash string) string {
	if hash == "" {
		return "-"
	}
	return hash[:min(len(hash), 7)]
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
