package gitrepo_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

const lost = "refs/heads/proposals/x/1"

// withGarbage makes history on main and a branch that is gone again, and returns the branch's last commit.
func withGarbage(t *testing.T, r *gitrepo.Repo) gitrepo.Hash {
	t.Helper()
	var tip gitrepo.Hash
	for i := range 6 {
		put(t, r, mainRef, fmt.Sprintf("commit %d", i), "n", fmt.Sprint(i))
		tip = put(t, r, lost, "propose", fmt.Sprintf("x%d", i), strings.Repeat("litter ", 100+i))
	}
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: lost, Delete: true}}, nil); err != nil {
		t.Fatal(err)
	}
	return tip
}

func prune(t *testing.T, r *gitrepo.Repo, opt gitrepo.PruneOptions) gitrepo.Pruned {
	t.Helper()
	got, err := r.Prune(t.Context(), opt)
	if err != nil {
		t.Fatalf("prune: %v", err)
	}
	return got
}

// TestPruneDropsWhatNothingLeadsTo counts, drops, and leaves all that a reference leads to.
func TestPruneDropsWhatNothingLeadsTo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	gone := withGarbage(t, r)
	tip, _ := r.Ref(mainRef)
	before := len(packNames(t, dir))
	dry := prune(t, r, gitrepo.PruneOptions{DryRun: true})
	// Six commits of the branch, each with its tree and one new file.
	if dry.GarbageObjects != 18 || dry.Packs != 0 || dry.GarbageBytes == 0 || len(packNames(t, dir)) != before {
		t.Errorf("dry run: %+v, %d files of packs before, %d after", dry, before, len(packNames(t, dir)))
	}
	if got := prune(t, r, gitrepo.PruneOptions{MinShare: 0.99}); got.Packs != 0 {
		t.Errorf("rewrote %d packs for too little", got.Packs)
	}
	got := prune(t, r, gitrepo.PruneOptions{})
	if got.GarbageObjects != 18 || got.Packs != 6 || got.Objects != dry.Objects {
		t.Errorf("prune: %+v", got)
	}
	if again := prune(t, r, gitrepo.PruneOptions{}); again.GarbageObjects != 0 || again.Objects != got.Objects-18 {
		t.Errorf("second prune: %+v", again)
	}
	if out, err := tryGit(t, dir, nil, "cat-file", "-e", gone.String()); err == nil {
		t.Errorf("git still finds the commit: %s", out)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	fsck(t, dir)
	if err := r.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if log, err := r.Log(tip, 0); err != nil || len(log) != 6 {
		t.Errorf("main has %d commits, %v", len(log), err)
	}
}

// TestPruneLeavesRequestsUnderWay goes on sending what was listed before; new work must not build on it.
func TestPruneLeavesRequestsUnderWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	gone := withGarbage(t, r)
	objects, _, err := r.Missing([]gitrepo.Hash{gone}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	prune(t, r, gitrepo.PruneOptions{})
	if err := r.WritePack(io.Discard, objects); err != nil {
		t.Errorf("a request under way: %v", err)
	}
	for name, u := range map[string]gitrepo.Update{
		"to":     {Ref: lost, To: gone},
		"base":   {Ref: lost, Base: gone, Author: ada, Committer: hub, Message: "m", Edits: []gitrepo.Edit{{Path: "a", Data: []byte("x")}}},
		"parent": {Ref: lost, Parents: []gitrepo.Hash{gone}, Author: ada, Committer: hub, Message: "m"},
	} {
		if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("update with a pruned commit as its %s: %v", name, err)
		}
	}
	in, err := r.ReadIncoming(bytes.NewReader(nil), gitrepo.PushLimits)
	if err != nil {
		t.Fatal(err)
	}
	u := gitrepo.Update{Ref: lost, To: gone, Incoming: in}
	if _, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil); !errors.Is(err, gitrepo.ErrInvalid) {
		t.Errorf("push of a pruned commit without its objects: %v", err)
	}
	// The same files again are written again.
	put(t, r, lost, "propose", "x0", strings.Repeat("litter ", 100))
	if _, retired := r.PackCount(); retired != 6 {
		t.Errorf("%d packs are still read, want 6", retired)
	}
	r.EndRequests()
	if err := r.WritePack(io.Discard, objects); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its time: %v", err)
	}
	if err := errors.Join(r.Verify(t.Context()), r.CheckAll(t.Context())); err != nil {
		t.Error(err)
	}
	fsck(t, dir)
}

