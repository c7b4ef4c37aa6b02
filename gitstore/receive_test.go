package gitstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// clone is a person's clone of main, worked on with a stock git.
type clone struct {
	t     *testing.T
	dir   string
	world *world
	store *gitstore.Store
	base  string
}

func newClone(t *testing.T, w *world, s *gitstore.Store) *clone {
	t.Helper()
	c := &clone{t: t, dir: filepath.Join(t.TempDir(), "clone"), world: w, store: s}
	run(t, filepath.Dir(c.dir), nil, "", "git", "clone", "-q", w.dir, c.dir)
	c.base = c.git("rev-parse", "HEAD")
	return c
}

func (c *clone) git(args ...string) string {
	c.t.Helper()
	person := []string{
		"GIT_AUTHOR_NAME=Grace", "GIT_AUTHOR_EMAIL=grace@example.com", "GIT_COMMITTER_NAME=Grace",
		"GIT_COMMITTER_EMAIL=grace@example.com",
	}
	return strings.TrimSpace(run(c.t, c.dir, person, "", "git", args...))
}

// commit writes edits and commits them.
func (c *clone) commit(message string, edits ...gitrepo.Edit) {
	c.t.Helper()
	for _, e := range edits {
		path := filepath.Join(c.dir, e.Path)
		if e.Delete {
			c.git("rm", "-q", e.Path)
			continue
		}
		c.world.must(errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, e.Data, 0o600)))
		c.git("add", e.Path)
	}
	c.git("commit", "-q", "-m", message)
}

// push hands what was committed since the clone to the store.
func (c *clone) push(change func(*gitstore.Push)) (gitstore.Verdict, error) {
	c.t.Helper()
	tip, err := gitrepo.ParseHash(c.git("rev-parse", "HEAD"))
	c.world.must(err)
	pack := filepath.Join(c.t.TempDir(), "pack")
	run(c.t, c.dir, nil, "", "sh", "-c", "printf '%s\\n' HEAD ^"+c.base+" | git pack-objects --revs --thin --stdout -q > "+pack)
	file, err := os.Open(pack)
	c.world.must(err)
	defer func() { _ = file.Close() }()
	in, err := c.store.Repo().ReadIncoming(file, gitrepo.PushLimits)
	c.world.must(err)
	p := gitstore.Push{Incoming: in, Tip: tip}
	if change != nil {
		change(&p)
	}
	return c.store.Receive(c.t.Context(), p)
}

func beside(p *gitstore.Push) { p.Beside = true }

// reasons are the faults of a verdict, one a line.
func reasons(v gitstore.Verdict) string {
	var b strings.Builder
	for _, f := range v.Faults {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}

// TestReceiveFastForward applies what a person pushed on top of main: the commits stay the person's own.
func TestReceiveFastForward(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "add issuer", issuerYAML(t, "internal"), issuerYAML(t, "other"), serverYAML(t, "web-1", nil), serverYAML(t, "web-2", nil))
	c := newClone(t, w, s)
	c.commit("ask for a", certificateYAML(t, "a", "a.test"))
	c.commit("ask for b, drop web-1", certificateYAML(t, "b", "b.test"), gitrepo.Edit{Path: "servers/web-1.yaml", Delete: true})
	recorded := ""
	v, err := c.push(func(p *gitstore.Push) {
		p.Judge = func(before, after *gitstore.Snapshot, commits []*gitrepo.Commit, changes []gitrepo.FileChange) []gitstore.Fault {
			if len(before.Certificates) != 0 || len(after.Certificates) != 2 || len(after.Servers) != 1 || len(commits) != 2 || len(changes) != 3 {
				t.Errorf("judge saw %d and %d certificates, %d commits, %d changes", len(before.Certificates), len(after.Certificates), len(commits), len(changes))
			}
			return nil
		}
		p.BeforeRef = func(commit string) error { recorded = commit; return nil }
	})
	w.must(err)
	head := c.git("rev-parse", "HEAD")
	if !v.Applied || v.Commit != head || recorded != head {
		t.Fatalf("got %+v, recorded %s, want main at %s", v, recorded, head)
	}
	snap := snapshot(t, s)
	if snap.Commit != head || len(snap.Faults) != 0 || snap.Certificates["b"] == nil || snap.Servers["web-1"] != nil || snap.Servers["web-2"] == nil {
		t.Errorf("got %+v", snap)
	}
	again, err := c.push(nil)
	if err != nil || !again.Applied || again.Commit != head {
		t.Errorf("got %+v, %v for a push without anything new", again, err)
	}
	run(t, w.dir, nil, "", "git", "fsck", "--strict", "--no-progress")
}

