package gitstore_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// publish publishes one state and fails the test if the server is not served.
func publish(tb testing.TB, s *gitstore.Store, state gitstore.ServerState) gitstore.Published {
	tb.Helper()
	got, err := s.Publish(tb.Context(), snapshot(tb, s).Commit, []gitstore.ServerState{state})
	if err != nil {
		tb.Fatal(err)
	}
	if got[0].Err != nil {
		tb.Fatal(got[0].Err)
	}
	return got[0]
}

func want(certificate string, b *bundle.Bundle) gitstore.Wanted {
	return gitstore.Wanted{Certificate: certificate, Deployer: "nginx", Target: "default", Bundle: b}
}

// checkBranch checks a server's branch as its agent would, and returns the manifest.
func checkBranch(tb testing.TB, w *world, s *gitstore.Store, server string, key *seal.PrivateKey) *manifest.Manifest {
	tb.Helper()
	tip, err := s.ServerTip(server)
	w.must(err)
	h, err := gitrepo.ParseHash(tip.Commit)
	w.must(err)
	files := map[string][]byte{}
	w.must(s.Repo().Walk(h, "", func(path string, data []byte) error {
		files[path] = data
		return nil
	}))
	hub, root := []*seal.PublicKey{w.hub.Public()}, []*seal.PublicKey{w.root.Public()}
	if _, err := seal.Verify(manifest.SignatureDomain, files[manifest.File], files[manifest.SignatureFile], hub, w.clock()); err != nil {
		tb.Errorf("manifest of %s: %v", server, err)
	}
	if _, err := seal.Verify(manifest.KeyringSignatureDomain, files[manifest.KeyringFile], files[manifest.KeyringSigFile], root, w.clock()); err != nil {
		tb.Errorf("keyring of %s: %v", server, err)
	}
	c, err := s.Repo().Commit(h)
	w.must(err)
	if _, err := seal.Verify("", c.Payload, []byte(c.Signature), hub, w.clock()); err != nil {
		tb.Errorf("commit of %s: %v", server, err)
	}
	m, err := manifest.Decode(files[manifest.File])
	w.must(err)
	if m.Server != server || m.RepoID != repoID || m.ServerKeyFpr != key.Fingerprint() || !m.FreshUntil.Equal(m.IssuedAt.Add(7*24*time.Hour)) {
		tb.Errorf("manifest %+v", m)
	}
	bundles := map[string]bool{}
	for _, d := range m.Deployments {
		bundles[d.Bundle] = true
		data := files[d.Bundle]
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d.BundleSHA256 || int64(len(data)) != d.BundleSize {
			tb.Errorf("bundle %s is not the one of the manifest", d.Bundle)
		}
		want := bundle.Header{Certificate: d.Certificate, Server: server, LeafSHA256: d.LeafSHA256}
		plain, err := seal.Open(data, key, hub, w.clock())
		if len(d.BundleKey) > 0 {
			want.Server = ""
			plain, err = seal.OpenShared(d.BundleKey, data, key, hub, w.clock())
		}
		if err != nil {
			tb.Errorf("open %s: %v", d.Bundle, err)
			continue
		}
		header, b, err := bundle.Decode(plain)
		w.must(err)
		if header != want {
			tb.Errorf("header %+v", header)
		}
		if err := b.Check(d.Names, w.clock()); err != nil {
			tb.Errorf("bundle %s: %v", d.Bundle, err)
		}
	}
	if len(files) != 4+len(bundles) {
		tb.Errorf("%s holds %d files for %d bundles", server, len(files), len(bundles))
	}
	checkChain(tb, s, server)
	return m
}

// checkChain checks that generations and hashes of manifests follow each other.
func checkChain(tb testing.TB, s *gitstore.Store, server string) {
	tb.Helper()
	history, err := s.ServerHistory(server, 0)
	if err != nil {
		tb.Fatal(err)
	}
	for i, c := range history {
		if c.Manifest.Generation != uint64(len(history)-i) {
			tb.Errorf("commit %d of %s has generation %d", i, server, c.Manifest.Generation)
		}
		if i == len(history)-1 {
			continue
		}
		data, err := s.Repo().ReadFile(history[i+1].Hash, manifest.File)
		if err != nil {
			tb.Fatal(err)
		}
		if sum := sha256.Sum256(data); c.Manifest.PrevManifestSHA256 != hex.EncodeToString(sum[:]) {
			tb.Errorf("generation %d does not name its predecessor", c.Manifest.Generation)
		}
	}
}

