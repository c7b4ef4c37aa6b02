package gitstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

const day = 24 * time.Hour

// pair is two servers that are published to every day.
type pair struct {
	*world
	store  *gitstore.Store
	states []gitstore.ServerState
}

func newPair(t *testing.T) *pair {
	t.Helper()
	w := newWorld(t)
	p := &pair{world: w, store: w.open(1)}
	apply(t, p.store, "add servers", serverYAML(t, "web-1", nil), serverYAML(t, "web-2", nil))
	b := w.bundle(3650, "example.com")
	for _, name := range []string{"web-1", "web-2"} {
		p.states = append(p.states, gitstore.ServerState{
			Server: name, Key: w.key("server").Public(), Deployments: []gitstore.Wanted{want("example.com", b)},
		})
	}
	return p
}

// live lets days pass: each day the manifests are signed again and the store is pruned.
func (p *pair) live(t *testing.T, days int, keep time.Duration) (sum gitstore.PruneReport) {
	t.Helper()
	for range days {
		p.pass(day)
		got, err := p.store.Publish(t.Context(), snapshot(t, p.store).Commit, p.states)
		if err != nil || got[0].Err != nil || got[1].Err != nil {
			t.Fatal(got, err)
		}
		report := prune(t, p.store, gitstore.PruneOptions{Keep: keep})
		sum.Begun += report.Begun
		sum.Ended += report.Ended
		sum.Held = report.Held
		sum.Pruned = report.Pruned
	}
	return sum
}

func prune(t *testing.T, s *gitstore.Store, opt gitstore.PruneOptions) gitstore.PruneReport {
	t.Helper()
	report, err := s.Prune(t.Context(), opt)
	if err != nil {
		t.Fatalf("prune: %v", err)
	}
	return report
}