// TestReceiveRefuses says file, line and reason, and leaves no trace.
func TestReceiveRefuses(t *testing.T) {
	t.Parallel()
	bad := "apiVersion: certferry/v1\nkind: Certificate\nname: a\nnames:\n  - '*'\nissuer: internal\ncolour: red\n"
	for name, tc := range map[string]struct {
		edits []gitrepo.Edit
		want  string
	}{
		"unknown key":     {[]gitrepo.Edit{{Path: "certificates/a.yaml", Data: []byte(bad)}}, "certificates/a.yaml:7: "},
		"other name":      {[]gitrepo.Edit{{Path: "certificates/b.yaml", Data: certificateYAML(t, "a", "a.test").Data}}, "certificates/b.yaml: the name inside differs"},
		"no YAML":         {[]gitrepo.Edit{{Path: "certificates/a.yaml", Data: []byte("\t")}}, "certificates/a.yaml: found character"},
		"other file":      {[]gitrepo.Edit{{Path: "certificates/a.txt", Data: []byte("x")}}, "certificates/a.txt: does not belong here"},
		"other folder":    {[]gitrepo.Edit{{Path: "scripts/run.yaml", Data: []byte("x")}}, "scripts/run.yaml: only the hub writes"},
		"issued":          {[]gitrepo.Edit{{Path: manifest.IssuedDir("a") + "/chain.pem", Data: []byte("x")}}, "chain.pem: only the hub writes"},
		"good beside bad": {[]gitrepo.Edit{certificateYAML(t, "good", "good.test"), {Path: "servers/x.yaml", Data: []byte("{}")}}, "servers/x.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.open(1)
			c := newClone(t, w, s)
			c.commit("change", tc.edits...)
			before := snapshot(t, s).Commit
			v, err := c.push(func(p *gitstore.Push) {
				p.BeforeRef = func(string) error { t.Error("a refused push is recorded as a commit"); return nil }
			})
			w.must(err)
			if v.Applied || v.Commit != before || !strings.Contains(reasons(v), tc.want) {
				t.Errorf("got %+v\n%swant %q", v, reasons(v), tc.want)
			}
			if now := snapshot(t, s).Commit; now != before {
				t.Errorf("main moved to %s", now)
			}
		})
	}
}

// TestReceiveBeside merges by file what people did while the hub committed.
func TestReceiveBeside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	c := newClone(t, w, s)
	c.commit("change a", certificateYAML(t, "a", "a.test", "www.a.test"))
	apply(t, s, "add b", certificateYAML(t, "b", "b.test"))

	if _, err := c.push(nil); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("got %v, want ErrConflict without Beside", err)
	}
	v, err := c.push(beside)
	w.must(err)
	snap := snapshot(t, s)
	if !v.Applied || snap.Commit != v.Commit || len(snap.Certificates["a"].Names) != 2 || snap.Certificates["b"] == nil {
		t.Fatalf("got %+v %s and %+v", v, reasons(v), snap.Certificates)
	}
	theirs := c.git("rev-parse", "HEAD")
	merge, err := s.Commit(v.Commit)
	w.must(err)
	if len(merge.Parents) != 2 || merge.Parents[1].String() != theirs {
		t.Errorf("got parents %v, want theirs second", merge.Parents)
	}
	if state, _ := s.Signature(merge); state != gitstore.SignedByHub {
		t.Errorf("the merge is signed by %s", state)
	}
	commit, err := s.Commit(theirs)
	w.must(err)
	by, refused, ok, err := s.Verdict(commit)
	if err != nil || !ok || refused || by.Hash != merge.Hash {
		t.Errorf("got verdict %v, %v, %v, %v", by, refused, ok, err)
	}
	// What the hub merged is on top of theirs: their clone goes on by a fast-forward.
	run(t, c.dir, nil, "", "git", "pull", "-q", "--ff-only")
	run(t, w.dir, nil, "", "git", "fsck", "--strict", "--no-progress")
}

// TestReceiveBesideConflict keeps both versions when two people changed one file, and says so.
func TestReceiveBesideConflict(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	c := newClone(t, w, s)
	c.commit("change a, add c", certificateYAML(t, "a", "theirs.test"), certificateYAML(t, "c", "c.test"))
	apply(t, s, "change a too", certificateYAML(t, "a", "ours.test"))
	v, err := c.push(beside)
	w.must(err)
	if v.Applied || len(v.Faults) != 1 || !strings.Contains(reasons(v), "certificates/a.yaml: changed by somebody else") {
		t.Fatalf("got %+v %s", v, reasons(v))
	}
	snap := snapshot(t, s)
	if snap.Certificates["a"].Names[0] != "ours.test" || snap.Certificates["c"] != nil {
		t.Errorf("got %+v, want nothing of the refused push", snap.Certificates)
	}
	theirs := c.git("rev-parse", "HEAD")
	commit, err := s.Commit(theirs)
	w.must(err)
	by, refused, ok, err := s.Verdict(commit)
	if err != nil || !ok || !refused || !strings.Contains(by.Message, "git show "+theirs[:7]+":certificates/a.yaml") || by.Hash.String() != v.Commit {
		t.Errorf("got verdict %v, %v, %v, %v", by, refused, ok, err)
	}
	if got := run(t, w.dir, nil, "", "git", "show", theirs+":certificates/a.yaml"); !strings.Contains(got, "theirs.test") {
		t.Errorf("their version is lost: %s", got)
	}
	// The same change on both sides is no conflict.
	d := newClone(t, w, s)
	d.commit("add d", certificateYAML(t, "d", "d.test"))
	apply(t, s, "add d too", certificateYAML(t, "d", "d.test"))
	if v, err := d.push(beside); err != nil || !v.Applied {
		t.Errorf("got %+v %s, %v for the same change twice", v, reasons(v), err)
	}
}