// subject returns the newest subject on the branch of web-1.
func subject(tb testing.TB, s *gitstore.Store) string {
	tb.Helper()
	history, err := s.ServerHistory("web-1", 1)
	if err != nil {
		tb.Fatal(err)
	}
	line, _, _ := strings.Cut(history[0].Message, "\n")
	return line
}

// TestPublishLife follows one server from its first commit.
func TestPublishLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	key := w.key("web-1")
	state := gitstore.ServerState{Server: "web-1", Key: key.Public()}
	step := func(generation uint64, wantSubject string) *manifest.Manifest {
		t.Helper()
		before, _ := s.ServerTip("web-1")
		got := publish(t, s, state)
		m := checkBranch(t, w, s, "web-1", key)
		tip, err := s.ServerTip("web-1")
		w.must(err)
		changed := before == nil || before.Commit != tip.Commit
		if got.Generation != generation || m.Generation != generation || got.Commit != tip.Commit || got.Changed != changed {
			t.Errorf("published %+v, want generation %d", got, generation)
		}
		if changed && subject(t, s) != wantSubject {
			t.Errorf("subject %q, want %q", subject(t, s), wantSubject)
		}
		again := publish(t, s, state)
		if again.Changed || again.Commit != got.Commit || again.Generation != generation {
			t.Errorf("the second time something changed: %+v", again)
		}
		w.pass(time.Minute)
		return m
	}
	leaf := func(b *bundle.Bundle) string {
		return b.LeafSHA256()[:6] + "… until " + b.Leaf.NotAfter.Format("2006-01-02")
	}

	step(1, "begin without certificates")
	a1, b1 := w.bundle(60, "a.example.com"), w.bundle(60, "b.example.com")
	state.Deployments = []gitstore.Wanted{want("a", a1)}
	step(2, "deploy a: leaf "+leaf(a1))
	state.Deployments = append(state.Deployments, want("b", b1))
	first := step(3, "deploy b: leaf "+leaf(b1))
	if first.Deployments[0].Certificate != "a" || first.Deployments[1].Certificate != "b" {
		t.Error("deployments are not sorted")
	}
	a2 := w.bundle(90, "a.example.com")
	state.Deployments[0].Bundle = a2
	second := step(4, "deploy a: leaf "+leaf(a2))
	if second.Deployments[1].BundleSHA256 != first.Deployments[1].BundleSHA256 {
		t.Error("the bundle of b was sealed again although nothing about it changed")
	}
	state.Deployments = append(state.Deployments, gitstore.Wanted{Certificate: "a", Deployer: "files", Target: "default", Bundle: a2})
	two := step(5, "deploy a: leaf "+leaf(a2))
	if len(two.Deployments) != 3 || two.Deployments[0].BundleSHA256 != two.Deployments[1].BundleSHA256 {
		t.Error("two targets of one certificate do not share its bundle")
	}
	state.Deployments = state.Deployments[:2]
	step(6, "change targets")
	w.pass(25 * time.Hour)
	fresh := step(7, "refresh")
	if fresh.Deployments[0].BundleSHA256 != two.Deployments[0].BundleSHA256 {
		t.Error("a refresh sealed a bundle again")
	}
	key = w.key("web-1, new")
	state.Key = key.Public()
	step(8, "seal to key "+key.Fingerprint())
	w.must(s.Close())
	s = w.open(2)
	step(9, "take keyring version 2")
	state.Deployments[0].Bundle, state.Deployments[1].Bundle = w.bundle(91, "a.example.com"), w.bundle(91, "b.example.com")
	step(10, "deploy 2 certificates")
	state.Deployments = state.Deployments[:1]
	step(11, "remove b")
	state.Deployments = nil
	step(12, "remove a")
	state.Deployments = []gitstore.Wanted{want("a", a2), want("b", b1)}
	state.Subject = "as the operator said"
	step(13, "as the operator said")
	state.Subject, state.Deployments = "", nil
	step(14, "remove 2 certificates")
}

