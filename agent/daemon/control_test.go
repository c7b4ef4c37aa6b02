package daemon_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
)

func TestRollbackWithoutNetworkHoldsUntilResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	if _, err := a.Rollback(t.Context(), ""); !errors.Is(err, daemon.ErrNoEarlier) {
		t.Errorf("roll back of nothing: %v", err)
	}
	if err := a.Resume(t.Context()); !errors.Is(err, daemon.ErrNothingToDo) {
		t.Errorf("resume of what is not held: %v", err)
	}
	first, second := w.issue(), w.issue()
	one := w.publish(first)
	w.deployed(a, one, first)
	two := w.publish(second)
	w.deployed(a, two, second)
	w.taken()

	w.hubDown.Store(true)
	w.gitDown.Store(true)
	result, err := a.Rollback(t.Context(), "")
	if err != nil || result.Commit != one || result.Generation != 1 {
		t.Fatalf("roll back: %v %+v", err, result)
	}
	w.site.wantServed(first)
	w.hubDown.Store(false)
	w.gitDown.Store(false)

	w.onceSays(a, daemon.ErrNothingToDo, "held at commit "+one)
	w.publish(w.issue()) // whatever comes now has to wait
	w.once(a, daemon.ErrNothingToDo)
	w.site.wantServed(first)
	s := w.status(a)
	if !s.Held || s.Commit != one || s.Generation != 1 || s.NewestCommit != two {
		t.Errorf("status %+v", s)
	}
	if r := w.taken(); len(r) != 1 || r[0].Cause != "rollback" || r[0].Commit != one {
		t.Errorf("reports %+v", r)
	}
	if _, err := a.Rollback(t.Context(), ""); !errors.Is(err, daemon.ErrNoEarlier) {
		t.Errorf("roll back beyond the history: %v", err)
	}

	// Forward again within the history is the administrator's too.
	if result, err := a.Rollback(t.Context(), two[:10]); err != nil || result.Commit != two {
		t.Errorf("to %s: %v %+v", two, err, result)
	}
	w.site.wantServed(second)
	w.must(a.Resume(t.Context()))
	newest := w.issue()
	w.deployed(a, w.publish(newest), newest)
	if s := w.status(a); s.Held {
		t.Errorf("status %+v", s)
	}
}

func TestResumeReturnsToTheNewestSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	first, second := w.issue(), w.issue()
	w.deployed(a, w.publish(first), first)
	two := w.publish(second)
	w.deployed(a, two, second)
	_, err := a.Rollback(t.Context(), "")
	w.must(err)
	w.must(a.Resume(t.Context()))
	w.deployed(a, two, second)
}

func TestRollbackRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	first, second := w.issue(), w.issue()
	one := w.publish(first)
	w.deployed(a, one, first)
	w.deployed(a, w.publish(second), second)
	for _, commit := range []string{"0123456", strings.Repeat("0", 40), "../..", one[:6]} {
		if _, err := a.Rollback(t.Context(), commit); err == nil || !strings.Contains(err.Error(), "local history") {
			t.Errorf("roll back to %q: %v", commit, err)
		}
	}
	names, err := filepath.Glob(filepath.Join(w.cfg.StateDir, "history", "*"+one, manifest.File))
	if err != nil || len(names) != 1 {
		t.Fatalf("history: %v %v", names, err)
	}
	w.must(os.WriteFile(names[0], []byte("{}"), 0o600))
	if _, err := a.Rollback(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "state refused") {
		t.Errorf("roll back to a commit that somebody changed: %v", err)
	}
	w.site.wantServed(second)
	if s := w.status(a); s.Held || s.Status != "ok" {
		t.Errorf("status %+v", s)
	}
}

func TestRollbackThatFailsDoesNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	first, second := w.issue(), w.issue()
	w.deployed(a, w.publish(first), first)
	two := w.publish(second)
	w.deployed(a, two, second)
	w.policy("[/bin/false]")
	if _, err := a.Rollback(t.Context(), ""); !errors.Is(err, daemon.ErrDeployment) {
		t.Fatalf("roll back: %v", err)
	}
	w.site.wantServed(second)
	if s := w.status(a); s.Held || s.Commit != two || s.Status != "failed" {
		t.Errorf("status %+v", s)
	}
	w.once(a, daemon.ErrNothingToDo)
}

// eventually waits for ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited too long for %s", what)
		case <-tick.C:
		}
	}
}

func (w *world) beats() []apiv1.HeartbeatRequest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]apiv1.HeartbeatRequest(nil), w.heartbeats...)
}

func TestRunDeploysReportsAndBeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	first := w.issue()
	one := w.publish(first)
	eventually(t, "the first certificate", func() bool { return w.status(a).Commit == one })
	w.site.wantServed(first)
	eventually(t, "heartbeats", func() bool { return len(w.beats()) >= 2 })
	var counter uint64
	for i, b := range w.beats() {
		// One that the agent gave up before it came here counts too, and the facts are told until they arrived.
		if b.Counter <= counter || b.Facts == nil && i == 0 || b.Status == "" {
			t.Errorf("heartbeat %d: %+v", i, b)
		}
		counter = b.Counter
	}
	w.hubDown.Store(true)
	w.gitDown.Store(true)
	eventually(t, "the word that git is down", func() bool { return w.status(a).Status == "degraded" })
	w.hubDown.Store(false)
	w.gitDown.Store(false)
	eventually(t, "recovery", func() bool { return w.status(a).Status == "ok" })
	w.policy("[/bin/false]")
	w.publish(w.issue())
	eventually(t, "a failure", func() bool { return w.status(a).Status == "failed" })
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}

	// The counter goes on where it was, in another process too.
	beats := w.beats()
	last := beats[len(beats)-1].Counter
	ctx, stop = context.WithCancel(t.Context())
	defer stop()
	again := w.agent()
	go func() { done <- again.Run(ctx) }()
	eventually(t, "a heartbeat after the restart", func() bool { return len(w.beats()) > len(beats) })
	if b := w.beats()[len(beats)]; b.Counter <= last || b.Status != "failed" || b.Commit != one || b.Facts == nil {
		t.Errorf("heartbeat after restart %+v, want a counter above %d", b, last)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// The hub's answer to a heartbeat is the doorbell: the agent looks at once, not when the next poll is due.
func TestHeartbeatRings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PollInterval = time.Hour
	a := w.agent()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	eventually(t, "the first cycle", func() bool { return w.status(a).Message != "" })
	one := w.publish(w.issue())
	w.mu.Lock()
	w.beatReply.Commit, w.beatReply.Generation = one, 1
	w.mu.Unlock()
	eventually(t, "the certificate", func() bool { return w.status(a).Commit == one })
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// A heartbeat that waits at the hub does not keep the agent from polling, and one that says old things is given up for
// one that says how it is.
func TestHeartbeatWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keepBeats.Store(true)
	a := w.agent()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	eventually(t, "the first heartbeat", func() bool { return len(w.beats()) >= 1 })
	if first := w.beats()[0]; !first.Wait || first.Facts == nil {
		t.Errorf("first heartbeat %+v", first)
	}
	one := w.publish(w.issue())
	eventually(t, "a heartbeat with the new commit", func() bool {
		all := w.beats()
		return all[len(all)-1].Commit == one
	})
	stop()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var out strings.Builder
	if err := daemon.CheckPolicy(w.cfg.Policy, &out); err != nil || !strings.Contains(out.String(), "target web (files)") {
		t.Errorf("check: %v %q", err, out.String())
	}
	if err := daemon.CheckPolicy(filepath.Join(t.TempDir(), "none"), &out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("check of a missing policy: %v", err)
	}
}
