package gitstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// TestOpenRefusesABadConfiguration leaves out or twists one setting at a time.
func TestOpenRefusesABadConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tests := map[string]func(c *gitstore.Config){
		"no clock":         func(c *gitstore.Config) { c.Now = nil },
		"no repository id": func(c *gitstore.Config) { c.RepoID = "" },
		"other repository": func(c *gitstore.Config) { c.RepoID = "repo-2" },
		"no hub key":       func(c *gitstore.Config) { c.Hub = nil },
		"no escrow key":    func(c *gitstore.Config) { c.Escrow = nil },
		"no keyring":       func(c *gitstore.Config) { c.Keyring = nil },
		"unsigned keyring": func(c *gitstore.Config) { c.KeyringSig = nil },
		"hub not in it":    func(c *gitstore.Config) { c.Hub = w.key("stranger") },
		"no committer":     func(c *gitstore.Config) { c.Committer.Name = "" },
		"no folder":        func(c *gitstore.Config) { c.Dir = "/dev/null/x" },
		"wrong fingerprint": func(c *gitstore.Config) {
			c.Keyring = []byte(strings.Replace(string(c.Keyring), w.hub.Fingerprint(), strings.Repeat("A", 40), 1))
		},
		"damaged key": func(c *gitstore.Config) {
			c.Keyring = []byte(strings.Replace(string(c.Keyring), "BEGIN PGP", "BEGIN PGQ", 1))
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			c := w.config(1)
			change(&c)
			if s, err := gitstore.Open(c); err == nil {
				t.Error("opened")
				_ = s.Close()
			}
		})
	}
}

// TestSnapshotFollowsMain changes main and looks at what is decoded again.
func TestSnapshotFollowsMain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	first := snapshot(t, s)
	if len(first.Certificates)+len(first.Servers)+len(first.Issuers)+len(first.Issued)+len(first.Faults) != 0 || first.Commit == "" {
		t.Errorf("first snapshot: %+v", first)
	}
	apply(t, s, "add certificate a", certificateYAML(t, "a", "a.example.com"), issuerYAML(t, "internal"), serverYAML(t, "web-1", nil))
	issue(t, s, "a", w.bundle(90, "a.example.com"))
	one := snapshot(t, s)
	commit := apply(t, s, "add certificate b", certificateYAML(t, "b", "b.example.com"))
	issue(t, s, "b", w.bundle(90, "b.example.com"))
	two := snapshot(t, s)
	if two != snapshot(t, s) {
		t.Error("the snapshot was made twice for one commit")
	}
	if got := slices.Sorted(maps.Keys(two.Certificates)); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("certificates %v", got)
	}
	if two.Certificates["b"].Names[0] != "b.example.com" || two.Servers["web-1"] == nil || two.Issuers["internal"].Type != "privateca" {
		t.Errorf("snapshot %+v", two)
	}
	if two.Certificates["a"] != one.Certificates["a"] || two.Issued["a"] != one.Issued["a"] || two.Servers["web-1"] != one.Servers["web-1"] {
		t.Error("what did not change was decoded again")
	}
	if len(one.Certificates) != 1 || len(one.Issued) != 1 {
		t.Error("an older snapshot changed")
	}
	if two.Commit == commit || len(two.Faults) != 0 {
		t.Errorf("commit %s, faults %v", two.Commit, two.Faults)
	}
	apply(t, s, "remove certificate a", gitrepo.Edit{Path: manifest.CertificatePath("a"), Delete: true})
	if _, ok := snapshot(t, s).Certificates["a"]; ok {
		t.Error("a is still there")
	}
}

