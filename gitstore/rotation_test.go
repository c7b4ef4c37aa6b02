package gitstore_test

import (
	"errors"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/seal"
)

// TestReplacedKeys: under new keys the hub still knows its own commits and opens its own copies, and the next
// publication seals everything anew.
func TestReplacedKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	former, formerEscrow := w.hub, w.escrow
	web1, web2 := w.key("web-1"), w.key("web-2")
	first, err := gitstore.Open(w.config(1))
	w.must(err)
	apply(t, first, "wish", certificateYAML(t, "wild", "*.example.com"))
	wild := w.bundle(90, "*.example.com")
	issue(t, first, "wild", wild)
	w.must(func() error {
		_, err := first.Publish(t.Context(), snapshot(t, first).Commit, []gitstore.ServerState{
			{Server: "web-1", Key: web1.Public(), Deployments: []gitstore.Wanted{want("wild", wild)}},
			{Server: "web-2", Key: web2.Public(), Deployments: []gitstore.Wanted{want("wild", wild)}},
		})
		return err
	}())
	issued := snapshot(t, first).Commit
	w.must(first.Close())

	w.hub, w.escrow = w.key("hub anew"), w.key("escrow anew")
	cfg := w.config(2)
	cfg.Retired = []gitstore.RetiredKey{{Key: former.Public()}}
	cfg.RetiredEscrow = []*seal.PrivateKey{formerEscrow}
	s, err := gitstore.Open(cfg)
	w.must(err)
	if b, err := s.OpenIssued(t.Context(), issued, "wild"); err != nil || b.LeafSHA256() != wild.LeafSHA256() {
		t.Errorf("open the copy of a former key: %v", err)
	}
	signedBy := func(s *gitstore.Store, commit string) (gitstore.SignatureState, string) {
		h, err := gitrepo.ParseHash(commit)
		w.must(err)
		c, err := s.Repo().Commit(h)
		w.must(err)
		return s.Signature(c)
	}
	if state, by := signedBy(s, issued); state != gitstore.SignedByHub || by != former.Fingerprint() {
		t.Errorf("commit of a former key: %s %s", state, by)
	}
	keep := gitstore.Wanted{Certificate: "wild", Deployer: "nginx", Target: "default", Keep: true}
	got, err := s.Publish(t.Context(), snapshot(t, s).Commit, []gitstore.ServerState{
		{Server: "web-1", Key: web1.Public(), Deployments: []gitstore.Wanted{keep}},
		{Server: "web-2", Key: web2.Public(), Deployments: []gitstore.Wanted{keep}},
	})
	w.must(err)
	for i, key := range []*seal.PrivateKey{web1, web2} {
		if got[i].Err != nil || !got[i].Changed {
			t.Fatalf("%+v", got[i])
		}
		m := checkBranch(t, w, s, got[i].Server, key)
		if m.KeyringVersion != 2 || len(m.Deployments[0].BundleKey) == 0 {
			t.Errorf("manifest %+v", m)
		}
	}
	if subject(t, s) != "take keyring version 2" {
		t.Errorf("subject %q", subject(t, s))
	}
	w.must(s.Close())

	cfg.Retired[0].Stolen = true
	s, err = gitstore.Open(cfg)
	w.must(err)
	if state, _ := signedBy(s, issued); state != gitstore.SignedByElse {
		t.Errorf("commit of a stolen key: %s", state)
	}
	if _, err := s.OpenIssued(t.Context(), issued, "wild"); err != nil {
		t.Errorf("open the copy of a stolen key: %v", err)
	}
	w.must(s.Close())

	cfg.Retired, cfg.RetiredEscrow = nil, nil
	s, err = gitstore.Open(cfg)
	w.must(err)
	defer func() { w.must(s.Close()) }()
	if _, err := s.OpenIssued(t.Context(), issued, "wild"); !errors.Is(err, seal.ErrNotForUs) {
		t.Errorf("opened without the former key: %v", err)
	}
}
