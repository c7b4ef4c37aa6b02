package gitstore_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// sharing is three servers that share certificates.
type sharing struct {
	*world

	store *gitstore.Store
	names []string
	keys  map[string]*seal.PrivateKey
}

func newSharing(t *testing.T) *sharing {
	t.Helper()
	w := newWorld(t)
	s := &sharing{world: w, store: w.open(1), keys: map[string]*seal.PrivateKey{}}
	for i := range 3 {
		name := fmt.Sprintf("web-%d", i+1)
		s.names = append(s.names, name)
		s.keys[name] = w.key(name)
	}
	return s
}

// give publishes to some servers what each is to have, and checks their branches.
func (s *sharing) give(states map[string][]gitstore.Wanted) map[string]*manifest.Manifest {
	s.tb.Helper()
	var all []gitstore.ServerState
	for _, name := range s.names {
		if wanted, ok := states[name]; ok {
			all = append(all, gitstore.ServerState{Server: name, Key: s.keys[name].Public(), Deployments: wanted})
		}
	}
	return s.publish(all...)
}

func (s *sharing) publish(states ...gitstore.ServerState) map[string]*manifest.Manifest {
	s.tb.Helper()
	got, err := s.store.Publish(s.tb.Context(), snapshot(s.tb, s.store).Commit, states)
	s.must(err)
	out := map[string]*manifest.Manifest{}
	for _, p := range got {
		s.must(p.Err)
		out[p.Server] = checkBranch(s.tb, s.world, s.store, p.Server, s.keys[p.Server])
	}
	return out
}

func (s *sharing) body(server, path string) gitrepo.Hash {
	s.tb.Helper()
	tip, err := s.store.ServerTip(server)
	s.must(err)
	h, err := gitrepo.ParseHash(tip.Commit)
	s.must(err)
	e, err := s.store.Repo().Stat(h, path)
	s.must(err)
	return e.Hash
}

func all(b *bundle.Bundle) map[string][]gitstore.Wanted {
	return map[string][]gitstore.Wanted{
		"web-1": {want("wild", b)}, "web-2": {want("wild", b)}, "web-3": {want("wild", b)},
	}
}

func TestServersShareOneBody(t *testing.T) {
	t.Parallel()
	s := newSharing(t)
	wild, alone := s.bundle(90, "*.example.com"), s.bundle(90, "one.example.com")
	states := all(wild)
	states["web-1"] = append(states["web-1"], want("alone", alone))
	got := s.give(states)
	for _, name := range s.names {
		if d := got[name].Deployments[len(got[name].Deployments)-1]; len(d.BundleKey) == 0 || d.BundleSHA256 != got["web-1"].Deployments[1].BundleSHA256 {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if d := got["web-1"].Deployments[0]; d.Certificate != "alone" || len(d.BundleKey) > 0 {
		t.Errorf("a certificate of one server is shared: %+v", d)
	}
	if a, b := s.body("web-1", "bundles/wild.pgp"), s.body("web-2", "bundles/wild.pgp"); a != b {
		t.Error("two bodies")
	}
	if a, b := s.body("web-2", "bundles"), s.body("web-3", "bundles"); a != b {
		t.Error("two folders for the same bundles")
	}
	if a, b := got["web-1"].Deployments[1].BundleKey, got["web-2"].Deployments[0].BundleKey; bytes.Equal(a, b) {
		t.Error("one key packet for two servers")
	}
}

// TestSharedAndAloneTakeTurns holds that no key packet outlives its body, and that a refresh keeps both.
func TestSharedAndAloneTakeTurns(t *testing.T) {
	t.Parallel()
	s := newSharing(t)
	wild := s.bundle(90, "*.example.com")
	first := s.give(all(wild))["web-1"].Deployments[0]
	s.pass(25 * time.Hour)
	if d := s.give(all(wild))["web-1"].Deployments[0]; !bytes.Equal(d.BundleKey, first.BundleKey) || d.BundleSHA256 != first.BundleSHA256 {
		t.Error("a refresh sealed again")
	}
	next := s.bundle(90, "*.example.com")
	if d := s.give(map[string][]gitstore.Wanted{"web-1": {want("wild", next)}})["web-1"].Deployments[0]; len(d.BundleKey) > 0 {
		t.Errorf("shared with nobody: %+v", d)
	}
	second := want("wild", next)
	second.Target = "second"
	got := s.give(map[string][]gitstore.Wanted{
		"web-1": {want("wild", next), second}, "web-2": {want("wild", next), second}, "web-3": {want("wild", next), second},
	})
	if d := got["web-1"].Deployments; len(d[0].BundleKey)+len(d[1].BundleKey) > 0 {
		t.Errorf("web-1 had it: %+v", d)
	}
	if d := got["web-2"].Deployments; len(d[0].BundleKey) == 0 || !bytes.Equal(d[0].BundleKey, d[1].BundleKey) {
		t.Errorf("two targets on one server: %+v", d)
	}
	s.give(map[string][]gitstore.Wanted{"web-1": {}, "web-2": {}}) // checkBranch counts the files
}

// TestHoldOfASharedBody: what was shared comes back as it was, and under a new key from the hub's own copy.
func TestHoldOfASharedBody(t *testing.T) {
	t.Parallel()
	s := newSharing(t)
	apply(t, s.store, "wish", certificateYAML(t, "wild", "*.example.com"))
	wild := s.bundle(90, "*.example.com")
	issue(t, s.store, "wild", wild)
	first := s.give(all(wild))["web-1"]
	tip, err := s.store.ServerTip("web-1")
	s.must(err)
	next := s.bundle(90, "*.example.com")
	issue(t, s.store, "wild", next)
	s.give(all(next))
	hold := gitstore.ServerState{Server: "web-1", Key: s.keys["web-1"].Public(), HoldCommit: tip.Commit}
	if d := s.publish(hold)["web-1"].Deployments[0]; !bytes.Equal(d.BundleKey, first.Deployments[0].BundleKey) || d.LeafSHA256 != wild.LeafSHA256() {
		t.Errorf("hold: %+v", d)
	}
	s.keys["web-1"] = s.key("web-1 anew")
	hold.Key = s.keys["web-1"].Public()
	if d := s.publish(hold)["web-1"].Deployments[0]; len(d.BundleKey) > 0 || d.LeafSHA256 != wild.LeafSHA256() {
		t.Errorf("hold under a new key: %+v", d)
	}
}

// TestFaultOfOneSharer: what is wrong with one server does not keep the body from the others.
func TestFaultOfOneSharer(t *testing.T) {
	t.Parallel()
	s := newSharing(t)
	wild := s.bundle(90, "*.example.com")
	states := []gitstore.ServerState{
		{Server: "web-1", Key: s.keys["web-1"].Public(), Deployments: []gitstore.Wanted{want("wild", wild)}},
		{Server: "web-2", Deployments: []gitstore.Wanted{want("wild", wild)}},
		{Server: "web-3", Key: s.keys["web-3"].Public(), Deployments: []gitstore.Wanted{want("wild", wild)}},
		{Server: "web-1", Key: s.keys["web-1"].Public()},
	}
	got, err := s.store.Publish(t.Context(), snapshot(t, s.store).Commit, states)
	s.must(err)
	if got[0].Err != nil || got[2].Err != nil || got[1].Err == nil || got[3].Err == nil {
		t.Errorf("%+v", got)
	}
	for _, name := range []string{"web-1", "web-3"} {
		if d := checkBranch(t, s.world, s.store, name, s.keys[name]).Deployments[0]; len(d.BundleKey) == 0 {
			t.Errorf("%s: not shared", name)
		}
	}
}
