package database_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
)

// TestAlerts walks an alert through its life: raised, raised again, cleared, raised anew.
func TestAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	first := hub.Alert{Kind: hub.AlertGitRemote, Object: "mirror", Level: hub.AlertWarning, Message: "it is down"}
	w.must(w.Raise(ctx, first))
	w.must(w.Raise(ctx, hub.Alert{Kind: hub.AlertGitRemote, Object: "other", Level: hub.AlertInfo, Message: "slow"}))
	w.pass(time.Hour)
	worse := first
	worse.Level, worse.Message = hub.AlertCritical, "it is down for an hour\x00"
	w.must(w.Raise(ctx, worse))

	all, err := w.Alerts(ctx, true, 0, 10)
	w.must(err)
	if len(all) != 2 || all[0].Object != "other" {
		t.Fatalf("got %+v, want two open alerts, the newer first", all)
	}
	want := hub.Alert{
		ID: all[1].ID, Kind: hub.AlertGitRemote, Object: "mirror", Level: hub.AlertCritical, Message: "it is down for an hour",
		State: hub.AlertOpen, Count: 2, FirstAt: start, LastAt: start.Add(time.Hour),
	}
	if all[1] != want {
		t.Errorf("got %+v\nwant %+v", all[1], want)
	}

	w.must(w.Clear(ctx, hub.AlertGitRemote, "mirror"))
	w.must(w.Clear(ctx, hub.AlertGitRemote, "mirror")) // nothing to clear is no fault
	w.must(w.Raise(ctx, first))
	open, err := w.Alerts(ctx, true, 0, 10)
	w.must(err)
	if len(open) != 2 || open[0].Count != 1 || open[0].Object != "mirror" {
		t.Errorf("got %+v, want a new alert that was raised once", open)
	}
	all, err = w.Alerts(ctx, false, 0, 10)
	w.must(err)
	if len(all) != 3 || all[2].State != hub.AlertResolved || !all[2].ResolvedAt.Equal(start.Add(time.Hour)) {
		t.Errorf("got %+v, want the resolved alert kept", all)
	}
	page, err := w.Alerts(ctx, false, all[0].ID, 1)
	w.must(err)
	if len(page) != 1 || page[0] != all[1] {
		t.Errorf("got %+v, want the second page to go on", page)
	}
}
