package gitrepo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// TestApplyAndReadBack writes two commits and reads them by every method, and by git log.
func TestApplyAndReadBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	seq, changed := r.RefSeq(), r.Changed()
	first := put(t, r, mainRef, "one", "a.txt", "alpha", "d/b.txt", "beta", "d/e/c.pgp", "gamma", "d.txt", "dot", "d-x/y", "dash")
	select {
	case <-changed:
	default:
		t.Error("Changed was not closed")
	}
	if r.RefSeq() == seq {
		t.Error("RefSeq did not grow")
	}
	second := put(t, r, mainRef, "two\n\nwhy\n", "a.txt", "ALPHA", "d/e/c.pgp", "")

	want := map[string]string{"a.txt": "alpha", "d/b.txt": "beta", "d/e/c.pgp": "gamma", "d.txt": "dot", "d-x/y": "dash"}
	if diff := cmp.Diff(want, files(t, r, first, "")); diff != "" {
		t.Errorf("first commit (-want +got):\n%s", diff)
	}
	want = map[string]string{"a.txt": "ALPHA", "d/b.txt": "beta", "d.txt": "dot", "d-x/y": "dash"}
	if diff := cmp.Diff(want, files(t, r, second, "")); diff != "" {
		t.Errorf("second commit (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"d/b.txt": "beta"}, files(t, r, second, "d")); diff != "" {
		t.Errorf("folder d (-want +got):\n%s", diff)
	}
	entries, err := r.ReadDir(second, "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if diff := cmp.Diff([]string{"a.txt", "d-x", "d.txt", "d"}, names); diff != "" {
		t.Errorf("order of the root folder (-want +got):\n%s", diff)
	}
	log, err := r.Log(second, 0)
	if err != nil || len(log) != 2 || log[0].Message != "two\n\nwhy\n" || log[1].Hash != first {
		t.Errorf("log: %v, %v", log, err)
	}
	if log, err := r.Log(second, 1); err != nil || len(log) != 1 {
		t.Errorf("log of one: %v, %v", log, err)
	}
	fsck(t, dir)
	if got := runGit(t, dir, "log", "--format=%H %an <%ae> %aI %cn %s", "main"); got != second.String()+
		" Ada <ada@example.com> 2026-11-23T12:00:00+00:00 Certferry hub two\n"+first.String()+
		" Ada <ada@example.com> 2026-11-23T12:00:00+00:00 Certferry hub one" {
		t.Errorf("git log: %s", got)
	}
}

// TestStockGitReadsTheRepository clones with git, whole and shallow.
func TestStockGitReadsTheRepository(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, mainRef, "one", "a.txt", "alpha", "empty", "x")
	put(t, r, "refs/heads/servers/web-1", "deploy", "manifest.json", "{}\n", "bundles/x.pgp", strings.Repeat("secret", 2000))
	clone := filepath.Join(t.TempDir(), "clone")
	runGit(t, dir, "clone", "-q", dir, clone)
	if data, err := os.ReadFile(filepath.Join(clone, "a.txt")); err != nil || string(data) != "alpha" {
		t.Errorf("clone: %q, %v", data, err)
	}
	runGit(t, dir, "clone", "-q", "--no-local", "--depth=1", "-b", "servers/web-1", "file://"+dir, clone+"2")
	if data, err := os.ReadFile(filepath.Join(clone+"2", "bundles/x.pgp")); err != nil || len(data) != 12000 {
		t.Errorf("shallow clone: %d bytes, %v", len(data), err)
	}
	for _, idx := range packNames(t, dir) {
		if strings.HasSuffix(idx, ".idx") {
			runGit(t, dir, "verify-pack", idx)
		}
	}
	if got := runGit(t, dir, "config", "gc.auto"); got != "0" {
		t.Errorf("gc.auto = %s", got)
	}
	if loose, err := filepath.Glob(filepath.Join(dir, "refs/heads/*")); err != nil || len(loose) != 0 {
		t.Errorf("loose references: %v, %v", loose, err)
	}
}