// TestPruneWhileWriting prunes again and again beside a writer and a reader.
func TestPruneWhileWriting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, mainRef, "start", "n", "start")
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			tip, _ := r.Ref(mainRef)
			objects, _, err := r.Missing([]gitrepo.Hash{tip}, nil, 2)
			if err == nil {
				err = r.WritePack(io.Discard, objects)
			}
			if err == nil {
				_, err = r.Prune(t.Context(), gitrepo.PruneOptions{})
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for n := 1; n <= 80; n++ {
		put(t, r, mainRef, "commit", "n", fmt.Sprint(n))
		put(t, r, lost, "propose", "x", fmt.Sprint(n))
		if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: lost, Delete: true}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	prune(t, r, gitrepo.PruneOptions{})
	if err := errors.Join(r.Verify(t.Context()), r.CheckAll(t.Context())); err != nil {
		t.Error(err)
	}
	fsck(t, dir)
}

// TestPruneKeepsKeptPacks leaves a pack that an operator marked, and what its commits need in others.
func TestPruneKeepsKeptPacks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, lost, "one", "a", "needed by the second")
	tip := put(t, r, lost, "two", "b", "b")
	newest := ""
	for _, name := range packNames(t, dir) {
		if data, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		} else if strings.HasSuffix(name, ".idx") && bytes.Contains(data, tip[:]) {
			newest = name
		}
	}
	rel, err := filepath.Rel(dir, newest)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, strings.TrimSuffix(rel, ".idx")+".keep", "")
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: lost, Delete: true}}, nil); err != nil {
		t.Fatal(err)
	}
	put(t, r, mainRef, "main", "n", "n")
	if got := prune(t, r, gitrepo.PruneOptions{}); got.GarbageObjects != 0 {
		t.Errorf("prune: %+v", got)
	}
	if files := files(t, r, tip, ""); len(files) != 2 {
		t.Errorf("the kept commit holds %v", files)
	}
}

// TestOpenFinishesAPrune starts from a list of packs that a killed process was about to remove.
func TestOpenFinishesAPrune(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tip := seeded(t, dir)
	old := packNames(t, dir)
	runGit(t, dir, "-c", "pack.writeReverseIndex=false", "repack", "-aqn") // everything once more in one pack
	var list strings.Builder
	for _, name := range old {
		if base, ok := strings.CutSuffix(filepath.Base(name), ".pack"); ok {
			fmt.Fprintln(&list, base)
		}
	}
	write(t, dir, "certferry-gone", list.String())
	r := openRepo(t, dir)
	if n, _ := r.PackCount(); n != 1 {
		t.Errorf("%d packs are open", n)
	}
	if got, _ := r.Ref(mainRef); got != tip {
		t.Errorf("main is at %s", got)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	fsck(t, dir)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "certferry-gone", "../../HEAD\n")
	if _, err := gitrepo.Open(dir, testOptions()); !errors.Is(err, gitrepo.ErrCorrupt) || !exists(dir, "HEAD") {
		t.Errorf("a list of something else: %v", err)
	}
}

// TestPruneRefusesAClosedRepository touches nothing that another process may have by now.
func TestPruneRefusesAClosedRepository(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openRepo(t, dir)
	put(t, r, mainRef, "one", "a", "x")
	closeRepo(t, r)
	if _, err := r.Prune(t.Context(), gitrepo.PruneOptions{}); !errors.Is(err, gitrepo.ErrClosed) {
		t.Errorf("prune of a closed repository: %v", err)
	}
}
