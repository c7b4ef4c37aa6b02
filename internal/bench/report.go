package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report prints comparisons as they are made.
type Report struct {
	Out io.Writer
	// Scale is the share of the full sizes to measure at: see Size.
	Scale float64

	shorts int
}

// Measure does a thing once and returns its figure, in the unit of the Comparison.
type Measure func(ctx context.Context) (float64, error)

// Comparison is ours beside a peer's. Rounds are interleaved, and the median of each side counts.
type Comparison struct {
	// Name is "area.what".
	Name string
	// Unit follows the values: "ms", "B", "/cpu-s" ...
	Unit string
	// More says that a larger value is the better one, as for rates.
	More bool
	// Rounds is how often each side is measured; 3 by default.
	Rounds int
	Ours   Measure
	// Peer names the other side, and says if its figure is scaled up.
	Peer    string
	PeerRun Measure
	Goal    Goal
}

// Goal says what is good enough. One of the fields is set; with both, both must hold.
type Goal struct {
	// Limit is the value that ours may not be worse than.
	Limit float64
	// Ratio is how many times better than the peer's ours must be: peer/ours for costs, ours/peer for rates.
	Ratio float64
}

// Size returns n at the scale of the run, at least 1.
func (r *Report) Size(n int) int { return max(1, int(float64(n)*r.Scale)) }

// Compare measures and prints one comparison.
func (r *Report) Compare(ctx context.Context, c Comparison) error {
	var ours, peer []float64
	for round := range cmp.Or(c.Rounds, 3) {
		sides := []struct {
			run  Measure
			into *[]float64
		}{{c.Ours, &ours}, {c.PeerRun, &peer}}
		if round%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if err := ctx.Err(); err != nil {
				return err
			}
			value, err := side.run(ctx)
			if err != nil {
				return fmt.Errorf("measure %s: %w", c.Name, err)
			}
			*side.into = append(*side.into, value)
		}
	}
	r.print(c, median(ours), median(peer))
	return nil
}

func (r *Report) print(c Comparison, ours, peer float64) {
	ratio := peer / ours
	if c.More {
		ratio = ours / peer
	}
	var goals []string
	ok := true
	if c.Goal.Limit > 0 {
		sign := "<="
		if c.More {
			sign = ">="
			ok = ours >= c.Goal.Limit
		} else {
			ok = ours <= c.Goal.Limit
		}
		goals = append(goals, sign+figure(c.Goal.Limit)+c.Unit)
	}
	if c.Goal.Ratio > 0 {
		ok = ok && ratio >= c.Goal.Ratio
		goals = append(goals, ">="+figure(c.Goal.Ratio)+"x")
	}
	word := "ok"
	if !ok {
		word = "short"
		r.shorts++
	}
	_, _ = fmt.Fprintf(r.Out, "BENCH %s ours=%s%s peer=%s:%s%s ratio=%s goal=%s %s\n", c.Name, figure(ours), c.Unit,
		strings.ReplaceAll(c.Peer, " ", "-"), figure(peer), c.Unit, figure(ratio), strings.Join(goals, ","), word)
}

// note prints a line that is no comparison.
func (r *Report) note(format string, args ...any) {
	_, _ = fmt.Fprintf(r.Out, "# bench: "+format+"\n", args...)
}

// figure prints a value with three significant digits, and large ones whole.
func figure(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// clock is the one place where the time is read.
func clock() time.Time { return time.Now() } //nolint:forbidigo // a benchmark measures time

// timed returns how long fn took, in milliseconds.
func timed(fn func() error) (float64, error) {
	begun := clock()
	err := fn()
	return float64(clock().Sub(begun)) / float64(time.Millisecond), err
}