// TestReceiveJudged lets the caller refuse.
func TestReceiveJudged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	c := newClone(t, w, s)
	c.commit("ask for a", certificateYAML(t, "a", "a.test"))
	judge := func(p *gitstore.Push) {
		p.Judge = func(*gitstore.Snapshot, *gitstore.Snapshot, []*gitrepo.Commit, []gitrepo.FileChange) []gitstore.Fault {
			return []gitstore.Fault{{Path: "certificates/a.yaml", Line: 5, Err: errors.New("issuer: no such issuer")}}
		}
	}
	v, err := c.push(judge)
	if err != nil || v.Applied || reasons(v) != "certificates/a.yaml:5: issuer: no such issuer\n" {
		t.Errorf("got %+v, %v", v, err)
	}
	v, err = c.push(func(p *gitstore.Push) { judge(p); p.Beside = true })
	w.must(err)
	refusal, err := s.Commit(v.Commit)
	w.must(err)
	if v.Applied || !strings.HasPrefix(refusal.Message, "refuse "+c.git("rev-parse", "--short=7", "HEAD")+": certificates/a.yaml:5: issuer") {
		t.Errorf("got %+v, %q", v, refusal.Message)
	}
}

// TestReceiveForeignHistory refuses what has nothing in common with main, and what is not complete.
func TestReceiveForeignHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	c := newClone(t, w, s)
	c.git("checkout", "-q", "--orphan", "other")
	c.commit("start anew", certificateYAML(t, "a", "a.test"))
	if _, err := c.push(beside); !errors.Is(err, gitstore.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	d := newClone(t, w, s)
	d.commit("one", certificateYAML(t, "a", "a.test"))
	d.base = d.git("rev-parse", "HEAD")
	d.commit("two", certificateYAML(t, "b", "b.test"))
	if v, err := d.push(nil); err == nil {
		t.Errorf("got %+v for a push whose first commit did not come", v)
	}
}

// TestReceiveProposal accepts issued files only as the hub proposed them, and then the proposal is done.
func TestReceiveProposal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	// What PutIssued writes, on a branch of its own.
	main := snapshot(t, s).Commit
	issue(t, s, "a", w.bundle(60, "a.test"))
	head, _ := s.Repo().Ref(manifest.MainBranch)
	base, err := gitrepo.ParseHash(main)
	w.must(err)
	branch := manifest.ProposalBranch("a", "04ab01")
	_, err = s.Repo().Apply(t.Context(), []gitrepo.Update{{Ref: branch, To: head}, {Ref: manifest.MainBranch, Expect: &head, To: base}}, nil)
	w.must(err)

	part := newClone(t, w, s)
	part.git("checkout", "-q", "origin/proposals/a/04ab01", "--", manifest.IssuedDir("a")+"/chain.pem")
	part.commit("merge a part")
	v, err := part.push(nil)
	if err != nil || v.Applied || !strings.Contains(reasons(v), "must be merged as a whole") {
		t.Errorf("got %+v %s, %v", v, reasons(v), err)
	}
	forged := newClone(t, w, s)
	forged.git("checkout", "-q", "origin/proposals/a/04ab01", "--", manifest.IssuedDir("a"))
	forged.commit("merge and change", gitrepo.Edit{Path: manifest.IssuedDir("a") + "/bundle.pgp", Data: []byte("mine")})
	if v, err := forged.push(nil); err != nil || v.Applied {
		t.Errorf("got %+v %s, %v for a changed proposal", v, reasons(v), err)
	}

	whole := newClone(t, w, s)
	whole.git("merge", "-q", "--no-ff", "-m", "merge proposal", "origin/proposals/a/04ab01")
	v, err = whole.push(nil)
	if err != nil || !v.Applied || len(v.Proposals) != 1 || v.Proposals[0] != branch {
		t.Fatalf("got %+v %s, %v", v, reasons(v), err)
	}
	if _, open := s.Repo().Ref(branch); open || snapshot(t, s).Issued["a"] == nil {
		t.Error("the proposal is still open, or was not merged")
	}
}
