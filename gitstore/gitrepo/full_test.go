package gitrepo_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// smallDisk mounts a disk of a few MiB, for root only.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("SKIP: mounting a small disk takes root")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("SKIP: no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fillUp fills the disk but for free bytes.
func fillUp(t *testing.T, disk string, free int64) {
	t.Helper()
	size := int64(-1)
	// A child that another test just started may hold a removed file for a moment.
	for deadline := time.Now().Add(10 * time.Second); size < 1<<20; {
		var s syscall.Statfs_t
		if err := syscall.Statfs(disk, &s); err != nil {
			t.Fatal(err)
		}
		if size = int64(s.Bavail)*s.Bsize - free; time.Now().After(deadline) {
			t.Fatalf("only %d bytes are free", size)
		}
	}
	f, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFullDisk fills the disk such that a commit fails at one step after the other. Each failure must say why, change
// nothing, leave nothing, and be over as soon as there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	dir := filepath.Join(disk, "repo")
	r := openRepo(t, dir)
	withGarbage(t, r)
	mixed := []gitrepo.Update{ // one pack of which a part stays
		update(r, mainRef, "stays", "c.pgp", strings.Repeat("y", 60<<10)), update(r, lost, "goes", "d.pgp", strings.Repeat("z", 60<<10)),
	}
	if _, err := r.Apply(t.Context(), mixed, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: lost, Delete: true}}, nil); err != nil {
		t.Fatal(err)
	}
	tries := map[string]func() error{
		"commit": func() error {
			u := update(r, mainRef, "large", "a", strings.Repeat("0123456789abcdef", 4<<10), "b.pgp", strings.Repeat("x", 100<<10))
			_, err := r.Apply(t.Context(), []gitrepo.Update{u}, nil)
			return err
		},
		"prune": func() error {
			_, err := r.Prune(t.Context(), gitrepo.PruneOptions{})
			return err
		},
	}
	tried, survived := 0, 0
	for _, name := range slices.Sorted(maps.Keys(tries)) {
		for free := int64(0); ; free += 4096 {
			before := readAll(t, dir)
			refs := r.Refs()
			fillUp(t, disk, free)
			err := tries[name]()
			if e := os.Remove(filepath.Join(disk, "filler")); e != nil {
				t.Fatal(e)
			}
			if err == nil {
				if free < 3*4096 {
					t.Errorf("%s went well with %d bytes left: the disk was not full", name, free)
				}
				break
			}
			tried++
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("%s with %d bytes left: %v", name, free, err)
			} else if after := readAll(t, dir); !maps.EqualFunc(before, after, slices.Equal[[]byte]) || !maps.Equal(refs, r.Refs()) {
				t.Errorf("%s with %d bytes left changed files: %d before, %d after", name, free, len(before), len(after))
			} else if err := r.Verify(t.Context()); err != nil {
				t.Error(err)
			} else {
				survived++
			}
		}
		if err := errors.Join(r.Verify(t.Context()), r.CheckAll(t.Context())); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	fsck(t, dir)
	if tried < 30 {
		t.Errorf("only %d steps failed", tried)
	}
	t.Logf("FAULT store.full-disk tried=%d survived=%d", tried, survived)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOpenOnAFullDisk says why it cannot, and goes on when there is room.
func TestOpenOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	dir := filepath.Join(disk, "repo")
	fillUp(t, disk, 0)
	if r, err := gitrepo.Open(dir, testOptions()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("open: %v", err)
		if r != nil {
			closeRepo(t, r)
		}
	}
	if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
		t.Fatal(err)
	}
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	put(t, r, mainRef, "one", "a", "x")
	fsck(t, dir)
	closeRepo(t, r)
}
