package monitor_test

import (
	"context"
	"errors"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/monitor"
)

// deaf are alerts that fail as long as broken is set.
type deaf struct {
	monitor.Alerts

	broken bool
}

var errDeaf = errors.New("the disk is full")

func (d *deaf) Raise(ctx context.Context, a hub.Alert) error {
	if d.broken {
		return errDeaf
	}
	return d.Alerts.Raise(ctx, a)
}

func (d *deaf) Clear(ctx context.Context, kind hub.AlertKind, object string) error {
	if d.broken {
		return errDeaf
	}
	return d.Alerts.Clear(ctx, kind, object)
}

// TestAnAlarmThatCouldNotBeRaisedIsRaisedLater: also where the hub was started again in between.
func TestAnAlarmThatCouldNotBeRaisedIsRaisedLater(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	alerts := &deaf{Alerts: y.db}
	y.cfg.Alerts = alerts
	fail := func() {
		t.Helper()
		alerts.broken = true
		y.m = monitor.New(y.cfg)
		if err := y.m.Once(t.Context()); !errors.Is(err, errDeaf) {
			t.Fatalf("error %v", err)
		}
		alerts.broken = false
		y.m = monitor.New(y.cfg)
	}
	y.m = monitor.New(y.cfg)
	y.issue("shop", "leaf-1")
	y.expect("")
	y.clock.Advance(61 * day)
	fail()
	y.expect("managed shop warning")
	// Nor does one stay for ever that could not be taken back.
	delete(y.snap.Certificates, "shop")
	y.snap.Commit += "x"
	fail()
	y.expect("")
}

// TestAnAlarmIsTakenBackWhenTheHubTakesOver: what the hub manages is told of as its own.
func TestAnAlarmIsTakenBackWhenTheHubTakesOver(t *testing.T) {
	t.Parallel()
	y := newYard(t)
	found := hub.Watch{Object: "site", LeafSHA256: "leaf-1", NotBefore: y.clock.Now(), NotAfter: y.clock.Now().Add(80 * day)}
	y.must(y.m.Found(t.Context(), "web-1", []hub.Watch{found}))
	y.issue("wiki", "leaf-1")
	taken := y.snap
	y.clock.Advance(61 * day)
	y.snap = nil
	y.must(y.m.Found(t.Context(), "web-1", []hub.Watch{found}))
	y.snap = taken
	y.must(y.m.Once(t.Context()))
	y.must(y.m.Found(t.Context(), "web-1", []hub.Watch{found}))
	if got := y.alerts(hub.AlertCertificateExpiring); got != "managed wiki warning" {
		t.Errorf("alerts %q", got)
	}
}
