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
	"github.com/certferry/certferry/gitstore/seal"
)

// wantKey wants the agent to be known by a key, after it was opened anew too.
func (w *world) wantKey(a *daemon.Agent, fingerprint string) {
	w.t.Helper()
	again, err := daemon.New(w.cfg, w.env())
	w.must(err)
	for _, agent := range []*daemon.Agent{a, again} {
		if got := w.status(agent).Fingerprint; got != fingerprint {
			w.t.Errorf("key %s, want %s", got, fingerprint)
		}
	}
}

func (w *world) rotate(a *daemon.Agent, state string) string {
	w.t.Helper()
	r, err := a.RotateKey(w.t.Context())
	w.must(err)
	if r.State != state || r.Fingerprint != w.offered.Fingerprint() {
		w.t.Fatalf("rotation %+v, want %s", r, state)
	}
	return r.Fingerprint
}

// TestRotateKey follows a key that a person has to approve: until then the present one is in force, and both open what
// comes.
func TestRotateKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	first, old := w.issue(), w.agentKey
	before := w.publish(first)
	w.deployed(a, before, first)

	next := w.rotate(a, "pending")
	if again := w.rotate(a, "pending"); again != next {
		t.Errorf("asked twice, a second key was made: %s and %s", next, again)
	}
	w.wantKey(a, old.Fingerprint())
	second := w.issue()
	w.deployed(a, w.publish(second), second) // the hub does not know the new key yet
	w.wantKey(a, old.Fingerprint())

	w.agentKey = w.offered // approved
	third := w.issue()
	w.deployed(a, w.publish(third), third)
	w.wantKey(a, next)
	found, err := filepath.Glob(filepath.Join(w.cfg.StateDir, "key*.asc"))
	w.must(err)
	if len(found) != 2 {
		t.Errorf("keys %v, want the present one and the old", found)
	}
	for _, name := range found {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	// What was sealed to the old key can be gone back to without a network.
	w.gitDown.Store(true)
	w.hubDown.Store(true)
	if r, err := a.Rollback(t.Context(), before); err != nil || r.Outcomes[0].LeafSHA256 != first.LeafSHA256() {
		t.Errorf("roll back to before the replacement: %+v, %v", r, err)
	}
	w.gitDown.Store(false)
	w.hubDown.Store(false)
	w.must(a.Resume(t.Context()))
	// From a remote nothing sealed to the old key is taken any more.
	w.agentKey = old
	w.publish(w.issue())
	if _, err := a.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "manifest is for another key") {
		t.Errorf("sealed to the old key: %v", err)
	}
	w.site.wantServed(first)
}

// TestRotateKeyByHeartbeat: the hub asks, the running agent answers and goes on with the new key.
func TestRotateKeyByHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	first := w.issue()
	w.deployed(a, w.publish(first), first)
	old := w.agentKey.Fingerprint()
	w.mu.Lock()
	w.takeOffers, w.beatReply.RotateKey = true, true
	w.mu.Unlock()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	until := func(what string, reached func() bool) {
		t.Helper()
		for !reached() {
			if time.Now().After(deadline) {
				t.Fatalf("%s did not come about", what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	var next *seal.PublicKey
	until("an offer", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		next = w.offered
		return next != nil
	})
	w.publish(w.issue())
	until("the new key", func() bool {
		watcher, err := daemon.New(w.cfg, w.env())
		w.must(err)
		return w.status(watcher).Fingerprint == next.Fingerprint() && w.status(watcher).Generation == 2
	})
	stop()
	if err := <-done; err != nil || next.Fingerprint() == old {
		t.Errorf("run: %v", err)
	}
}

// TestRotateKeyThatFails leaves all as it was, and the same new key is offered later.
func TestRotateKeyThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	old := w.agentKey.Fingerprint()
	w.hubDown.Store(true)
	if _, err := a.RotateKey(t.Context()); err == nil {
		t.Error("no error without a hub")
	}
	w.wantKey(a, old)
	w.hubDown.Store(false)
	w.takeOffers = true
	next := w.rotate(a, "taken")
	// The answer was lost: the same key is offered again, and the hub has it already.
	if again := w.rotate(a, "taken"); again != next {
		t.Errorf("offered %s, then %s", next, again)
	}
	b := w.issue()
	w.deployed(a, w.publish(b), b)
	w.wantKey(a, next)
}

// TestEnrolForgetsKeys: a server that enrols anew keeps no key of its former life.
func TestEnrolForgetsKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	w.rotate(a, "pending")
	w.tokenUsed = false
	req := w.request()
	req.Force = true
	if _, err := daemon.Enroll(t.Context(), w.cfg, "v1", req, w.env()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(w.cfg.StateDir, "key.next.asc")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("next key of the former life: %v", err)
	}
	again, err := daemon.New(w.cfg, w.env())
	w.must(err)
	b := w.issue()
	w.deployed(again, w.publish(b), b)
}