// TestSnapshotReportsFaultsAndGoesOn puts every kind of rubbish on main.
func TestSnapshotReportsFaultsAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "add certificate a", certificateYAML(t, "a", "a.example.com"))
	issue(t, s, "a", w.bundle(90, "a.example.com"))
	good := certificateYAML(t, "b", "b.example.com").Data
	bad := map[string]string{
		"certificates/bad.yaml":                            "kind: [",
		"certificates/other.yaml":                          string(good),
		"certificates/notes.txt":                           "x",
		"certificates/deep/x.yaml":                         string(good),
		"servers/bad.yaml":                                 "{}",
		"issuers/bad.yaml":                                 "apiVersion: certferry/v9",
		"issued/file":                                      "x",
		"issued/00/zzz/certificate.yaml":                   "x",
		manifest.IssuedDir("c") + "/x":                     "x",
		manifest.IssuedDir("d") + "/" + "certificate.yaml": "name: d",
		"elsewhere/x":                                      "x",
		"stray.txt":                                        "x",
	}
	head, _ := s.Repo().Ref(manifest.MainBranch)
	u := gitrepo.Update{
		Ref: manifest.MainBranch, Base: head, Parents: []gitrepo.Hash{head}, Message: "pushed by somebody",
		Author: gitrepo.Person{Name: "x"}, Committer: gitrepo.Person{Name: "x"},
	}
	for path, text := range bad {
		u.Edits = append(u.Edits, gitrepo.Edit{Path: path, Data: []byte(text)})
	}
	if _, err := s.Repo().Apply(t.Context(), []gitrepo.Update{u}, nil); err != nil {
		t.Fatal(err)
	}
	snap := snapshot(t, s)
	var got []string
	for _, f := range snap.Faults {
		if f.Err == nil {
			t.Errorf("%s has no error", f.Path)
		}
		got = append(got, f.Path)
	}
	want := []string{
		"certificates/bad.yaml", "certificates/deep", "certificates/notes.txt", "certificates/other.yaml", "elsewhere",
		"issued/00/zzz", manifest.IssuedDir("c"), manifest.IssuedDir("d"), "issued/file", "issuers/bad.yaml", "servers/bad.yaml", "stray.txt",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if len(snap.Certificates) != 1 || len(snap.Issued) != 1 || len(snap.Servers) != 0 {
		t.Errorf("the good files: %v, %v", snap.Certificates, snap.Issued)
	}
}

// TestApplyMergesAndDetectsConflicts edits what somebody else edited, and what nobody did.
func TestApplyMergesAndDetectsConflicts(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open(1)
	base := apply(t, s, "add a and b", certificateYAML(t, "a", "a.example.com"), certificateYAML(t, "b", "b.example.com"))
	theirs := apply(t, s, "change a", certificateYAML(t, "a", "a.example.com", "www.example.com"))
	change := func(expect string, edits ...gitrepo.Edit) (string, error) {
		return s.Apply(t.Context(), gitstore.Change{Subject: "change", Actor: ada, Expect: expect, Edits: edits})
	}
	if _, err := change(base, certificateYAML(t, "a", "mine.example.com")); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("edit of a changed file: %v", err)
	}
	if _, err := change(base, gitrepo.Edit{Path: manifest.CertificatePath("a"), Delete: true}); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("removal of a changed file: %v", err)
	}
	if got := snapshot(t, s).Commit; got != theirs {
		t.Errorf("main is at %s", got)
	}
	if _, err := change(base, certificateYAML(t, "b", "mine.example.com")); err != nil {
		t.Errorf("edit of another file: %v", err)
	}
	snap := snapshot(t, s)
	if len(snap.Certificates["a"].Names) != 2 || snap.Certificates["b"].Names[0] != "mine.example.com" {
		t.Error("the changes were not merged")
	}
	if _, err := change(base, certificateYAML(t, "c", "c.example.com")); err != nil {
		t.Errorf("new file: %v", err)
	}
	if _, err := change(base, certificateYAML(t, "c", "other.example.com")); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("a file that somebody else made: %v", err)
	}
	if _, err := change("", certificateYAML(t, "a", "mine.example.com")); err != nil {
		t.Errorf("edit of whatever is there: %v", err)
	}
	head := snapshot(t, s).Commit
	same, err := s.Apply(t.Context(), gitstore.Change{
		Subject: "nothing", Edits: []gitrepo.Edit{certificateYAML(t, "a", "mine.example.com")},
		BeforeRef: func(string) error { return errors.New("must not be called") },
	})
	if err != nil || same != head {
		t.Errorf("an edit that changes nothing: %s, %v", same, err)
	}
}

