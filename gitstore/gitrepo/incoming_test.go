package gitrepo_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// person is somebody with a clone of the repository and a stock git.
type person struct {
	t    *testing.T
	dir  string
	repo *gitrepo.Repo
}

func newPerson(t *testing.T, repoDir string, repo *gitrepo.Repo) *person {
	t.Helper()
	p := &person{t: t, dir: filepath.Join(t.TempDir(), "clone"), repo: repo}
	runGit(t, filepath.Dir(p.dir), "clone", "-q", repoDir, p.dir)
	return p
}

func (p *person) git(args ...string) string {
	p.t.Helper()
	return strings.TrimSpace(runGit(p.t, p.dir, args...))
}

// commit writes pairs of path and content and commits them; an empty content removes the file.
func (p *person) commit(message string, pairs ...string) gitrepo.Hash {
	p.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		path := filepath.Join(p.dir, pairs[i])
		if pairs[i+1] == "" {
			p.git("rm", "-q", pairs[i])
			continue
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(pairs[i+1]), 0o600)); err != nil {
			p.t.Fatal(err)
		}
		p.git("add", pairs[i])
	}
	p.git("commit", "-q", "-m", message)
	return p.head()
}

func (p *person) head() gitrepo.Hash {
	p.t.Helper()
	h, err := gitrepo.ParseHash(p.git("rev-parse", "HEAD"))
	if err != nil {
		p.t.Fatal(err)
	}
	return h
}

// pack is what git would push: a thin pack of what leads to tip and not to have.
func (p *person) pack(have, tip gitrepo.Hash) []byte {
	p.t.Helper()
	out, err := tryGit(p.t, p.dir, []byte(tip.String()+"\n^"+have.String()+"\n"), "pack-objects", "--revs", "--thin", "--stdout", "-q", "--delta-base-offset")
	if err != nil {
		p.t.Fatal(err)
	}
	return []byte(out)
}

func (p *person) incoming(have, tip gitrepo.Hash) *gitrepo.Incoming {
	p.t.Helper()
	in, err := p.repo.ReadIncoming(bytes.NewReader(p.pack(have, tip)), gitrepo.PushLimits)
	if err != nil {
		p.t.Fatal(err)
	}
	return in
}

// long is a text long enough for git to write its next version as a delta.
var long = strings.Repeat("a line that says nothing new\n", 200)

// TestIncomingIsTaken reads what a stock git packed, thin deltas included, and moves a branch to it.
func TestIncomingIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a/one", long, "b", "b")
	p := newPerson(t, dir, r)
	p.commit("change one", "a/one", long+"more\n")
	tip := p.commit("add two", "a/two", "two", "b", "")
	in := p.incoming(start, tip)

	if in.Len() == 0 {
		t.Fatal("nothing came")
	}
	if _, err := r.Commit(tip); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want the repository not to have the commit yet", err)
	}
	data, err := in.ReadFile(tip, "a/one")
	if err != nil || string(data) != long+"more\n" {
		t.Errorf("got %d bytes, %v, want the new file", len(data), err)
	}
	changes, err := in.Changes(start, tip)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, c := range changes {
		paths = append(paths, c.Path)
	}
	if got := strings.Join(paths, " "); got != "a/one a/two b" || changes[0].Old.IsZero() || !changes[1].Old.IsZero() || !changes[2].New.IsZero() {
		t.Errorf("got changes %+v", changes)
	}
	list, err := in.Between(start, tip)
	if err != nil || len(list) != 2 || list[0].Hash != tip || list[1].Parents[0] != start {
		t.Errorf("got %v, %v, want both commits, the newer first", list, err)
	}
	if base, ok, err := in.MergeBase(start, tip); err != nil || !ok || base != start {
		t.Errorf("got base %s, %v, %v, want %s", base, ok, err, start)
	}

	hashes, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: mainRef, Expect: &start, To: tip, Incoming: in}}, nil)
	if err != nil || hashes[0] != tip {
		t.Fatalf("got %v, %v, want the branch at %s", hashes, err, tip)
	}
	if got := files(t, r, tip, ""); len(got) != 2 || got["a/two"] != "two" {
		t.Errorf("got files %v", got)
	}
	fsck(t, dir)
	closeRepo(t, r)
	again := openRepo(t, dir)
	if h, _ := again.Ref(mainRef); h != tip {
		t.Errorf("got main at %s after opening again, want %s", h, tip)
	}
}

