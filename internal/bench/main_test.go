package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"
)

var line = regexp.MustCompile(`^BENCH [a-z]+\.[a-z0-9-]+ ours=\S+ peer=[^:]+:\S+ ratio=\S+ goal=\S+ (ok|short)$`)

// TestRunPrintsEachComparison runs everything at a thousandth of its size: the figures mean nothing, the lines do.
func TestRunPrintsEachComparison(t *testing.T) {
	t.Parallel()
	var out, faults bytes.Buffer
	code := run(t.Context(), []string{"-scale", "0.001"}, &out, &faults)
	if faults.Len() > 0 {
		t.Errorf("faults:\n%s", faults.String())
	}
	if want := strings.Contains(out.String(), " short\n"); (code == 1) != want {
		t.Errorf("exit code %d, a line is short: %v", code, want)
	}
	n := 0
	for text := range strings.Lines(out.String()) {
		text = strings.TrimSuffix(text, "\n")
		if strings.HasPrefix(text, "# bench: ") {
			continue
		}
		if n++; !line.MatchString(text) {
			t.Errorf("line %q", text)
		}
	}
	if n < 5 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// TestCompareJudges holds median, ratio and goal for costs and rates.
func TestCompareJudges(t *testing.T) {
	t.Parallel()
	of := func(values ...float64) Measure {
		n := -1
		return func(context.Context) (float64, error) { n++; return values[n], nil }
	}
	tests := []struct {
		c    Comparison
		want string
	}{
		{
			Comparison{Name: "a.cost", Unit: "ms", Ours: of(1, 90, 2), Peer: "git", PeerRun: of(20, 1, 30), Goal: Goal{Limit: 2, Ratio: 10}},
			"BENCH a.cost ours=2ms peer=git:20ms ratio=10 goal=<=2ms,>=10x ok\n",
		},
		{
			Comparison{Name: "a.rate", Unit: "/s", More: true, Rounds: 2, Ours: of(99, 101), Peer: "git daemon", PeerRun: of(1, 1), Goal: Goal{Ratio: 101}},
			"BENCH a.rate ours=100/s peer=git-daemon:1/s ratio=100 goal=>=101x short\n",
		},
		{
			Comparison{Name: "a.least", Unit: "/s", More: true, Rounds: 1, Ours: of(1234), Peer: "x", PeerRun: of(1234), Goal: Goal{Limit: 1235}},
			"BENCH a.least ours=1234/s peer=x:1234/s ratio=1 goal=>=1235/s short\n",
		},
	}
	for _, test := range tests {
		var out bytes.Buffer
		r := &Report{Out: &out, Scale: 1}
		if err := r.Compare(t.Context(), test.c); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("got  %swant %s", out.String(), test.want)
		}
		if short := strings.HasSuffix(test.want, "short\n"); (r.shorts == 1) != short {
			t.Errorf("%s: %d short", test.c.Name, r.shorts)
		}
	}
}

// TestRunRefusesBadFlags ends with the code for usage.
func TestRunRefusesBadFlags(t *testing.T) {
	t.Parallel()
	var out, faults bytes.Buffer
	if code := run(t.Context(), []string{"-nonsense"}, &out, &faults); code != 2 || faults.Len() == 0 {
		t.Errorf("exit code %d, %q", code, faults.String())
	}
}
