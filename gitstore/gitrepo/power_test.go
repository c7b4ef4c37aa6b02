package gitrepo_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// count returns how often a fault test tries: ordinarily n, and as often as the variable says in make fault.
func count(t *testing.T, variable string, n int) int {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		all, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return all
	}
	if testing.Short() {
		return max(1, n/5)
	}
	return n
}

// inode is a file whatever its names are.
type inode struct {
	// synced is what is certainly on disk, nil if nothing is.
	synced []byte
	// last is what was written last, for cutting it off.
	last []byte
}

// diskStep is a thing that was done, and in acked how many commits were acknowledged before.
type diskStep struct {
	step  string
	paths []string
	data  []byte // of a sync
	acked int
}

// disk records what a Repo does to its files.
type disk struct {
	dir string

	mu    sync.Mutex
	steps []diskStep
	acked int
}

func (d *disk) record(step string, paths ...string) {
	s := diskStep{step: step}
	for _, path := range paths {
		rel, err := filepath.Rel(d.dir, path)
		if err != nil || strings.HasPrefix(rel, "..") {
			return // another test's
		}
		s.paths = append(s.paths, rel)
	}
	if step == "sync" {
		s.data, _ = os.ReadFile(paths[0])
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.acked = d.acked
	d.steps = append(d.steps, s)
}

func (d *disk) acknowledge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acked++
}

// change is an entry of a folder that was added, or taken away where the inode is nil. A rename is two of them that
// reach the disk together.
type change []struct {
	path string
	file *inode
}

// after builds what may be on disk after a power cut behind the first n steps: synced files are whole, synced folders
// are as they were, and of all else any part has arrived, files empty, cut off or whole.
func (d *disk) after(n int, base map[string][]byte, random *rand.Rand) map[string][]byte {
	names := map[string]*inode{}   // as the process sees it
	durable := map[string]*inode{} // as is certain
	for path, data := range base {
		f := &inode{synced: data, last: data}
		names[path], durable[path] = f, f
	}
	pending := map[string][]change{} // by folder
	apply := func(c change) {
		for _, e := range c {
			if e.file == nil {
				delete(durable, e.path)
			} else {
				durable[e.path] = e.file
			}
		}
	}
	for i := range d.steps[:n] {
		s := &d.steps[i]
		path := s.paths[0]
		dir := filepath.Dir(path)
		switch s.step {
		case "create":
			names[path] = &inode{}
			pending[dir] = append(pending[dir], change{{path, names[path]}})
		case "sync":
			names[path].synced, names[path].last = s.data, s.data
		case "rename":
			to := s.paths[1]
			names[to] = names[path]
			delete(names, path)
			pending[dir] = append(pending[dir], change{{path, nil}, {to, names[to]}})
		case "remove":
			delete(names, path)
			pending[dir] = append(pending[dir], change{{path, nil}})
		case "syncdir":
			for _, c := range pending[path] {
				apply(c)
			}
			pending[path] = nil
		}
	}
	for _, changes := range pending {
		for _, c := range changes {
			if random.IntN(2) == 0 {
				apply(c)
			}
		}
	}
	state := map[string][]byte{}
	for path, f := range durable {
		state[path] = f.left(random)
	}
	return state
}

// left returns what a power cut leaves of a file.
func (f *inode) left(random *rand.Rand) []byte {
	if f.synced != nil {
		return f.synced
	}
	switch random.IntN(3) {
	case 0:
		return nil
	case 1:
		return make([]byte, random.IntN(500))
	default:
		return []byte("# pack-refs with: pee") // some of it
	}
}

// record makes commits, merges of packs and prunes on a repository in dir, and returns what was done.
func recordWork(t *testing.T, dir string) (*disk, map[string][]byte) {
	t.Helper()
	r := openRepo(t, dir)
	put(t, r, mainRef, "commit 1", "n", "1")
	put(t, r, "refs/heads/servers/web-1", "deploy 1", "manifest.json", "1")
	base := readAll(t, dir)
	d := &disk{dir: dir, acked: 1}
	stop := gitrepo.TraceDisk(d.record)
	defer stop()
	for n := 2; n <= 60; n++ {
		batch := []gitrepo.Update{
			update(r, mainRef, fmt.Sprintf("commit %d", n), "n", strconv.Itoa(n)),
			update(r, "refs/heads/servers/web-1", fmt.Sprintf("deploy %d", n), "manifest.json", strconv.Itoa(n)),
		}
		if _, err := r.Apply(t.Context(), batch, nil); err != nil {
			t.Fatal(err)
		}
		d.acknowledge()
		litter(t, r, n)
	}
	return d, base
}

// litter makes a branch of two packs and takes it away again, and prunes now and then.
func litter(t *testing.T, r *gitrepo.Repo, n int) {
	t.Helper()
	if n%4 > 0 {
		return
	}
	const ref = "refs/heads/proposals/x/1"
	put(t, r, ref, "propose", "x", strings.Repeat("litter ", n))
	put(t, r, ref, "approve", "y", strings.Repeat("more ", n)) // its tree needs the pack before
	if _, err := r.Apply(t.Context(), []gitrepo.Update{{Ref: ref, Delete: true}}, nil); err != nil {
		t.Fatal(err)
	}
	if n%12 > 0 {
		return
	}
	if _, err := r.Prune(t.Context(), gitrepo.PruneOptions{}); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPowerLoss rebuilds what a power cut at any moment may leave: of what was not synced, any part. What was
// acknowledged must be there, whole, and work must go on.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	cuts := count(t, "CERTFERRY_CUTS", 50)
	work := filepath.Join(t.TempDir(), "work")
	d, base := recordWork(t, work)
	if len(d.steps) < 500 {
		t.Fatalf("only %d steps were traced", len(d.steps))
	}
	seed := rand.Uint64()
	survived := 0
	for i := range cuts {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		n := random.IntN(len(d.steps) + 1)
		acked := 1
		if n > 0 {
			acked = d.steps[n-1].acked
		}
		if !t.Run(fmt.Sprintf("cut %d", n), func(t *testing.T) { afterCut(t, d.after(n, base, random), acked) }) {
			t.Logf("seed %d, cut %d of %d steps", seed, n, len(d.steps))
			continue
		}
		survived++
	}
	t.Logf("FAULT store.power-loss tried=%d survived=%d", cuts, survived)
}

func afterCut(t *testing.T, state map[string][]byte, acked int) {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for path, data := range state {
		write(t, dir, path, string(data))
	}
	n := checkAfterKill(t, dir, acked+1, acked)
	fsck(t, dir)
	r := openRepo(t, dir)
	put(t, r, mainRef, "goes on", "n", "on")
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("after %d commits there is left: %v", n, left)
	}
}

// leftovers lists the files that are no part of a repository at rest.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	for path := range readAll(t, dir) {
		switch name := filepath.Base(path); {
		case slices.Contains([]string{"HEAD", "config", "packed-refs", "certferry.lock"}, path):
		case strings.HasPrefix(name, "pack-") && filepath.Dir(path) == filepath.Join("objects", "pack"):
		default:
			left = append(left, path)
		}
	}
	return left
}