// TestIncomingIsMerged makes a commit of the repository's own on top of what came.
func TestIncomingIsMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a", "a", "b", "b")
	p := newPerson(t, dir, r)
	theirs := p.commit("theirs", "a", "theirs")
	ours := put(t, r, mainRef, "ours", "b", "ours")
	in := p.incoming(start, theirs)
	if base, ok, err := in.MergeBase(ours, theirs); err != nil || !ok || base != start {
		t.Fatalf("got base %s, %v, %v, want %s", base, ok, err, start)
	}
	u := update(r, mainRef, "merge", "a", "theirs")
	u.Parents, u.Incoming = []gitrepo.Hash{ours, theirs}, in
	hashes, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, r, hashes[0], ""); got["a"] != "theirs" || got["b"] != "ours" {
		t.Errorf("got files %v", got)
	}
	between, err := r.Between(ours, hashes[0])
	if err != nil || len(between) != 2 || between[1].Hash != theirs {
		t.Errorf("got %v, %v, want the merge and their commit", between, err)
	}
	fsck(t, dir)
}

// TestIncomingIncomplete refuses commits whose files or parents did not come, and changes nothing.
func TestIncomingIncomplete(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a", "a")
	p := newPerson(t, dir, r)
	first := p.commit("first", "b", "b")
	second := p.commit("second", "c", "c")
	for name, in := range map[string]*gitrepo.Incoming{
		"nothing came":     p.incoming(second, second),
		"a parent is away": p.incoming(first, second),
	} {
		_, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: mainRef, Expect: &start, To: second, Incoming: in}}, nil)
		if !errors.Is(err, gitrepo.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	if h, _ := r.Ref(mainRef); h != start || len(packNames(t, dir)) != 2 {
		t.Errorf("main is at %s with packs %v, want it untouched", h, packNames(t, dir))
	}
}

// TestIncomingForbidden refuses what a stock git may hold and this repository must not.
func TestIncomingForbidden(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a", "a")
	for name, change := range map[string]func(p *person){
		"a link": func(p *person) {
			if err := os.Symlink("/etc/passwd", filepath.Join(p.dir, "link")); err != nil {
				t.Fatal(err)
			}
			p.git("add", "link")
		},
		"a program": func(p *person) {
			if err := os.WriteFile(filepath.Join(p.dir, "run"), []byte("#!/bin/sh\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			p.git("add", "run")
		},
		"a strange name": func(p *person) {
			if err := os.WriteFile(filepath.Join(p.dir, "a b"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			p.git("add", "a b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPerson(t, dir, r)
			change(p)
			p.git("commit", "-q", "-m", name)
			tip := p.head()
			_, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: mainRef, Expect: &start, To: tip, Incoming: p.incoming(start, tip)}}, nil)
			if !errors.Is(err, gitrepo.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
}

// TestIncomingLimits refuses what is too large before it is inflated, and garbage.
func TestIncomingLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a", "a")
	p := newPerson(t, dir, r)
	tip := p.commit("large", "large", strings.Repeat("x", 1<<20))
	pack := p.pack(start, tip)
	small := gitrepo.Limits{PackBytes: 1 << 20, InflatedBytes: 1 << 19, Objects: 100}
	if _, err := r.ReadIncoming(bytes.NewReader(pack), small); !errors.Is(err, gitrepo.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge for what inflates to too much", err)
	}
	small = gitrepo.Limits{PackBytes: 100, InflatedBytes: 1 << 21, Objects: 100}
	if _, err := r.ReadIncoming(bytes.NewReader(pack), small); !errors.Is(err, gitrepo.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge for a large pack", err)
	}
	for name, data := range map[string][]byte{"garbage": []byte("PACK of lies"), "cut off": pack[:len(pack)-30]} {
		if _, err := r.ReadIncoming(bytes.NewReader(data), gitrepo.PushLimits); !errors.Is(err, gitrepo.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
	if in, err := r.ReadIncoming(bytes.NewReader(nil), gitrepo.PushLimits); err != nil || in.Len() != 0 {
		t.Errorf("got %v, %v, want no objects of no bytes", in, err)
	}
}

// TestDeleteRef removes a branch for good, in a batch with others.
func TestDeleteRef(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	start := put(t, r, mainRef, "start", "a", "a")
	put(t, r, "refs/heads/proposals/x/1", "propose", "a", "b")
	seq := r.RefSeq()
	at, _ := r.Ref("refs/heads/proposals/x/1")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: "refs/heads/proposals/x/1", Expect: &start, Delete: true}}, nil); !errors.Is(err, gitrepo.ErrStale) {
		t.Errorf("got %v, want ErrStale", err)
	}
	_, err := r.Apply(t.Context(), []gitrepo.Update{
		{Ref: "refs/heads/proposals/x/1", Expect: &at, Delete: true},
		{Ref: mainRef, Expect: &start, To: at},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Ref("refs/heads/proposals/x/1"); ok || r.RefSeq() == seq {
		t.Error("the branch is still there")
	}
	// Its name is free for what would have collided with it.
	put(t, r, "refs/heads/proposals/x", "other", "a", "c")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: "refs/heads/none", Delete: true}}, nil); !errors.Is(err, gitrepo.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
	closeRepo(t, r)
	again := openRepo(t, dir)
	if refs := again.Refs(); len(refs) != 2 || refs[mainRef] != at {
		t.Errorf("got %v after opening again", refs)
	}
	fsck(t, dir)
}
