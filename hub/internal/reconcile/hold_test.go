package reconcile_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

// TestHeldServerNearsTheEnd tells people of a held server before what it serves ends, louder near the end, and stops
// when the hold does.
func TestHeldServerNearsTheEnd(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 1, nil)
	hold := func(on bool) {
		t.Helper()
		server := &manifest.Server{Name: "web-0", Labels: map[string]string{"role": "edge"}}
		if on {
			server.Hold = &manifest.Hold{Commit: w.tip("web-0").Commit, By: "ada", Since: w.clock.Now()}
		}
		hubtest.Put(t, w.store, manifest.ServerPath("web-0"), server)
		w.once()
	}
	end := w.issued("shop").NotAfter
	hold(true)
	if a := w.alerts(); len(a) != 0 {
		t.Fatalf("got %+v for a fresh certificate", a)
	}
	for _, tc := range []struct {
		left  time.Duration
		level hub.AlertLevel
	}{{13 * day, hub.AlertWarning}, {12 * day, hub.AlertWarning}, {2 * day, hub.AlertCritical}} {
		w.clock.Advance(end.Sub(w.clock.Now()) - tc.left)
		w.once()
		if a := w.alerts(); len(a) != 1 || a[0].Kind != hub.AlertHoldExpiring || a[0].Object != "web-0" || a[0].Level != tc.level {
			t.Errorf("%s before the end: got %+v, want %s", tc.left, a, tc.level)
		}
	}
	hold(false)
	if a := w.alerts(); len(a) != 0 {
		t.Errorf("got %+v after the hold", a)
	}
}
