package gitrepo_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// seeded makes a closed repository with some history and returns its main commit.
func seeded(t *testing.T, dir string) gitrepo.Hash {
	t.Helper()
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	var tip gitrepo.Hash
	for i := range 5 {
		tip = put(t, r, mainRef, fmt.Sprintf("commit %d", i), "a", fmt.Sprint(i), "d/b", strings.Repeat("text ", 400)+fmt.Sprint(i))
		put(t, r, "refs/heads/servers/web-1", fmt.Sprintf("deploy %d", i), "manifest.json", fmt.Sprint(i))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return tip
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// TestOpenClearsWhatAKilledProcessLeft plants leftovers beside things that must stay.
func TestOpenClearsWhatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tip := seeded(t, dir)
	left := []string{
		"packed-refs.lock", "packed-refs.new", "HEAD.lock", "config.lock", "refs/heads/servers/x.lock",
		"objects/pack/tmp_pack_1", "objects/pack/tmp_idx_1", "objects/ab/tmp_obj_1",
		"objects/pack/pack-0123456789012345678901234567890123456789.pack",
		"objects/pack/pack-1123456789012345678901234567890123456789.idx",
	}
	for _, name := range left {
		write(t, dir, name, "half")
	}
	kept := "objects/pack/pack-2123456789012345678901234567890123456789.pack"
	write(t, dir, kept, "an operator's")
	write(t, dir, strings.TrimSuffix(kept, ".pack")+".keep", "")
	r := openRepo(t, dir)
	for _, name := range left {
		if exists(dir, name) {
			t.Errorf("%s is still there", name)
		}
	}
	if !exists(dir, kept) || !exists(dir, "certferry.lock") {
		t.Error("too much was removed")
	}
	if got, _ := r.Ref(mainRef); got != tip {
		t.Errorf("main is at %s", got)
	}
}

// TestOpenFinishesAnUnfinishedRepository starts from each stage of making a repository.
func TestOpenFinishesAnUnfinishedRepository(t *testing.T) {
	t.Parallel()
	for _, left := range [][]string{
		nil, {"config.lock"}, {"config"}, {"config", "packed-refs.lock"}, {"config", "packed-refs"}, {"config", "packed-refs", "HEAD.lock"},
	} {
		dir := t.TempDir()
		for _, name := range left {
			write(t, dir, name, map[string]string{"packed-refs": "# pack-refs with: peeled fully-peeled sorted \n"}[name])
		}
		r := openRepo(t, dir)
		put(t, r, mainRef, "one", "a", "x")
		fsck(t, dir)
	}
}

// TestOpenTakesOverForeignReferences finds references that another git wrote as files.
func TestOpenTakesOverForeignReferences(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seeded(t, dir)
	older := runGit(t, dir, "rev-parse", "main~1")
	runGit(t, dir, "update-ref", "refs/heads/main", older)
	write(t, dir, "refs/heads/servers/web-1", "") // as a crash of go-git leaves it
	web := runGit(t, dir, "rev-parse", "--verify", "-q", older)
	r := openRepo(t, dir)
	if got, _ := r.Ref(mainRef); got.String() != web {
		t.Errorf("main is at %s, git said %s", got, older)
	}
	if _, ok := r.Ref("refs/heads/servers/web-1"); !ok {
		t.Error("the branch of web-1 is lost")
	}
	if exists(dir, "refs/heads/main") || exists(dir, "refs/heads/servers/web-1") {
		t.Error("loose references are still there")
	}
	fsck(t, dir)
}

// TestApplyDoesNotOverwriteForeignReferences changes packed-refs behind the writer.
func TestApplyDoesNotOverwriteForeignReferences(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seeded(t, dir)
	r := openRepo(t, dir)
	runGit(t, dir, "pack-refs", "--all") // rewrites the same content
	put(t, r, mainRef, "next", "a", "y")
	lock := filepath.Join(dir, "packed-refs.lock")
	write(t, dir, "packed-refs.lock", "")
	u := update(r, mainRef, "next", "a", "z")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("apply under git's lock: %v", err)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	runGit(t, dir, "update-ref", "refs/heads/foreign", "main")
	runGit(t, dir, "pack-refs", "--all")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); !errors.Is(err, gitrepo.ErrStale) {
		t.Errorf("apply over a foreign change: %v", err)
	}
	write(t, dir, "packed-refs", "nonsense\n")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); !errors.Is(err, gitrepo.ErrCorrupt) {
		t.Errorf("apply over a broken packed-refs: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "packed-refs")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); err == nil {
		t.Error("apply without packed-refs went well")
	}
}