// TestApplyRefuses tries changes that break a rule and expects that main stays.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open(1)
	head := snapshot(t, s).Commit
	good := certificateYAML(t, "a", "a.example.com")
	no := errors.New("database is full")
	edit := func(path, text string) gitstore.Change {
		return gitstore.Change{Subject: "x", Edits: []gitrepo.Edit{{Path: path, Data: []byte(text)}}}
	}
	tests := []struct {
		name   string
		change gitstore.Change
		want   error
	}{
		{"no edits", gitstore.Change{Subject: "x"}, gitstore.ErrInvalid},
		{"no subject", gitstore.Change{Subject: " \x07", Edits: []gitrepo.Edit{good}}, gitstore.ErrInvalid},
		{"long subject", gitstore.Change{Subject: strings.Repeat("x", 300), Edits: []gitrepo.Edit{good}}, gitstore.ErrInvalid},
		{"bad trailer", gitstore.Change{Subject: "x", Trailers: []gitstore.Trailer{{Key: "a b", Value: "c"}}, Edits: []gitrepo.Edit{good}}, gitstore.ErrInvalid},
		{"malformed expectation", gitstore.Change{Subject: "x", Expect: "main", Edits: []gitrepo.Edit{good}}, gitstore.ErrInvalid},
		{"unknown expectation", gitstore.Change{Subject: "x", Expect: strings.Repeat("0", 39) + "1", Edits: []gitrepo.Edit{good}}, fs.ErrNotExist},
		{"bad YAML", edit("certificates/a.yaml", "["), gitstore.ErrInvalid},
		{"other name", edit("certificates/b.yaml", string(good.Data)), gitstore.ErrInvalid},
		{"bad name", edit("certificates/A.yaml", string(good.Data)), gitstore.ErrInvalid},
		{"no YAML", edit("certificates/a.txt", string(good.Data)), gitstore.ErrInvalid},
		{"walk up", edit("certificates/../a.yaml", string(good.Data)), gitstore.ErrInvalid},
		{"bad server", edit("servers/a.yaml", "["), gitstore.ErrInvalid},
		{"bad issuer", edit("issuers/a.yaml", "["), gitstore.ErrInvalid},
		{"elsewhere", edit("x/a.yaml", "x"), gitstore.ErrInvalid},
		{"issued in a wrong folder", edit("issued/00/a/chain.pem", "x"), gitstore.ErrInvalid},
		{"issued, unknown file", edit(manifest.IssuedDir("a")+"/x", "x"), gitstore.ErrInvalid},
		{"issued, bad document", edit(manifest.IssuedDir("a")+"/certificate.yaml", "x"), gitstore.ErrInvalid},
		{"issued, bad chain", edit(manifest.IssuedDir("a")+"/chain.pem", "x"), gitstore.ErrInvalid},
		{"issued, too short", edit("issued/00", "x"), gitstore.ErrInvalid},
		{"remove what is not there", gitstore.Change{Subject: "x", Edits: []gitrepo.Edit{{Path: "certificates/a.yaml", Delete: true}}}, fs.ErrNotExist},
		{"edited twice", gitstore.Change{Subject: "x", Edits: []gitrepo.Edit{good, good}}, gitstore.ErrInvalid},
		{"recording fails", gitstore.Change{Subject: "x", Edits: []gitrepo.Edit{good}, BeforeRef: func(string) error { return no }}, no},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Apply(t.Context(), tt.change); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if got := snapshot(t, s).Commit; got != head {
		t.Error("main moved")
	}
}

// TestApplyRecordsBeforeMainMoves checks the order on which the outbox relies.
func TestApplyRecordsBeforeMainMoves(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open(1)
	head := snapshot(t, s).Commit
	var recorded string
	commit, err := s.Apply(t.Context(), gitstore.Change{
		Subject: "add a", Edits: []gitrepo.Edit{certificateYAML(t, "a", "a.example.com")},
		BeforeRef: func(c string) error {
			if snapshot(t, s).Commit != head {
				t.Error("main moved before the commit was recorded")
			}
			recorded = c
			return nil
		},
	})
	if err != nil || recorded != commit {
		t.Errorf("recorded %s, made %s, %v", recorded, commit, err)
	}
}

