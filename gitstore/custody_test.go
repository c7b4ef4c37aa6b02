package gitstore_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// onServer is an issue whose key is on web-1.
func onServer(b *bundle.Bundle) gitstore.Issue {
	return gitstore.Issue{Certificate: "a", Bundle: &bundle.Bundle{Leaf: b.Leaf, Chain: b.Chain}, Issued: manifest.IssuedCertificate{
		Issuer: "internal", KeyType: "ecdsa-p256", KeyCustody: manifest.CustodyServer, KeyServer: "web-1",
	}}
}

// wantIssue wants main to hold b of certificate a, in the files of its custody and no others.
func wantIssue(t *testing.T, s *gitstore.Store, b *bundle.Bundle, withKey bool) {
	t.Helper()
	commit := snapshot(t, s).Commit
	got, err := s.OpenIssued(t.Context(), commit, "a")
	if err != nil {
		t.Fatal(err)
	}
	if got.LeafSHA256() != b.LeafSHA256() || len(got.Chain) != 1 || (got.Key != nil) != withKey {
		t.Errorf("opened leaf %s, chain of %d, key %v", got.LeafSHA256(), len(got.Chain), got.Key != nil)
	}
	head, err := gitrepo.ParseHash(commit)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := s.Repo().ReadDir(head, manifest.IssuedDir("a"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	want := "certificate.yaml chain.pem leaf.pem"
	if withKey {
		want = "bundle.pgp certificate.yaml chain.pem"
	}
	if got := strings.Join(names, " "); got != want {
		t.Errorf("files %s, want %s", got, want)
	}
}

// TestKeyOnServer goes through the life of a certificate whose key is on its server: no key reaches the repository, and
// the custody may change in both directions.
func TestKeyOnServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	first, second, third := w.bundle(60, "a.example.com"), w.bundle(60, "a.example.com"), w.bundle(60, "a.example.com")
	key := w.key("web-1")
	put := func(issue gitstore.Issue) {
		t.Helper()
		if _, err := s.PutIssued(t.Context(), issue); err != nil {
			t.Fatal(err)
		}
	}
	put(onServer(first))
	wantIssue(t, s, first, false)
	keyless := gitstore.Wanted{Certificate: "a", Deployer: "nginx", Target: "web", Bundle: onServer(first).Bundle, KeyOnServer: true}
	state := gitstore.ServerState{Server: "web-1", Key: key.Public(), Deployments: []gitstore.Wanted{keyless}}
	published := publish(t, s, state)
	wantPublished(t, s, w, key, first, manifest.CustodyServer)
	if again := publish(t, s, state); again.Changed {
		t.Error("the same state was published twice")
	}

	issue(t, s, "a", second)
	wantIssue(t, s, second, true)
	publish(t, s, gitstore.ServerState{Server: "web-1", Key: key.Public(), Deployments: []gitstore.Wanted{
		{Certificate: "a", Deployer: "nginx", Target: "web", Bundle: second},
	}})
	wantPublished(t, s, w, key, second, "")

	// Held at the first state, and sealed anew to another key of the server: the hub has no key to give.
	next := w.key("web-1")
	publish(t, s, gitstore.ServerState{Server: "web-1", Key: next.Public(), HoldCommit: published.Commit})
	wantPublished(t, s, w, next, first, manifest.CustodyServer)

	put(onServer(third))
	wantIssue(t, s, third, false)
	put(onServer(third))
	if faults := snapshot(t, s).Faults; len(faults) > 0 {
		t.Errorf("faults: %v", faults)
	}
}

// wantPublished wants web-1's branch to hold b.
func wantPublished(t *testing.T, s *gitstore.Store, w *world, key *seal.PrivateKey, b *bundle.Bundle, custody string) {
	t.Helper()
	tip, err := s.ServerTip("web-1")
	w.must(err)
	d := tip.Manifest.Deployments[0]
	if d.Key != custody || d.LeafSHA256 != b.LeafSHA256() || d.SPKISHA256 != b.SPKISHA256() {
		t.Errorf("deployment %+v, want leaf %s with the key at %q", d, b.LeafSHA256(), custody)
	}
	head, err := gitrepo.ParseHash(tip.Commit)
	w.must(err)
	sealed, err := s.Repo().ReadFile(head, d.Bundle)
	w.must(err)
	plain, err := seal.Open(sealed, key, []*seal.PublicKey{w.hub.Public()}, w.clock())
	w.must(err)
	_, opened, err := bundle.Decode(plain)
	w.must(err)
	if (opened.Key == nil) != (custody == manifest.CustodyServer) || strings.Contains(string(plain), "PRIVATE KEY") != (custody == "") {
		t.Errorf("the bundle holds a key: %v, want custody %q", opened.Key != nil, custody)
	}
}

func TestKeyOnServerIsProposedAndMerged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	issue(t, s, "a", w.bundle(60, "a.example.com"))
	b := w.bundle(60, "a.example.com")
	_, err := s.Propose(t.Context(), onServer(b))
	w.must(err)
	p, err := s.Proposal("a", "")
	w.must(err)
	_, err = s.MergeProposal(t.Context(), p, gitstore.Change{Subject: "agree"})
	w.must(err)
	wantIssue(t, s, b, false)
}

func TestKeyOnServerRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	b := w.bundle(60, "a.example.com")
	for name, change := range map[string]func(*gitstore.Issue){
		"a key that is on a server": func(i *gitstore.Issue) { i.Bundle = b },
		"no server":                 func(i *gitstore.Issue) { i.Issued.KeyServer = "" },
		"a server for a hub's key":  func(i *gitstore.Issue) { i.Bundle, i.Issued.KeyCustody = b, "" },
		"no key and no custody":     func(i *gitstore.Issue) { i.Issued.KeyCustody, i.Issued.KeyServer = "", "" },
	} {
		issue := onServer(b)
		change(&issue)
		if _, err := s.PutIssued(t.Context(), issue); !errors.Is(err, gitstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := manifest.IssuedDir("a")
	for name, edit := range map[string]gitrepo.Edit{
		"two leaves":   {Path: dir + "/leaf.pem", Data: append(b.LeafPEM(), b.LeafPEM()...)},
		"no leaf":      {Path: dir + "/leaf.pem", Data: []byte("x")},
		"another file": {Path: dir + "/leaf.key", Data: b.LeafPEM()},
	} {
		if _, err := s.Apply(t.Context(), gitstore.Change{Subject: "x", Edits: []gitrepo.Edit{edit}}); !errors.Is(err, gitstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Damage on main is told, and opens nothing.
	if _, err := s.PutIssued(t.Context(), onServer(b)); err != nil {
		t.Fatal(err)
	}
	apply(t, s, "swap", gitrepo.Edit{Path: dir + "/leaf.pem", Data: w.bundle(60, "a.example.com").LeafPEM()})
	if _, err := s.OpenIssued(t.Context(), snapshot(t, s).Commit, "a"); !errors.Is(err, gitrepo.ErrCorrupt) {
		t.Errorf("another leaf: %v", err)
	}
	apply(t, s, "remove", gitrepo.Edit{Path: dir + "/leaf.pem", Delete: true})
	if _, err := s.OpenIssued(t.Context(), snapshot(t, s).Commit, "a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no leaf: %v", err)
	}
}