func history(t *testing.T, s *gitstore.Store, server string) []gitstore.ServerCommit {
	t.Helper()
	log, err := s.ServerHistory(server, 0)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestPruneBoundsHistory lives through half a year with ten days to keep.
func TestPruneBoundsHistory(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	sum := p.live(t, 180, 10*day)
	for _, state := range p.states {
		log := history(t, p.store, state.Server)
		if n := len(log); n < 10 || n > 26 {
			t.Errorf("%s: %d commits are left", state.Server, n)
		}
		if g := log[0].Manifest.Generation; g != 180 {
			t.Errorf("%s is at generation %d", state.Server, g)
		}
		oldest := log[len(log)-1].Manifest.Generation
		if oldest > 170 {
			t.Errorf("%s: generation %d is the oldest: ten days are not kept", state.Server, oldest)
		}
		// Each generation from there on is there, and the starts of epochs repeat one.
		for i, c := range log[1:] {
			if above := log[i].Manifest.Generation; c.Manifest.Generation != above && c.Manifest.Generation != above-1 {
				t.Errorf("%s: generation %d follows %d", state.Server, above, c.Manifest.Generation)
			}
		}
	}
	if sum.Begun < 24 || sum.Ended < 20 || sum.Begun > 40 {
		t.Errorf("epochs: %+v", sum)
	}
	if sum.Objects > 300 {
		t.Errorf("%d objects are left of half a year", sum.Objects)
	}
	if err := p.store.Repo().Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if out := run(t, p.dir, nil, "", "git", "fsck", "--full", "--strict", "--no-progress", "--no-dangling"); out != "" {
		t.Errorf("git fsck: %s", out)
	}
	first := run(t, p.dir, nil, "", "git", "log", "--format=%B", "--max-parents=0", "servers/web-1")
	if !strings.HasPrefix(first, "start history of web-1 anew: generation ") || !strings.Contains(first, "\nPrev-Commit: ") {
		t.Errorf("first commit of the branch: %s", first)
	}
	if log, err := p.store.Branch("main", 0); err != nil || len(log) != 2 {
		t.Errorf("main has %d commits, %v", len(log), err)
	}
}

// TestPruneKeepsWhatIsYoungOrFew neither begins nor ends anything before its time, nor in a dry run.
func TestPruneKeepsWhatIsYoungOrFew(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if sum := p.live(t, 10, 30*day); sum.Begun != 0 || sum.GarbageObjects != 0 {
		t.Errorf("ten days of thirty: %+v", sum)
	}
	dry := prune(t, p.store, gitstore.PruneOptions{Keep: day, DryRun: true})
	if dry.Begun != 2 || len(history(t, p.store, "web-1")) != 10 {
		t.Errorf("dry run: %+v", dry)
	}
	if got := prune(t, p.store, gitstore.PruneOptions{Keep: day}); got.Begun != 2 || got.GarbageObjects != 0 {
		t.Errorf("first prune: %+v", got)
	}
	p.pass(90 * day)
	// The new history has one commit: what was before is old, but it is all there is.
	if got := prune(t, p.store, gitstore.PruneOptions{Keep: day}); got.Ended != 0 || len(history(t, p.store, "web-1")) != 11 {
		t.Errorf("with one commit: %+v", got)
	}
	p.live(t, 1, 1000*day)
	if got := prune(t, p.store, gitstore.PruneOptions{Keep: day}); got.Ended != 0 {
		t.Errorf("with two commits: %+v", got)
	}
	p.live(t, 1, 1000*day)
	if got := prune(t, p.store, gitstore.PruneOptions{Keep: day}); got.Ended != 2 || got.GarbageObjects == 0 || len(history(t, p.store, "web-1")) != 3 {
		t.Errorf("with three commits: %+v", got)
	}
	if _, err := p.store.Prune(t.Context(), gitstore.PruneOptions{Keep: -day}); !errors.Is(err, gitstore.ErrInvalid) {
		t.Errorf("a negative time: %v", err)
	}
}

// TestPruneKeepsWhatIsHeld keeps a held server's commit for as long as it is held, and tells of one that is gone.
func TestPruneKeepsWhatIsHeld(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.live(t, 3, 10*day)
	held := history(t, p.store, "web-1")[2].Hash.String()
	put := func(hold *manifest.Hold) {
		t.Helper()
		data, err := (&manifest.Server{APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: "web-1", Hold: hold}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		apply(t, p.store, "hold", gitrepo.Edit{Path: manifest.ServerPath("web-1"), Data: data})
	}
	put(&manifest.Hold{Commit: held, By: "ada", Since: p.clock()})
	p.states[0].HoldCommit = held
	if sum := p.live(t, 60, 10*day); sum.Held != 1 {
		t.Errorf("%d epochs are held", sum.Held)
	}
	if n := len(history(t, p.store, "web-2")); n > 26 {
		t.Errorf("web-2 has %d commits: the hold of another keeps them", n)
	}
	log := history(t, p.store, "web-1")
	if !slices.ContainsFunc(log, func(c gitstore.ServerCommit) bool { return c.Hash.String() == held }) {
		t.Error("the commit that the server is held at is gone")
	}
	put(nil)
	p.states[0].HoldCommit = ""
	p.live(t, 40, 10*day)
	since, pruned, err := p.store.PrunedBefore("web-1")
	if err != nil || !pruned || p.clock().Sub(since) > 25*day {
		t.Errorf("pruned before %s: %v, %v", since, pruned, err)
	}
	p.states[0].HoldCommit = held
	got, err := p.store.Publish(t.Context(), snapshot(t, p.store).Commit, p.states)
	if err != nil {
		t.Fatal(err)
	}
	if e := got[0].Err; !errors.Is(e, fs.ErrNotExist) || !strings.Contains(e.Error(), "its history before "+since.Format(time.DateOnly)+" was pruned") {
		t.Errorf("hold at a pruned commit: %v", e)
	}
}

// TestHoldReachesTheEarlierEpoch goes back, with another key of the server, to what an earlier epoch held.
func TestHoldReachesTheEarlierEpoch(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	b := p.bundle(3650, "example.com")
	issue(t, p.store, "example.com", b)
	p.states[0].Deployments = []gitstore.Wanted{want("example.com", b)}
	p.live(t, 8, 30*day)
	held := history(t, p.store, "web-1")[4]
	prune(t, p.store, gitstore.PruneOptions{Keep: day})
	if tip, err := p.store.ServerTip("web-1"); err != nil || tip.Manifest.Generation != 8 {
		t.Fatal(tip, err)
	}
	p.states[0].HoldCommit, p.states[0].Key = held.Hash.String(), p.key("server").Public()
	got, err := p.store.Publish(t.Context(), snapshot(t, p.store).Commit, p.states)
	if err != nil || got[0].Err != nil || !got[0].Changed || got[0].Generation != 9 {
		t.Error(got, err)
	}
}

// TestPruneLetsRemovedServersGo drops the history of a server whose branch is removed.
func TestPruneLetsRemovedServersGo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.live(t, 8, 2*day)
	repo := p.store.Repo()
	for _, server := range []string{"web-1", "web-2"} {
		if _, err := repo.Apply(t.Context(), []gitrepo.Update{{Ref: manifest.ServerBranch(server), Delete: true}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := prune(t, p.store, gitstore.PruneOptions{Keep: 2 * day}); got.Ended != 2 || got.GarbageObjects == 0 {
		t.Errorf("prune: %+v", got)
	}
	if refs := repo.Refs(); len(refs) != 1 {
		t.Errorf("references: %v", refs)
	}
	if _, _, err := p.store.PrunedBefore("web-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("history of a removed server: %v", err)
	}
}

// TestWritersAtOnce has 8 writers put 25 files each on main: all are there, and none is told to try again.
func TestWritersAtOnce(t *testing.T) {
	t.Parallel()
	s := newWorld(t).open(1)
	type result struct {
		retries int
		err     error
	}
	results := make(chan result)
	for writer := range 8 {
		go func() {
			r := result{}
			for n := range 25 {
				name := fmt.Sprintf("c%d-%d", writer, n)
				change := gitstore.Change{Subject: "add " + name, Actor: ada, Edits: []gitrepo.Edit{certificateYAML(t, name, name+".example.com")}}
				snap, err := s.Snapshot()
				for ; err == nil; r.retries++ {
					change.Expect = snap.Commit
					if _, err = s.Apply(t.Context(), change); !errors.Is(err, gitstore.ErrConflict) {
						break
					}
					snap, err = s.Snapshot()
				}
				r.err = errors.Join(r.err, err)
			}
			results <- r
		}()
	}
	retries := 0
	for range 8 {
		r := <-results
		retries += r.retries
		if r.err != nil {
			t.Error(r.err)
		}
	}
	present := len(snapshot(t, s).Certificates)
	if present != 200 || retries > 20 {
		t.Errorf("%d of 200 present after %d retries", present, retries)
	}
	t.Logf("FAULT store.writers tried=200 survived=%d", present)
}

// TestStats counts each object once, in its group.
func TestStats(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	issue(t, p.store, "example.com", p.bundle(30, "example.com"))
	p.live(t, 6, 1000*day)
	prune(t, p.store, gitstore.PruneOptions{Keep: day})
	got, err := p.store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]int{"main": {1, 3}, "servers": {2, 2}, "proposals": {0, 0}, "earlier history": {1, 13}, "other": {0, 0}}
	objects, bytes := 0, int64(0)
	for _, g := range got.Groups {
		if want[g.Name] != [2]int{g.References, g.Commits} {
			t.Errorf("group %+v, want references and commits %v", g, want[g.Name])
		}
		objects, bytes = objects+g.Objects, bytes+g.Bytes
	}
	if objects != got.Objects || bytes > got.Bytes || bytes < got.Bytes/2 || got.GarbageObjects != 0 || got.References != 4 {
		t.Errorf("groups have %d objects of %d bytes, all: %+v", objects, bytes, got)
	}
	if len(got.Largest) != 10 || got.Largest[0].Path == "" || got.Largest[0].Bytes < got.Largest[9].Bytes {
		t.Errorf("largest: %+v", got.Largest)
	}
}