// TestReadsWhatGitRepacked reads deltas and loose objects: an operator may run git gc while the hub is down.
func TestReadsWhatGitRepacked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tip := seeded(t, dir)
	r := openRepo(t, dir)
	want := files(t, r, tip, "")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	packs := func() (out []string) {
		for _, name := range packNames(t, dir) {
			if strings.HasSuffix(name, ".pack") {
				out = append(out, name)
			}
		}
		return out
	}
	steps := []struct {
		name string
		do   func()
	}{
		{"offset deltas", func() { runGit(t, dir, "repack", "-adfq", "--depth=50", "--write-midx") }},
		{"reference deltas", func() { runGit(t, dir, "-c", "repack.useDeltaBaseOffset=false", "repack", "-adfq", "--depth=50") }},
		{"loose objects", func() {
			for _, name := range packs() {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, ext := range []string{".pack", ".idx", ".rev", ".bitmap"} {
					if err := os.Remove(strings.TrimSuffix(name, ".pack") + ext); err != nil && !os.IsNotExist(err) {
						t.Fatal(err)
					}
				}
				if out, err := tryGit(t, dir, data, "unpack-objects", "-q"); err != nil {
					t.Fatalf("unpack: %v, %s", err, out)
				}
			}
		}},
	}
	for i, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			r, err := gitrepo.Open(dir, testOptions())
			if err != nil {
				t.Fatal(err)
			}
			defer closeRepo(t, r)
			if diff := cmp.Diff(want, files(t, r, tip, "")); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			if err := r.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			checkPack(t, r, []gitrepo.Hash{tip}, nil, 0)
			if i > 0 {
				return
			}
			for n := range 40 { // enough to merge, deltas included
				put(t, r, "refs/heads/servers/web-2", "deploy", "n", fmt.Sprint(n))
			}
			fsck(t, dir)
			if got := runGit(t, dir, "cat-file", "-p", tip.String()+":a"); got != want["a"] {
				t.Errorf("git reads %q", got)
			}
		})
	}
	fsck(t, dir)
}