// TestPublishHoldsAndResumes rolls a server back by hand, changes its key meanwhile, and resumes.
func TestPublishHoldsAndResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	key := w.key("web-1")
	old, renewed := w.bundle(60, "a.example.com"), w.bundle(90, "a.example.com")
	state := gitstore.ServerState{Server: "web-1", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", old)}}
	issue(t, s, "a", old)
	good := publish(t, s, state)
	issue(t, s, "a", renewed)
	state.Deployments = []gitstore.Wanted{want("a", renewed)}
	publish(t, s, state)

	hold := gitstore.ServerState{Server: "web-1", Key: key.Public(), Deployments: state.Deployments, HoldCommit: good.Commit, Actor: ada}
	held := publish(t, s, hold)
	m := checkBranch(t, w, s, "web-1", key)
	if !held.Changed || held.Generation != 3 || m.Deployments[0].LeafSHA256 != old.LeafSHA256() || !m.Deployments[0].StepBack {
		t.Errorf("held: %+v, %+v", held, m.Deployments)
	}
	if got := subject(t, s); got != "hold at "+good.Commit[:7] {
		t.Errorf("subject %q", got)
	}
	if again := publish(t, s, hold); again.Changed {
		t.Error("holding again made another commit")
	}
	w.pass(25 * time.Hour)
	publish(t, s, hold)
	m = checkBranch(t, w, s, "web-1", key)
	if got := subject(t, s); got != "refresh" || !m.Deployments[0].StepBack {
		t.Errorf("refreshed while held: %q, step back %v", got, m.Deployments[0].StepBack)
	}
	// The server gets a new key while it is held: the bundle comes from the hub's own copy.
	key = w.key("web-1, new")
	hold.Key, state.Key = key.Public(), key.Public()
	publish(t, s, hold)
	m = checkBranch(t, w, s, "web-1", key)
	if m.Deployments[0].LeafSHA256 != old.LeafSHA256() {
		t.Error("another leaf after the change of keys")
	}
	publish(t, s, state)
	m = checkBranch(t, w, s, "web-1", key)
	if got := subject(t, s); got != "resume" || m.Deployments[0].LeafSHA256 != renewed.LeafSHA256() || m.Deployments[0].StepBack {
		t.Errorf("resumed: %q, %+v", got, m.Deployments)
	}
}

// TestPublishStepBackOfACertificate follows the mark of a step back.
func TestPublishStepBackOfACertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	key := w.key("web-1")
	old, renewed := w.bundle(60, "a.example.com"), w.bundle(90, "a.example.com")
	state := func(b *bundle.Bundle, back bool) gitstore.ServerState {
		d := want("a", b)
		d.StepBack = back
		return gitstore.ServerState{Server: "web-1", Key: key.Public(), Deployments: []gitstore.Wanted{d}}
	}
	for _, tt := range []struct {
		bundle              *bundle.Bundle
		back, changed, mark bool
	}{
		{old, false, true, false},
		{renewed, false, true, false},
		{old, true, true, true},
		{old, false, false, true}, // the mark stays with the leaf
		{renewed, false, true, false},
		{renewed, true, true, true}, // a mark that comes later is news
	} {
		got := publish(t, s, state(tt.bundle, tt.back))
		m := checkBranch(t, w, s, "web-1", key)
		if got.Changed != tt.changed || m.Deployments[0].StepBack != tt.mark {
			t.Errorf("generation %d: changed %v, step back %v; want %v, %v", m.Generation, got.Changed, m.Deployments[0].StepBack, tt.changed, tt.mark)
		}
	}
	history, err := s.ServerHistory("web-1", 0)
	w.must(err)
	if line, _, _ := strings.Cut(history[2].Message, "\n"); !strings.HasPrefix(line, "step back to a: leaf ") {
		t.Errorf("subject %q", line)
	}
}

