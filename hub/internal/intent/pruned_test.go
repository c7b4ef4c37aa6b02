package intent_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

// TestRollbackToPrunedHistory reaches into the earlier epoch while it is kept, and says so when it is gone.
func TestRollbackToPrunedHistory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := hubtest.NewKey(t, "web-1", f.clock.Now()).Public()
	f.must(f.service.EnsureServer(t.Context(), "web-1", nil))
	f.create("a.example", nil)
	f.issue("a.example")
	first := f.deploy(key, "a.example")
	prune := func(keep time.Duration) gitstore.PruneReport {
		t.Helper()
		report, err := f.store.Prune(t.Context(), gitstore.PruneOptions{Keep: keep})
		f.must(err)
		return report
	}
	refresh := func() {
		t.Helper()
		for range 4 {
			f.clock.Advance(25 * time.Hour)
			f.deploy(key, "a.example")
		}
	}
	refresh()
	if got := prune(time.Hour); got.Begun != 1 {
		t.Fatalf("prune: %+v", got)
	}
	f.must(f.service.RollbackServer(t.Context(), ada, "", "web-1", first, ""))
	f.must(f.service.ResumeServer(t.Context(), ada, "", "web-1"))
	refresh()
	if got := prune(time.Hour); got.Ended != 1 {
		t.Fatalf("prune: %+v", got)
	}
	f.refused(f.service.RollbackServer(t.Context(), ada, "", "web-1", first, ""), hub.ErrNotFound, f.head(), "was pruned (store_keep)")
}
