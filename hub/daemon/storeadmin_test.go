package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// TestStoreIsPruned drops what nothing leads to, in a running hub and in a stopped one.
func TestStoreIsPruned(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	cfg.StoreKeep = 24 * time.Hour
	log := &output{}
	h, err := New(t.Context(), cfg, options(&output{}, log))
	if err != nil {
		t.Fatal(err)
	}
	litter(t, h.store.Repo())
	if _, err := CountStore(t.Context(), cfg, time.Now); !errors.Is(err, ErrRunning) {
		t.Errorf("count beside a running hub: %v", err)
	}
	h.pruneStore(t.Context())
	if text := log.String(); !strings.Contains(text, "repository pruned") || !strings.Contains(text, "garbage_objects=3 packs_replaced=1") {
		t.Errorf("log: %s", text)
	}
	litter(t, h.store.Repo())
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.pruneStore(t.Context())
	if !strings.Contains(log.String(), "repository not pruned") {
		t.Error("a failure was not logged")
	}
	before, err := CountStore(t.Context(), cfg, time.Now)
	if err != nil || before.GarbageObjects != 3 || before.References != 1 || len(before.Groups) == 0 || before.Groups[0].Commits == 0 {
		t.Errorf("count: %+v, %v", before, err)
	}
	for _, dry := range []bool{true, false} {
		report, err := PruneStore(t.Context(), cfg, time.Hour, dry, time.Now)
		if err != nil || report.GarbageObjects != 3 || report.DryRun != dry || report.Keep != "1h0m0s" {
			t.Errorf("prune, dry %v: %+v, %v", dry, report, err)
		}
	}
	after, err := CountStore(t.Context(), cfg, time.Now)
	if err != nil || after.GarbageObjects != 0 || after.Objects != before.Objects-3 {
		t.Errorf("count after: %+v, %v", after, err)
	}
}

// litter makes a branch with a file of 100 KiB and takes it away.
func litter(t *testing.T, repo *gitrepo.Repo) {
	t.Helper()
	const ref = "refs/heads/proposals/x/1"
	who := gitrepo.Person{Name: "Ada", Email: "ada@example.com"}
	data := make([]byte, 100<<10)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	for _, u := range []gitrepo.Update{
		{Ref: ref, Author: who, Committer: who, Message: "litter", Edits: []gitrepo.Edit{{Path: "x", Data: data}}}, {Ref: ref, Delete: true},
	} {
		if _, err := repo.Apply(t.Context(), []gitrepo.Update{u}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeepStoreEnds does nothing where everything is to be kept, and ends with the hub.
func TestKeepStoreEnds(t *testing.T) {
	t.Parallel()
	if err := (&Hub{}).keepStore(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Hub{cfg: Config{StoreKeep: time.Hour}}).keepStore(ctx); err != nil {
		t.Error(err)
	}
}
