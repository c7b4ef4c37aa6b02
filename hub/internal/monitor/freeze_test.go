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
