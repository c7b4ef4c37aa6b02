package gitrepo_test

import (
	"errors"
	"os"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// TestSwappedObjects puts other objects, valid in themselves, in the place of each that there is. What is at a tip is
// found at start, all else by verify, and reading it fails.
func TestSwappedObjects(t *testing.T) {
	t.Parallel()
	sound := t.TempDir()
	main := seeded(t, sound)
	repo, err := gitrepo.Open(sound, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	victims := map[gitrepo.Hash]string{}
	for _, tip := range repo.Refs() {
		log, err := repo.Log(tip, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range log {
			victims[c.Hash] = "commit"
			collect(t, repo, c.Tree, victims)
		}
	}
	// What takes the place of an object: another of its kind.
	other := map[string][]byte{}
	tip, err := repo.Commit(main)
	if err != nil {
		t.Fatal(err)
	}
	for kind, h := range map[string]gitrepo.Hash{"commit": main, "tree": tip.Tree} {
		if _, other[kind], err = repo.RawObject(h); err != nil {
			t.Fatal(err)
		}
	}
	other["blob"] = []byte("another file\n")
	delete(victims, main)
	delete(victims, tip.Tree)
	closeRepo(t, repo)
	how := map[string]int{}
	for h, kind := range victims {
		dir := t.TempDir()
		if err := errors.Join(os.CopyFS(dir, os.DirFS(sound)), gitrepo.SwapObject(dir, h, kind, other[kind])); err != nil {
			t.Fatal(err)
		}
		r, err := gitrepo.Open(dir, testOptions())
		if errors.Is(err, gitrepo.ErrCorrupt) {
			how["at start"]++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Verify(t.Context()); !errors.Is(err, gitrepo.ErrCorrupt) {
			t.Errorf("%s %s: not found: %v", kind, h, err)
		}
		how["by verify"]++
		mustNotRead(t, r, h, kind)
		if _, err := r.Prune(t.Context(), gitrepo.PruneOptions{}); kind != "blob" && !errors.Is(err, gitrepo.ErrCorrupt) {
			t.Errorf("prune over a swapped %s: %v", kind, err)
		}
		closeRepo(t, r)
	}
	t.Logf("found: %v", how)
	if how["at start"] == 0 || how["by verify"] == 0 {
		t.Error("the swaps were not of both sorts")
	}
	if !t.Failed() {
		t.Logf("FAULT store.swapped-objects tried=%d survived=%d", len(victims), len(victims))
	}
}

func collect(t *testing.T, r *gitrepo.Repo, tree gitrepo.Hash, into map[gitrepo.Hash]string) {
	t.Helper()
	into[tree] = "tree"
	entries, err := r.Tree(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Dir {
			collect(t, r, e.Hash, into)
		} else {
			into[e.Hash] = "blob"
		}
	}
}

func mustNotRead(t *testing.T, r *gitrepo.Repo, h gitrepo.Hash, kind string) {
	t.Helper()
	var err error
	switch kind {
	case "commit":
		_, err = r.Commit(h)
	case "tree":
		_, err = r.Tree(h)
	default:
		_, err = r.Blob(h)
	}
	if !errors.Is(err, gitrepo.ErrCorrupt) {
		t.Errorf("read swapped %s %s: %v", kind, h, err)
	}
}