// TestOpenDetectsDamage damages a sound repository in one way at a time.
func TestOpenDetectsDamage(t *testing.T) {
	t.Parallel()
	change := func(pattern string, edit func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			names, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(names) == 0 {
				t.Fatalf("glob %s: %v, %v", pattern, names, err)
			}
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(name, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, edit(data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	flip := func(at int) func([]byte) []byte {
		return func(data []byte) []byte {
			data = bytes.Clone(data)
			data[(at+len(data))%len(data)] ^= 0x20
			return data
		}
	}
	set := func(text string) func([]byte) []byte { return func([]byte) []byte { return []byte(text) } }
	tests := map[string]func(t *testing.T, dir string){
		"an object":           change("objects/pack/*.pack", flip(30)),
		"the pack's magic":    change("objects/pack/*.pack", flip(0)),
		"the pack's count":    change("objects/pack/*.pack", flip(11)),
		"the pack's checksum": change("objects/pack/*.pack", flip(-1)),
		"a cut pack":          change("objects/pack/*.pack", func(b []byte) []byte { return b[:len(b)/2] }),
		"an empty pack":       change("objects/pack/*.pack", set("")),
		"the index":           change("objects/pack/*.idx", flip(1200)),
		"the index's magic":   change("objects/pack/*.idx", flip(0)),
		"an empty index":      change("objects/pack/*.idx", set("")),
		"no packs": func(t *testing.T, dir string) {
			t.Helper()
			for _, name := range packNames(t, dir) {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		},
		"an unknown commit":        change("packed-refs", set("0123456789012345678901234567890123456789 refs/heads/main\n")),
		"a malformed line":         change("packed-refs", set("0123 refs/heads/main\n")),
		"a cut packed-refs":        change("packed-refs", func(b []byte) []byte { return b[:len(b)-3] }),
		"a doubled reference":      change("packed-refs", func(b []byte) []byte { return append(b, b...) }),
		"a strange name":           change("packed-refs", func(b []byte) []byte { return append(b[:len(b)-1], "/../x\n"...) }),
		"a reference to a tree":    func(t *testing.T, dir string) { t.Helper(); refTo(t, dir, "main^{tree}") },
		"a reference to a file":    func(t *testing.T, dir string) { t.Helper(); refTo(t, dir, "main:a") },
		"an unreadable loose file": func(t *testing.T, dir string) { t.Helper(); write(t, dir, "refs/heads/x", "nonsense") },
		"an empty new reference":   func(t *testing.T, dir string) { t.Helper(); write(t, dir, "refs/heads/x", "") },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			seeded(t, dir)
			damage(t, dir)
			r, err := gitrepo.Open(dir, testOptions())
			if err == nil {
				_ = r.Close()
			}
			if !errors.Is(err, gitrepo.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
}

func refTo(t *testing.T, dir, what string) {
	t.Helper()
	write(t, dir, "packed-refs", runGit(t, dir, "rev-parse", what)+" refs/heads/main\n")
}

// TestOpenRefusesForeignTrees plants trees that git would take, but that could lead a reader astray.
func TestOpenRefusesForeignTrees(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]string{"link": "120000", "program": "100755"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			seeded(t, dir)
			blob := runGit(t, dir, "rev-parse", "main:a")
			tree, err := tryGit(t, dir, fmt.Appendf(nil, "%s blob %s\tx\n", mode, blob), "mktree")
			if err != nil {
				t.Fatal(tree)
			}
			commit := runGit(t, dir, "commit-tree", "-m", "x", strings.TrimSpace(tree))
			runGit(t, dir, "update-ref", "refs/heads/main", commit)
			if _, err := gitrepo.Open(dir, testOptions()); !errors.Is(err, gitrepo.ErrCorrupt) {
				t.Errorf("got %v, want ErrCorrupt", err)
			}
		})
	}
}

// TestOpenRefusesWhatIsNoRepository opens folders that hold something else.
func TestOpenRefusesWhatIsNoRepository(t *testing.T) {
	t.Parallel()
	foreign := t.TempDir()
	write(t, foreign, "photo.jpg", "x")
	detached := t.TempDir()
	write(t, detached, "HEAD", "ref: refs/heads/trunk\n")
	file := filepath.Join(t.TempDir(), "file")
	write(t, filepath.Dir(file), "file", "")
	for _, dir := range []string{foreign, detached, file} {
		if r, err := gitrepo.Open(dir, testOptions()); err == nil {
			t.Errorf("opened %s", dir)
			_ = r.Close()
		}
	}
	if exists(foreign, "objects") || exists(foreign, "certferry.lock") {
		t.Error("something was written to a foreign folder")
	}
	if _, err := gitrepo.Open(t.TempDir(), gitrepo.Options{}); err == nil {
		t.Error("opened without a clock")
	}
}

// TestOpenMendsMissingPackedRefs opens a repository that git init made.
func TestOpenMendsMissingPackedRefs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	runGit(t, dir, "init", "-q", "--bare", "-b", "main", dir)
	r := openRepo(t, dir)
	put(t, r, mainRef, "one", "a", "x")
	fsck(t, dir)
}

// TestMergingLeavesKeptPacks makes so many commits that packs are merged, beside one that an operator marked.
func TestMergingLeavesKeptPacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, mainRef, "kept", "a", "x")
	var kept string
	for _, name := range packNames(t, dir) {
		if strings.HasSuffix(name, ".pack") {
			kept = filepath.Join("objects/pack", filepath.Base(name))
		}
	}
	write(t, dir, strings.TrimSuffix(kept, ".pack")+".keep", "")
	for i := range 40 {
		put(t, r, mainRef, "next", "a", fmt.Sprint(i))
	}
	if n := len(packNames(t, dir)) / 2; n > 32 || !exists(dir, kept) {
		t.Errorf("%d packs, the kept one is there: %v", n, exists(dir, kept))
	}
	fsck(t, dir)
}
