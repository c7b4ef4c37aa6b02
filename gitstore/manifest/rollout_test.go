package manifest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/manifest"
)

// TestWaveSizes turns waves into numbers of servers.
func TestWaveSizes(t *testing.T) {
	t.Parallel()
	n := func(n int) manifest.Wave { return manifest.Wave{N: n} }
	share := func(n int) manifest.Wave { return manifest.Wave{N: n, Percent: true} }
	for _, tc := range []struct {
		waves manifest.Waves
		total int
		want  string
	}{
		{manifest.DefaultWaves(), 0, "[]"},
		{manifest.DefaultWaves(), 1, "[1]"},
		{manifest.DefaultWaves(), 2, "[1 2]"},
		{manifest.DefaultWaves(), 10, "[1 10]"},
		{manifest.DefaultWaves(), 11, "[1 2 11]"},
		{manifest.DefaultWaves(), 10000, "[1 1000 10000]"},
		{nil, 5, "[5]"},
		{manifest.Waves{share(100)}, 5, "[5]"},
		{manifest.Waves{n(3), share(1), share(50)}, 100, "[3 50 100]"},
		{manifest.Waves{n(7), n(50)}, 10, "[7 10]"},
	} {
		if got := fmt.Sprint(tc.waves.Sizes(tc.total)); got != tc.want {
			t.Errorf("%v of %d: got %s, want %s", tc.waves, tc.total, got, tc.want)
		}
	}
}

func rollout() *manifest.Rollout {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return &manifest.Rollout{
		Name: "shop", From: strings.Repeat("a1", 20), FromLeafSHA256: strings.Repeat("b2", 32), LeafSHA256: strings.Repeat("c3", 32),
		Waves: manifest.DefaultWaves(), Wave: 1, State: manifest.RolloutRunning, StartedAt: at, WaveStartedAt: at.Add(time.Minute),
	}
}

// TestRolloutYAML writes and reads a rollout without a difference, as people would write it.
func TestRolloutYAML(t *testing.T) {
	t.Parallel()
	want := rollout()
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "waves:\n  - 1\n  - 10%\nwave: 1\nstate: running\n") {
		t.Errorf("got\n%s", data)
	}
	got, err := manifest.DecodeRollout(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestRolloutRefusesFaults finds each fault of a rollout and of a certificate's waves and review.
func TestRolloutRefusesFaults(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*manifest.Rollout){
		"from":        func(r *manifest.Rollout) { r.From = "a1" },
		"leafSha256":  func(r *manifest.Rollout) { r.LeafSHA256 = "" },
		"wave":        func(r *manifest.Rollout) { r.Wave = 0 },
		"state":       func(r *manifest.Rollout) { r.State = "done" },
		"reason":      func(r *manifest.Rollout) { r.Reason = "two\nlines" },
		"startedAt":   func(r *manifest.Rollout) { r.WaveStartedAt = r.StartedAt.Add(-time.Hour) },
		"waves":       func(r *manifest.Rollout) { r.Waves = manifest.Waves{{N: 2}, {N: 1}} },
		"kind: must":  func(r *manifest.Rollout) { r.APIVersion, r.Kind = manifest.APIVersion, "Server" },
		"check rollo": func(r *manifest.Rollout) { r.Name = "" },
	} {
		r := rollout()
		change(r)
		if _, err := r.Encode(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	const head = "apiVersion: certferry/v1\nkind: Certificate\nname: a\nnames: [a.test]\nissuer: x\n"
	for text, want := range map[string]string{
		"waves: [0]\n":                 "line 6",
		"waves: [101%]\n":              "line 6",
		"waves:\n  - 1\n  - [2]\n":     "line 8",
		"waves: [50%, 20%]\n":          "line 6: waves: each wave must be larger",
		"review: maybe\n":              "line 6: review",
		"waves: [1, 10%, 50%, 100%]\n": "",
		"review: two-person\n":         "",
	} {
		_, err := manifest.DecodeCertificate([]byte(head + text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}
