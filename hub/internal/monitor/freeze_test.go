package monitor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/monitor"
)

type alerts struct {
	open   map[string]string
	clears int
	err    error
}

func (a *alerts) Raise(_ context.Context, x hub.Alert) error {
	if a.err == nil && x.Kind == hub.AlertFreezeSuspected {
		a.open[x.Object] = x.Message
	}
	return a.err
}

// unknown hears of states that are not the hub's.
type unknown struct{ raised, cleared []string }

func (u *unknown) Raise(_ context.Context, x hub.Alert) error {
	if x.Kind == hub.AlertStateUnknown {
		u.raised = append(u.raised, string(x.Level)+" "+x.Message)
	}
	return nil
}

func (u *unknown) Clear(_ context.Context, kind hub.AlertKind, _ string) error {
	if kind == hub.AlertStateUnknown {
		u.cleared = append(u.cleared, string(kind))
	}
	return nil
}

// TestStatesOfSomebodyElse: an agent that follows a stolen key is told of at once, not at each heartbeat, and until it
// is back.
func TestStatesOfSomebodyElse(t *testing.T) {
	t.Parallel()
	u := &unknown{}
	f := monitor.NewFreezes(u, time.Now)
	for _, step := range []struct {
		newest, expected uint64
		raised, cleared  int
	}{
		{5, 5, 0, 1},
		{1<<53 - 1, 6, 1, 1},
		{1<<53 - 1, 6, 1, 1},
		{1<<53 - 1, 7, 1, 1},
		{1 << 60, 7, 2, 1},
		{6, 7, 2, 1},
		{7, 7, 2, 2},
		{7, 7, 2, 2},
		{1 << 60, 7, 3, 2},
	} {
		if err := f.Seen(t.Context(), "web-1", step.newest, step.expected); err != nil {
			t.Fatal(err)
		}
		if len(u.raised) != step.raised || len(u.cleared) != step.cleared {
			t.Fatalf("%+v: raised %d, cleared %d", step, len(u.raised), len(u.cleared))
		}
	}
	if text := u.raised[0]; !strings.HasPrefix(text, "critical server web-1 took a state of generation 9007199254740991, and this hub made none after 6") {
		t.Error(text)
	}
}

func (a *alerts) Clear(_ context.Context, _ hub.AlertKind, object string) error {
	if a.clears++; a.err == nil {
		delete(a.open, object)
	}
	return a.err
}

func TestFreezes(t *testing.T) {
	t.Parallel()
	a := &alerts{open: map[string]string{"web-2": "of the run before"}}
	now := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	f := monitor.NewFreezes(a, func() time.Time { return now })
	seen := func(after time.Duration, newest, expected uint64, open bool) {
		t.Helper()
		now = now.Add(after)
		if err := f.Seen(t.Context(), "web-1", newest, expected); err != nil {
			t.Fatal(err)
		}
		if (a.open["web-1"] != "") != open {
			t.Errorf("generation %d of %d after %s: alerts %v", newest, expected, after, a.open)
		}
	}
	seen(0, 5, 5, false)
	seen(time.Minute, 5, 6, false)
	seen(4*time.Minute, 5, 7, false)
	seen(2*time.Minute, 5, 7, true)
	if text := a.open["web-1"]; !strings.Contains(text, "generation 5") || !strings.Contains(text, "holds 7") || !strings.Contains(text, "09:01") {
		t.Errorf("message %q", text)
	}
	seen(time.Minute, 6, 7, true) // it moves: the time begins anew, the alert stays
	seen(time.Minute, 7, 7, false)
	seen(time.Minute, 7, 8, false)
	seen(3*time.Minute, 8, 8, false)
	seen(3*time.Minute, 8, 9, false)

	clears := a.clears
	seen(time.Minute, 9, 9, false)
	for range 10 {
		seen(time.Minute, 9, 9, false)
	}
	if a.clears-clears > 0 {
		t.Errorf("%d more clears where nothing was open", a.clears-clears)
	}
	if err := f.Seen(t.Context(), "web-2", 1, 1); err != nil || a.open["web-2"] != "" {
		t.Errorf("an alert of the run before stays: %v", err)
	}
	a.err = errors.New("disk")
	if err := f.Seen(t.Context(), "web-3", 1, 1); err == nil {
		t.Error("a failure to clear is not told")
	}
}
