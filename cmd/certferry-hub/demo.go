// This file is `certferry-hub demo`: the main job before one's eyes, with real processes on loopback. It makes a hub
// in a temporary folder, enrols agents for a small TLS site and, where it is installed, for nginx, and takes
// certificates through issue, renewal, a failing deployment and roll backs. What it says that a client sees is what a
// TLS handshake just saw.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

func demoCommand() *cli.Command {
	return leaf(&cli.Command{
		Name: "demo", Usage: "show the main job on this machine, in a temporary folder",
		Description: "It needs certferry-agent and tlssite beside this program (make demo builds them). Everything stays up " +
			"until Ctrl-C, and nothing is left behind.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "end by itself after the last step"},
			&cli.StringFlag{Name: "issuer", Value: "privateca", Usage: "privateca, or acmesh: acme.sh (ACME_SH) and a Pebble beside this program"},
		},
		Action: func(c *cli.Context) error {
			issuer := c.String("issuer")
			if issuer != "privateca" && issuer != "acmesh" {
				return usagef("read flag --issuer: it must be privateca or acmesh")
			}
			d, err := newDemo(c.App.Writer, issuer == "acmesh")
			if err != nil {
				return fmt.Errorf("demo: %w", err)
			}
			err = d.run(c.Context, c.Bool("once"))
			if closeErr := d.close(); err == nil {
				err = closeErr
			}
			if err != nil {
				_, _ = fmt.Fprintf(c.App.Writer, "demo: %v\n", err)
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, "demo: ok")
			return err
		},
	}, 0)
}

// demo is a running demonstration.
type demo struct {
	out      io.Writer
	bin, dir string
	acme     bool
	children []*child
	hub      *demoHub
	sites    []*demoSite
	started  time.Time
}

func newDemo(out io.Writer, acme bool) (*demo, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "certferry-demo-") // made with mode 0700
	if err != nil {
		return nil, err
	}
	return &demo{out: out, bin: filepath.Dir(exe), dir: dir, acme: acme, started: time.Now()}, nil
}

// close stops every process, the last one first, and removes the folder.
func (d *demo) close() error {
	var errs []error
	for _, c := range slices.Backward(d.children) {
		errs = append(errs, c.stop())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// say prints one step as a line.
func (d *demo) say(step, format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, "%5.1fs  %-9s %s\n", time.Since(d.started).Seconds(), step, fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context, once bool) error {
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"start the hub", d.startHub},
		{"enrol the servers", d.enrol},
		{"issue", d.issue},
		{"renew", d.renew},
		{"fail and roll back", d.fail},
		{"recover", d.recover},
		{"roll back by hand", d.rollback},
	}
	for _, step := range steps {
		if err := step.do(ctx); err != nil {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // somebody pressed Ctrl-C, which is how the demo ends
			}
			return fmt.Errorf("%s: %w%s", step.name, err, d.tails())
		}
	}
	if once {
		return nil
	}
	d.say("stays up", "log in at %s/ with the setup code above; Ctrl-C ends it all", d.hub.url)
	d.say("", "folder %s", d.dir)
	<-ctx.Done()
	return nil
}

// tails are the last words of each process, for when a step failed.
func (d *demo) tails() string {
	var text strings.Builder
	for _, c := range d.children {
		if tail := c.tail(); tail != "" {
			text.WriteString("\n--- " + c.name + "\n" + tail)
		}
	}
	return text.String()
}

// await asks until done says so or the time is up.
func await(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if err != nil || ok {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}
