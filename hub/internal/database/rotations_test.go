package database_test

import (
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// approved makes web-1 an approved server with the key FP-c1.
func (w *world) approved() {
	w.t.Helper()
	w.enrol("web-1", "c1")
	w.must(w.ApproveServer(w.t.Context(), "web-1", "FP-c1", event("approve-server", "web-1")))
}

func (w *world) wantKey(fingerprint string) {
	w.t.Helper()
	s, err := w.Server(w.t.Context(), "web-1")
	w.must(err)
	if s.Fingerprint != fingerprint || s.PublicKey == "" || s.State != hub.ServerApproved {
		w.t.Errorf("server %+v, want key %s", s, fingerprint)
	}
}

// detail is that of the newest event of the audit history.
func (w *world) detail() string {
	w.t.Helper()
	events, err := w.AuditEvents(w.t.Context(), 0, 1)
	w.must(err)
	return events[0].Action + ": " + events[0].Detail
}

func newKey(n string) hub.KeyRotation {
	return hub.KeyRotation{Server: "web-1", Fingerprint: "FP-" + n, PublicKey: "key " + n}
}

// TestRotateKeyAskedFor: a key that a person asked for is taken at once, for half an hour and once.
func TestRotateKeyAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.approved()
	w.must(w.AskKeyRotation(ctx, "web-1", "alice", event("rotate-server-key", "web-1")))
	under, err := w.KeyRotation(ctx, "web-1")
	w.must(err)
	if under.AskedBy != "alice" || !under.Allowed(w.clock()) || under.Allowed(w.clock().Add(30*time.Minute)) || under.Fingerprint != "" {
		t.Errorf("under way %+v", under)
	}
	taken, err := w.RotateKey(ctx, newKey("c2"), "FP-c1", event("offer-server-key", "web-1"))
	w.must(err)
	if !taken || !strings.Contains(w.detail(), "asked for by alice") {
		t.Errorf("taken %v, %s", taken, w.detail())
	}
	w.wantKey("FP-c2")
	_, err = w.KeyRotation(ctx, "web-1")
	w.fails(err, hub.ErrNotFound)
	// The answer was lost, and the server comes with the same key again.
	length := w.auditLength()
	if taken, err = w.RotateKey(ctx, newKey("c2"), "FP-c1", event("offer-server-key", "web-1")); !taken || err != nil || w.auditLength() != length {
		t.Errorf("the same key again: %v, %v", taken, err)
	}
	// Nobody asked for another one.
	if taken, err = w.RotateKey(ctx, newKey("c3"), "FP-c2", event("offer-server-key", "web-1")); taken || err != nil {
		t.Errorf("a third key: taken %v, %v", taken, err)
	}
	w.wantKey("FP-c2")
}

// TestRotateKeyWaits: a key that nobody asked for, or too late, waits for a person who compares its fingerprint.
func TestRotateKeyWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.approved()
	w.must(w.AskKeyRotation(ctx, "web-1", "alice", event("rotate-server-key", "web-1")))
	w.pass(30 * time.Minute)
	for range 2 {
		taken, err := w.RotateKey(ctx, newKey("c2"), "FP-c1", event("offer-server-key", "web-1"))
		if taken || err != nil {
			t.Fatalf("taken %v, %v", taken, err)
		}
	}
	w.wantKey("FP-c1")
	if !strings.Contains(w.detail(), "waits for approval") {
		t.Error(w.detail())
	}
	w.fails(w.ApproveServer(ctx, "web-1", "FP-c9", event("approve-server", "web-1")), hub.ErrConflict)
	w.must(w.ApproveServer(ctx, "web-1", "FP-c2", event("approve-server", "web-1")))
	w.wantKey("FP-c2")
	if w.detail() != "approve-server: key FP-c2 in place of FP-c1" {
		t.Error(w.detail())
	}
	// Whoever has the key from before replaces nothing with it.
	_, err := w.RotateKey(ctx, newKey("evil"), "FP-c1", event("offer-server-key", "web-1"))
	w.fails(err, hub.ErrConflict)
	_, err = w.RotateKey(ctx, hub.KeyRotation{Server: "other"}, "FP-c1", event("offer-server-key", "other"))
	w.fails(err, hub.ErrNotFound)
	w.fails(w.AskKeyRotation(ctx, "other", "alice", event("rotate-server-key", "other")), hub.ErrNotFound)
	// Enrolling anew forgets what waited.
	if _, err := w.RotateKey(ctx, newKey("c3"), "FP-c2", event("offer-server-key", "web-1")); err != nil {
		t.Fatal(err)
	}
	w.enrol("web-1", "c4")
	_, err = w.KeyRotation(ctx, "web-1")
	w.fails(err, hub.ErrNotFound)
}

// TestBlockServer: the credential ends, older tokens end, and what the key could open is queued with new keys.
func TestBlockServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.approved()
	w.token("before", "web-1")
	waiting, _, err := w.EnqueueJob(ctx, hub.Job{Certificate: "b", Actor: "hub", Reason: "due", NotBefore: w.clock().Add(time.Hour)})
	w.must(err)
	token := hub.JoinToken{Hash: "after", Server: "web-1", CreatedBy: "alice", CreatedAt: w.clock(), ExpiresAt: w.clock().Add(time.Minute)}
	jobs := []hub.Job{
		{Certificate: "a", Actor: "alice", Reason: "key of server web-1 replaced", NewKey: true},
		{Certificate: "b", Actor: "alice", Reason: "key of server web-1 replaced", NewKey: true},
	}
	w.must(w.BlockServer(ctx, "web-1", token, jobs, event("rotate-server-key", "web-1")))
	s, err := w.Server(ctx, "web-1")
	w.must(err)
	if s.State != hub.ServerDisabled {
		t.Errorf("state %s", s.State)
	}
	for _, name := range []string{"a", "b"} {
		job, err := w.LatestJob(ctx, name)
		w.must(err)
		if !job.NewKey || job.Actor != "alice" || job.Reason != jobs[0].Reason || job.State != apiv1.JobQueued || !job.NotBefore.IsZero() || name == "b" && job.ID != waiting.ID {
			t.Errorf("job of %s: %+v", name, job)
		}
	}
	w.fails(w.InsertServer(ctx, server("web-1", "thief"), "before", event("register-server", "web-1")), hub.ErrUnauthenticated)
	_, err = w.RotateKey(ctx, newKey("thief"), "FP-c1", event("offer-server-key", "web-1"))
	w.fails(err, hub.ErrConflict)
	w.fails(w.AskKeyRotation(ctx, "web-1", "alice", event("rotate-server-key", "web-1")), hub.ErrConflict)
	w.must(w.InsertServer(ctx, server("web-1", "c2"), "after", event("register-server", "web-1")))
	w.fails(w.BlockServer(ctx, "other", token, nil, event("rotate-server-key", "other")), hub.ErrNotFound)
}
