package intent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

func TestEnsureServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.must(f.service.EnsureServer(t.Context(), "web-1", map[string]string{"role": "edge"}))
	head := f.head()
	if !strings.Contains(head.Message, "add server web-1\n") || !strings.Contains(head.Message, "Server: web-1") || head.Author.Name != "Certferry hub" {
		t.Errorf("commit: %+v", head)
	}
	f.must(f.service.EnsureServer(t.Context(), "web-1", map[string]string{"role": "other"}))
	if f.head().Hash != head.Hash || f.snapshot().Servers["web-1"].Labels["role"] != "edge" {
		t.Error("a server that was there was changed")
	}
	f.refused(f.service.EnsureServer(t.Context(), "../x", nil), hub.ErrInvalid, head, "name")
	f.refused(f.service.EnsureServer(t.Context(), "web-2", map[string]string{"a b": "c"}), hub.ErrInvalid, head, "labels")
	hubtest.Force(t, f.store, manifest.ServerPath("web-3"), []byte("what: ever\n"))
	head = f.head()
	f.must(f.service.EnsureServer(t.Context(), "web-3", nil))
	if f.head().Hash != head.Hash {
		t.Error("a file that cannot be read was written over")
	}
}

// deploy publishes what main has of a certificate to web-1 and returns the commit of its branch.
func (f *fixture) deploy(key *seal.PublicKey, names ...string) string {
	f.Helper()
	state := gitstore.ServerState{Server: "web-1", Key: key}
	commit := f.snapshot().Commit
	for _, name := range names {
		b, err := f.store.OpenIssued(f.Context(), commit, name)
		f.must(err)
		state.Deployments = append(state.Deployments, gitstore.Wanted{Certificate: name, Deployer: "nginx", Target: name, Bundle: b})
	}
	return f.publish(state)
}

func (f *fixture) publish(state gitstore.ServerState) string {
	f.Helper()
	results, err := f.store.Publish(f.Context(), f.snapshot().Commit, []gitstore.ServerState{state})
	f.must(err)
	f.must(results[0].Err)
	return results[0].Commit
}

func TestRollbackAndResumeServer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := hubtest.NewKey(t, "web-1", f.clock.Now()).Public()
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", "", ""), hub.ErrNotFound, f.head(), "no such server")
	f.must(f.service.EnsureServer(t.Context(), "web-1", map[string]string{"role": "edge"}))
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", "", ""), hub.ErrConflict, f.head(), "nothing was deployed")
	f.refused(f.service.ResumeServer(t.Context(), ada, "", "web-1"), hub.ErrConflict, f.head(), "not held")
	f.create("a.example", nil)
	f.issue("a.example")
	one := f.deploy(key, "a.example")
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", "", ""), hub.ErrConflict, f.head(), "no earlier state")
	f.create("b.example", nil)
	f.issue("b.example")
	two := f.deploy(key, "a.example", "b.example")
	f.issue("b.example")
	f.deploy(key, "a.example", "b.example")
	f.clock.Advance(25 * time.Hour)
	f.deploy(key, "a.example", "b.example") // a refresh, which is no state of its own

	f.must(f.service.RollbackServer(t.Context(), ada, "request-4", "web-1", "", "shop is down"))
	hold := f.snapshot().Servers["web-1"].Hold
	want := &manifest.Hold{Commit: two, Reason: "shop is down", By: "ada", Since: f.clock.Now()}
	if diff := cmp.Diff(want, hold); diff != "" {
		t.Error(diff)
	}
	if f.snapshot().Servers["web-1"].Labels["role"] != "edge" {
		t.Error("the labels are gone")
	}
	if m := f.head().Message; !strings.HasPrefix(m, "hold server web-1 at "+two[:7]) || !strings.Contains(m, "Server: web-1") {
		t.Errorf("message: %s", m)
	}
	f.publish(gitstore.ServerState{Server: "web-1", Key: key, HoldCommit: two})

	// Again goes further back, not forth.
	f.must(f.service.RollbackServer(t.Context(), ada, "", "web-1", "", ""))
	if got := f.snapshot().Servers["web-1"].Hold.Commit; got != one {
		t.Errorf("held at %s, want %s", got, one)
	}
	f.must(f.service.RollbackServer(t.Context(), ada, "", "web-1", two[:8], ""))
	before := f.head()
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", f.snapshot().Commit, ""), hub.ErrNotFound, before, "no such commit")
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", "12", ""), hub.ErrInvalid, before, "at least 7 digits")
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", "", "a\rb"), hub.ErrInvalid, before, "body.reason")

	f.must(f.service.ResumeServer(t.Context(), ada, "", "web-1"))
	if f.snapshot().Servers["web-1"].Hold != nil {
		t.Error("still held")
	}
	f.refused(f.service.ResumeServer(t.Context(), ada, "", "web-9"), hub.ErrNotFound, f.head(), "no such server")
	f.clock.Advance(91 * 24 * time.Hour)
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", two, ""), hub.ErrConflict, f.head(), "expired on")
}
