// Command bench measures Certferry against what people would use instead, side by side in one run, and prints a
// line for each comparison:
//
//	BENCH <area>.<name> ours=<value> peer=<who>:<value> ratio=<r> goal=<g> ok
//
// It ends with 0 when every line is ok, with 1 when one is short or could not be measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// area is a part of the program that is compared with others.
type area struct {
	name string
	run  func(ctx context.Context, r *Report) error
}

// areas are run in this order. Add yours.
func areas() []area {
	return []area{
		{"store", benchStore},
		{"push", benchPush},
		{"polls", benchPolls},
		{"issue", benchIssue},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code) //nolint:forbidigo // a program's main exits
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if dir, ok := strings.CutPrefix(strings.Join(args, " "), serveCommand+" "); ok { // a comparison's own server
		if err := servePolls(ctx, dir, os.Stdin, stdout); err != nil {
			_, _ = fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	if dir, ok := strings.CutPrefix(strings.Join(args, " "), serveACME+" "); ok {
		if err := servePebble(ctx, dir, os.Stdin, stdout); err != nil {
			_, _ = fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	if len(args) > 0 && args[0] == serveHub {
		if err := runHub(ctx, args[1:], os.Stdin, stdout); err != nil {
			_, _ = fmt.Fprintln(stderr, err)
			return 1
		}
		return 0
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "areas to run, separated by commas; all by default")
	scale := flags.Float64("scale", 1, "share of the full sizes to run at; figures count at 1 only")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	r := &Report{Out: stdout, Scale: *scale}
	r.note("%d processors, %s %s/%s, scale %g", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, r.Scale)
	failed := false
	for _, a := range areas() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), a.name) {
			continue
		}
		if err := a.run(ctx, r); err != nil {
			_, _ = fmt.Fprintf(stderr, "bench: %s: %v\n", a.name, err)
			failed = true
		}
	}
	if failed || r.shorts > 0 {
		return 1
	}
	return 0
}