// TestConcurrentChangesAllArrive changes main from many goroutines that all started from one commit.
func TestConcurrentChangesAllArrive(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open(1)
	var wg sync.WaitGroup
	base := snapshot(t, s).Commit
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				name := fmt.Sprintf("c-%d-%d", i, j)
				_, err := s.Apply(t.Context(), gitstore.Change{Subject: "add " + name, Expect: base, Edits: []gitrepo.Edit{certificateYAML(t, name, name+".example.com")}})
				if err != nil {
					t.Error(err)
				}
				if _, err := s.Snapshot(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(snapshot(t, s).Certificates); n != 40 {
		t.Errorf("%d of 40 changes arrived", n)
	}
}

// TestIssuedRoundTrip opens each version of a certificate that was issued twice.
func TestIssuedRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	old := w.bundle(60, "example.com", "www.example.com")
	first := issue(t, s, "example.com", old)
	renewed := w.bundle(90, "example.com", "www.example.com")
	second := issue(t, s, "example.com", renewed)
	for commit, want := range map[string]*bundle.Bundle{first: old, second: renewed} {
		got, err := s.OpenIssued(t.Context(), commit, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		if got.LeafSHA256() != want.LeafSHA256() || got.Key == nil || len(got.Chain) != 1 {
			t.Errorf("bundle of %s is not the one that was put there", commit)
		}
		d, err := s.IssuedAt(commit, "example.com")
		if err != nil || d.LeafSHA256 != want.LeafSHA256() || !d.NotAfter.Equal(want.Leaf.NotAfter) || d.Serial != fmt.Sprintf("%06x", want.Leaf.SerialNumber) {
			t.Errorf("document %+v, %v", d, err)
		}
	}
	for name, err := range map[string]error{
		"unknown certificate": func() error { _, err := s.OpenIssued(t.Context(), second, "other"); return err }(),
		"bad commit":          func() error { _, err := s.OpenIssued(t.Context(), "x", "example.com"); return err }(),
		"bad name":            func() error { _, err := s.IssuedAt(second, "../x"); return err }(),
		"bad commit again":    func() error { _, err := s.IssuedAt("x", "example.com"); return err }(),
		"no key": func() error {
			_, err := s.PutIssued(t.Context(), gitstore.Issue{Certificate: "x", Bundle: &bundle.Bundle{Leaf: old.Leaf}})
			return err
		}(),
		"bad object name": func() error {
			_, err := s.PutIssued(t.Context(), gitstore.Issue{Certificate: "X", Bundle: old})
			return err
		}(),
		"no issuer": func() error {
			_, err := s.PutIssued(t.Context(), gitstore.Issue{Certificate: "x", Bundle: old})
			return err
		}(),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestOpenIssuedRefusesASwappedBundle moves a bundle to another certificate, and forges one.
func TestOpenIssuedRefusesASwappedBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	issue(t, s, "a", w.bundle(60, "a.example.com"))
	commit := issue(t, s, "b", w.bundle(60, "b.example.com"))
	h, err := gitrepo.ParseHash(commit)
	w.must(err)
	foreign, err := s.Repo().ReadFile(h, manifest.IssuedDir("a")+"/bundle.pgp")
	w.must(err)
	commit = apply(t, s, "swap", gitrepo.Edit{Path: manifest.IssuedDir("b") + "/bundle.pgp", Data: foreign})
	if _, err := s.OpenIssued(t.Context(), commit, "b"); !errors.Is(err, gitrepo.ErrCorrupt) {
		t.Errorf("swapped bundle: %v", err)
	}
	stranger := w.key("stranger")
	forged, err := seal.Seal([]byte("x"), w.escrow.Public(), stranger, start)
	w.must(err)
	commit = apply(t, s, "forge", gitrepo.Edit{Path: manifest.IssuedDir("b") + "/bundle.pgp", Data: forged})
	if _, err := s.OpenIssued(t.Context(), commit, "b"); err == nil {
		t.Error("a bundle signed by a stranger was opened")
	}
}

// TestIssueWith finds the commit that holds an issue, and says so where there is none.
func TestIssueWith(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	one, two := w.bundle(30, "a.test"), w.bundle(60, "a.test")
	first := issue(t, s, "a", one)
	apply(t, s, "something else", certificateYAML(t, "b", "b.test"))
	between := snapshot(t, s).Commit
	second := issue(t, s, "a", two)
	for leaf, want := range map[string]string{one.LeafSHA256(): between, two.LeafSHA256(): second} {
		commit, issued, err := s.IssueWith("a", leaf)
		if err != nil || commit != want || issued.LeafSHA256 != leaf {
			t.Errorf("got %s, %v, want %s (first %s)", commit, err, want, first)
		}
	}
	if _, _, err := s.IssueWith("a", "beef"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.IssueWith("b", one.LeafSHA256()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