// TestPublishKeepsFaultsApart mixes two good servers with one of each fault.
func TestPublishKeepsFaultsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	main := snapshot(t, s).Commit
	b := w.bundle(60, "a.example.com")
	key := w.key("server")
	publish(t, s, gitstore.ServerState{Server: "other", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", b)}})
	foreign, err := s.ServerTip("other")
	w.must(err)
	publish(t, s, gitstore.ServerState{Server: "held", Key: key.Public()})
	second := w.bundle(60, "a.example.com")
	broken := s.Repo()
	if _, err := broken.Apply(t.Context(), []gitrepo.Update{{
		Ref: manifest.ServerBranch("broken"), Message: "x", Author: gitrepo.Person{Name: "x"}, Committer: gitrepo.Person{Name: "x"},
		Edits: []gitrepo.Edit{{Path: "manifest.json", Data: []byte("{}")}},
	}}, nil); err != nil {
		t.Fatal(err)
	}
	keyless := &bundle.Bundle{Leaf: b.Leaf, Chain: b.Chain}
	states := []gitstore.ServerState{
		{Server: "good-1", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", b)}},
		{Server: "../x", Key: key.Public()},
		{Server: "no-key"},
		{Server: "no-private-key", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", keyless)}},
		{Server: "no-bundle", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", nil)}},
		{Server: "two-leaves", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", b), {Certificate: "a", Deployer: "files", Target: "x", Bundle: second}}},
		{Server: "bad-target", Key: key.Public(), Deployments: []gitstore.Wanted{{Certificate: "a", Deployer: "nginx", Target: "../x", Bundle: b}}},
		{Server: "held", Key: key.Public(), HoldCommit: foreign.Commit},
		{Server: "new", Key: key.Public(), HoldCommit: foreign.Commit},
		{Server: "bad-hold", Key: key.Public(), HoldCommit: "x"},
		{Server: "unknown-hold", Key: key.Public(), HoldCommit: strings.Repeat("0", 39) + "1"},
		{Server: "main-hold", Key: key.Public(), HoldCommit: main},
		{Server: "broken", Key: key.Public()},
		{Server: "good-1", Key: key.Public()},
		{Server: "good-2", Key: key.Public(), Deployments: []gitstore.Wanted{want("a", b)}},
	}
	got, err := s.Publish(t.Context(), main, states)
	w.must(err)
	for i, p := range got {
		good := i == 0 || i == len(got)-1
		if p.Server != states[i].Server || good != (p.Err == nil) || good != p.Changed || good == (p.Commit == "") {
			t.Errorf("%s: %+v", states[i].Server, p)
		}
	}
	for _, i := range []int{7, 8, 10, 11} {
		if !errors.Is(got[i].Err, fs.ErrNotExist) {
			t.Errorf("%s: %v", got[i].Server, got[i].Err)
		}
	}
	checkBranch(t, w, s, "good-1", key)
	checkBranch(t, w, s, "good-2", key)
	for _, name := range []string{"", "x", strings.Repeat("0", 39) + "1"} {
		if _, err := s.Publish(t.Context(), name, states); err == nil {
			t.Errorf("published from main commit %q", name)
		}
	}
}

// TestPublishManyServersAtOnce publishes to many servers and expects one move of references.
func TestPublishManyServersAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	b := w.bundle(60, "a.example.com")
	key := w.key("server")
	var states []gitstore.ServerState
	for i := range 60 {
		states = append(states, gitstore.ServerState{
			Server: fmt.Sprintf("web-%d", i), Key: key.Public(), Deployments: []gitstore.Wanted{want("a", b)},
		})
	}
	seq := s.Repo().RefSeq()
	got, err := s.Publish(t.Context(), snapshot(t, s).Commit, states)
	w.must(err)
	if s.Repo().RefSeq() != seq+1 {
		t.Errorf("references moved %d times", s.Repo().RefSeq()-seq)
	}
	commits := map[string]bool{}
	for i, p := range got {
		commits[p.Commit] = true
		checkBranch(t, w, s, states[i].Server, key)
	}
	if len(commits) != len(states) {
		t.Error("servers share commits")
	}
	again, err := s.Publish(t.Context(), snapshot(t, s).Commit, states)
	w.must(err)
	if slices.ContainsFunc(again, func(p gitstore.Published) bool { return p.Changed }) || s.Repo().RefSeq() != seq+1 {
		t.Error("publishing again changed something")
	}
}

// TestHistory asks for the commits of one certificate among others.
func TestHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	one := apply(t, s, "add a", certificateYAML(t, "a", "a.example.com"))
	apply(t, s, "add b", certificateYAML(t, "b", "b.example.com"))
	two := issue(t, s, "a", w.bundle(60, "a.example.com"))
	apply(t, s, "add server", serverYAML(t, "web-1", map[string]string{"role": "edge"}))
	three := apply(t, s, "change a", certificateYAML(t, "a", "a.example.com", "www.example.com"))
	history, err := s.CertificateHistory("a", 0)
	w.must(err)
	var got []string
	for _, c := range history {
		got = append(got, c.Hash.String())
	}
	if !slices.Equal(got, []string{three, two, one}) {
		t.Errorf("history %v", got)
	}
	if history, err := s.CertificateHistory("a", 2); err != nil || len(history) != 2 {
		t.Errorf("two commits: %v, %v", history, err)
	}
	if history, err := s.CertificateHistory("unknown", 0); err != nil || len(history) != 0 {
		t.Errorf("unknown certificate: %v, %v", history, err)
	}
	if _, err := s.CertificateHistory("../x", 0); err == nil {
		t.Error("bad name taken")
	}
	if _, err := s.ServerHistory("web-1", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("server without a branch: %v", err)
	}
	if _, err := s.ServerTip("../x"); err == nil {
		t.Error("bad server name taken")
	}
}