// TestManyBranchesInOneBatch makes many branches and expects one pack and one move.
func TestManyBranchesInOneBatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	batch := []gitrepo.Update{update(r, mainRef, "start", "a", "x")}
	for i := range 150 {
		batch = append(batch, update(r, fmt.Sprintf("refs/heads/servers/web-%d", i), "deploy",
			"manifest.json", fmt.Sprint(i), "keyring.json", "shared by all"))
	}
	var recorded []gitrepo.Hash
	hashes, err := r.Apply(t.Context(), batch, func(h []gitrepo.Hash) error {
		recorded = slices.Clone(h)
		if len(r.Refs()) != 0 {
			t.Error("references moved before they were recorded")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(recorded, hashes) {
		t.Error("beforeRefs saw other hashes than Apply returned")
	}
	if n := len(packNames(t, dir)); n != 2 {
		t.Errorf("%d files in objects/pack, want one pack and its index", n)
	}
	for i, h := range hashes[1:] {
		if data, err := r.ReadFile(h, "manifest.json"); err != nil || string(data) != fmt.Sprint(i) {
			t.Fatalf("branch %d: %q, %v", i, data, err)
		}
	}
	if got := len(strings.Fields(runGit(t, dir, "for-each-ref", "--format=%(refname)"))); got != 151 {
		t.Errorf("git sees %d references", got)
	}
	fsck(t, dir)
}

// TestApplyRefuses tries updates that break a rule and expects that nothing changes.
func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	tip := put(t, r, mainRef, "one", "a", "x", "d/b", "y")
	put(t, r, "refs/heads/servers/web", "one", "a", "x")
	other := gitrepo.Hash{1}
	edit := func(path string) []gitrepo.Edit { return []gitrepo.Edit{{Path: path, Data: []byte("z")}} }
	good := gitrepo.Update{Ref: mainRef, Base: tip, Parents: []gitrepo.Hash{tip}, Author: ada, Committer: hub, Message: "m"}
	tests := []struct {
		name   string
		change func(u *gitrepo.Update)
		want   error
	}{
		{"stale", func(u *gitrepo.Update) { u.Expect = &other }, gitrepo.ErrStale},
		{"must not exist", func(u *gitrepo.Update) { u.Expect = &none }, gitrepo.ErrStale},
		{"no such base", func(u *gitrepo.Update) { u.Base = other }, fs.ErrNotExist},
		{"no such parent", func(u *gitrepo.Update) { u.Parents = []gitrepo.Hash{other} }, fs.ErrNotExist},
		{"no message", func(u *gitrepo.Update) { u.Message = " \n" }, gitrepo.ErrInvalid},
		{"no subject", func(u *gitrepo.Update) { u.Message = "\nbody" }, gitrepo.ErrInvalid},
		{"zero byte in message", func(u *gitrepo.Update) { u.Message = "a\x00b" }, gitrepo.ErrInvalid},
		{"no author", func(u *gitrepo.Update) { u.Author.Name = " " }, gitrepo.ErrInvalid},
		{"author breaks out", func(u *gitrepo.Update) { u.Author.Name = "a\ncommitter b" }, gitrepo.ErrInvalid},
		{"email breaks out", func(u *gitrepo.Update) { u.Committer.Email = "a> 1 +0000 <" }, gitrepo.ErrInvalid},
		{"short reference", func(u *gitrepo.Update) { u.Ref = "main" }, gitrepo.ErrInvalid},
		{"reference walks up", func(u *gitrepo.Update) { u.Ref = "refs/heads/../x" }, gitrepo.ErrInvalid},
		{"reference is a lock", func(u *gitrepo.Update) { u.Ref = "refs/heads/x.lock" }, gitrepo.ErrInvalid},
		{"reference has a control character", func(u *gitrepo.Update) { u.Ref = "refs/heads/x\ny" }, gitrepo.ErrInvalid},
		{"reference is a folder", func(u *gitrepo.Update) { u.Ref = "refs/heads/servers" }, gitrepo.ErrInvalid},
		{"reference below a reference", func(u *gitrepo.Update) { u.Ref = "refs/heads/main/x" }, gitrepo.ErrInvalid},
		{"path walks up", func(u *gitrepo.Update) { u.Edits = edit("../x") }, gitrepo.ErrInvalid},
		{"absolute path", func(u *gitrepo.Update) { u.Edits = edit("/x") }, gitrepo.ErrInvalid},
		{"empty path", func(u *gitrepo.Update) { u.Edits = edit("") }, gitrepo.ErrInvalid},
		{"git folder", func(u *gitrepo.Update) { u.Edits = edit("d/.GIT/config") }, gitrepo.ErrInvalid},
		{"deep path", func(u *gitrepo.Update) { u.Edits = edit("1/2/3/4/5/6/7/8/9") }, gitrepo.ErrInvalid},
		{"file over folder", func(u *gitrepo.Update) { u.Edits = edit("d") }, gitrepo.ErrInvalid},
		{"folder over file", func(u *gitrepo.Update) { u.Edits = edit("a/b") }, gitrepo.ErrInvalid},
		{"edited twice", func(u *gitrepo.Update) { u.Edits = append(edit("n"), edit("n")...) }, gitrepo.ErrInvalid},
		{"file and folder", func(u *gitrepo.Update) { u.Edits = append(edit("n"), edit("n/m")...) }, gitrepo.ErrInvalid},
		{"folder and file", func(u *gitrepo.Update) { u.Edits = append(edit("n/m"), edit("n")...) }, gitrepo.ErrInvalid},
		{"remove what is not there", func(u *gitrepo.Update) { u.Edits = []gitrepo.Edit{{Path: "n", Delete: true}} }, fs.ErrNotExist},
		{"too large", func(u *gitrepo.Update) { u.Edits = []gitrepo.Edit{{Path: "n", Data: make([]byte, 65<<20)}} }, gitrepo.ErrInvalid},
	}
	before := packNames(t, dir)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := good
			tt.change(&u)
			if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	for name, batch := range map[string][]gitrepo.Update{
		"twice in a batch": {good, good},
		"colliding batch":  {update(r, "refs/heads/new", "m", "a", "b"), update(r, "refs/heads/new/er", "m", "a", "b")},
		"one bad of two":   {update(r, "refs/heads/new", "m", "a", "b"), update(r, "refs/heads/newer", "m", "..", "b")},
	} {
		if _, err := r.Apply(t.Context(), batch, nil); !errors.Is(err, gitrepo.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, _ := r.Ref(mainRef); got != tip {
		t.Error("a refused update moved main")
	}
	if diff := cmp.Diff(before, packNames(t, dir)); diff != "" {
		t.Errorf("a refused update left files (-before +after):\n%s", diff)
	}
}

// TestApplyStopsWithoutATrace stops batches half-way.
func TestApplyStopsWithoutATrace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	tip := put(t, r, mainRef, "one", "a", "x")
	before := packNames(t, dir)
	no := errors.New("database is full")
	_, err := r.Apply(t.Context(), []gitrepo.Update{update(r, mainRef, "two", "a", "y")}, func([]gitrepo.Hash) error { return no })
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Apply(ctx, []gitrepo.Update{update(r, mainRef, "two", "a", "y")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if got, _ := r.Ref(mainRef); got != tip {
		t.Error("main moved")
	}
	if diff := cmp.Diff(before, packNames(t, dir)); diff != "" {
		t.Errorf("files left (-before +after):\n%s", diff)
	}
	if hashes, err := r.Apply(t.Context(), nil, nil); err != nil || len(hashes) != 0 {
		t.Errorf("empty batch: %v, %v", hashes, err)
	}
	put(t, r, mainRef, "two", "a", "y")
	fsck(t, dir)
}

// TestSignedCommits checks that what is signed is what a reader verifies.
func TestSignedCommits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opt := testOptions()
	var signed []byte
	opt.Sign = func(payload []byte) ([]byte, error) {
		signed = bytes.Clone(payload)
		return []byte("-----BEGIN PGP SIGNATURE-----\n\nabc=\n=defg\n-----END PGP SIGNATURE-----\n"), nil
	}
	r, err := gitrepo.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	h := put(t, r, mainRef, "signed", "a", "x")
	c, err := r.Commit(h)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Payload, signed) {
		t.Errorf("payload differs from what was signed:\n%q\n%q", c.Payload, signed)
	}
	if want := "-----BEGIN PGP SIGNATURE-----\n\nabc=\n=defg\n-----END PGP SIGNATURE-----\n"; c.Signature != want {
		t.Errorf("signature %q", c.Signature)
	}
	fsck(t, dir)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for name, sign := range map[string]gitrepo.SignFunc{
		"fails": func([]byte) ([]byte, error) { return nil, errors.New("no key") },
		"empty": func([]byte) ([]byte, error) { return []byte("\n"), nil },
	} {
		opt.Sign = sign
		r, err := gitrepo.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Apply(t.Context(), []gitrepo.Update{update(r, mainRef, "two", "a", "y")}, nil); err == nil {
			t.Errorf("signing that %s made a commit", name)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReadErrors reads what is not there, or is something else.
func TestReadErrors(t *testing.T) {
	t.Parallel()
	r := openRepo(t, t.TempDir())
	tip := put(t, r, mainRef, "one", "a", "x", "d/b", "y")
	entry, err := r.Stat(tip, "d")
	if err != nil || !entry.Dir {
		t.Fatalf("stat d: %+v, %v", entry, err)
	}
	if entries, err := r.Tree(entry.Hash); err != nil || len(entries) != 1 {
		t.Errorf("tree: %v, %v", entries, err)
	}
	discard := func(string, []byte) error { return nil }
	stop := errors.New("stop")
	checks := map[string]struct{ got, want error }{}
	check := func(name string, got, want error) { checks[name] = struct{ got, want error }{got, want} }
	_, err = r.ReadFile(tip, "nope")
	check("missing file", err, fs.ErrNotExist)
	_, err = r.ReadFile(tip, "a/b")
	check("file as folder", err, fs.ErrNotExist)
	_, err = r.ReadFile(tip, "d")
	check("folder as file", err, gitrepo.ErrInvalid)
	_, err = r.ReadDir(tip, "a")
	check("list a file", err, gitrepo.ErrInvalid)
	_, err = r.ReadDir(tip, "nope")
	check("list a missing folder", err, fs.ErrNotExist)
	check("walk a file", r.Walk(tip, "a", discard), gitrepo.ErrInvalid)
	check("walk a missing folder", r.Walk(tip, "nope", discard), fs.ErrNotExist)
	check("stop a walk", r.Walk(tip, "", func(string, []byte) error { return stop }), stop)
	_, err = r.Commit(gitrepo.Hash{1})
	check("missing commit", err, fs.ErrNotExist)
	_, err = r.Commit(entry.Hash)
	check("tree as commit", err, gitrepo.ErrCorrupt)
	_, err = r.Log(gitrepo.Hash{1}, 0)
	check("log of a missing commit", err, fs.ErrNotExist)
	_, _, err = r.RawObject(gitrepo.Hash{1})
	check("missing object", err, fs.ErrNotExist)
	_, _, err = r.Missing([]gitrepo.Hash{{1}}, nil, 0)
	check("missing want", err, fs.ErrNotExist)
	_, _, err = r.Missing([]gitrepo.Hash{{1}}, nil, 1)
	check("missing want, depth 1", err, fs.ErrNotExist)
	_, _, err = r.Missing([]gitrepo.Hash{tip}, []gitrepo.Hash{{1}}, 0)
	check("missing have", err, fs.ErrNotExist)
	check("pack of a missing object", r.WritePack(&bytes.Buffer{}, []gitrepo.Hash{{1}}), fs.ErrNotExist)
	for name, c := range checks {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", name, c.got, c.want)
		}
	}
	if typ, data, err := r.RawObject(tip); err != nil || typ != "commit" || !bytes.HasPrefix(data, []byte("tree ")) {
		t.Errorf("raw commit: %s, %q, %v", typ, data, err)
	}
	if err := r.WritePack(failingWriter{}, []gitrepo.Hash{tip}); err == nil {
		t.Error("writing to a broken connection went well")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestReadersDuringWrites reads and packs while commits are made and packs are merged.
func TestReadersDuringWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	first := put(t, r, mainRef, "start", "a", "0")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				changed := r.Changed()
				tip, _ := r.Ref(mainRef)
				objects, _, err := r.Missing([]gitrepo.Hash{tip}, nil, 1)
				if err == nil {
					err = r.WritePack(&bytes.Buffer{}, objects)
				}
				if err == nil {
					_, err = r.ReadFile(first, "a")
				}
				if err != nil {
					t.Errorf("read during writes: %v", err)
					return
				}
				select {
				case <-done:
					return
				case <-changed:
				}
			}
		})
	}
	for i := range 100 {
		put(t, r, mainRef, fmt.Sprintf("commit %d", i), "a", fmt.Sprint(i), "b/c", fmt.Sprint(-i))
	}
	close(done)
	wg.Wait()
	if n := len(packNames(t, dir)) / 2; n > 40 {
		t.Errorf("%d packs after 100 commits: they are not merged", n)
	}
	fsck(t, dir)
	if got := runGit(t, dir, "rev-list", "--count", "main"); got != "101" {
		t.Errorf("git counts %s commits", got)
	}
	if err := r.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClose checks the lock, and that what was written is there after reopening.
func TestClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, mainRef, "one", "a", "x")
	if _, err := gitrepo.Open(dir, testOptions()); !errors.Is(err, gitrepo.ErrLocked) {
		t.Errorf("second open: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), []gitrepo.Update{update(r, mainRef, "two", "a", "y")}, nil); !errors.Is(err, gitrepo.ErrClosed) {
		t.Errorf("apply after close: %v", err)
	}
	again := openRepo(t, dir)
	if diff := cmp.Diff(r.Refs(), again.Refs()); diff != "" {
		t.Errorf("references after reopening (-want +got):\n%s", diff)
	}
}
