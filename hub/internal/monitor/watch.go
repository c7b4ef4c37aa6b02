// This file watches certificates: each has one moment at which its level changes, and is looked at then and at no other
// time.

package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

const (
	watchEvery = time.Minute
	// watchBatch is how many watches are read at once.
	watchBatch = 1000
)

// Watches keeps what is watched.
type Watches interface {
	PutWatches(ctx context.Context, watches []hub.Watch) error
	DeleteWatches(ctx context.Context, kind hub.WatchKind, objects []string) error
	DueWatches(ctx context.Context, now time.Time, limit int) ([]hub.Watch, error)
	WatchedLeaves(ctx context.Context, kind hub.WatchKind, prefix string) (map[string]string, error)
	IsManaged(ctx context.Context, leaf string) (bool, error)
}

// Store tells what was issued.
type Store interface {
	Snapshot() (*gitstore.Snapshot, error)
}

// Config is what a Monitor needs.
type Config struct {
	Store   Store
	Watches Watches
	Alerts  Alerts
	// Endpoints are looked at by Probe.
	Endpoints Endpoints
	Probe     Probe
	Now       func() time.Time
	// Random answers values in [0, 1).
	Random func() float64
	Logger *slog.Logger
}

// Monitor watches certificates that the hub manages, that agents found, and that endpoints show.
type Monitor struct {
	cfg Config
	// commit is that of main which managed watches were last held against, leaves what they are by name.
	commit string
	leaves map[string]string
}

// New makes a Monitor.
func New(cfg Config) *Monitor { return &Monitor{cfg: cfg} }

// Run watches until ctx is done.
func (m *Monitor) Run(ctx context.Context) error {
	// Endpoints that do not answer take their time; nobody else waits for them.
	var wg sync.WaitGroup
	wg.Go(func() { m.each(ctx, "watch certificates", m.watch) })
	wg.Go(func() { m.each(ctx, "look at endpoints", m.probeEndpoints) })
	wg.Wait()
	return nil
}

// each does something, called what, every minute until ctx is done.
func (m *Monitor) each(ctx context.Context, what string, do func(context.Context) error) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Logger.ErrorContext(ctx, "monitor failed", "step", what, "error", err, "again_in", watchEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Once does what Run does in a minute.
func (m *Monitor) Once(ctx context.Context) error {
	return errors.Join(m.watch(ctx), m.probeEndpoints(ctx))
}

// watch takes up what changed, and tells of what is due.
func (m *Monitor) watch(ctx context.Context) error {
	if err := m.takeUp(ctx); err != nil {
		return err
	}
	return m.due(ctx)
}

// takeUp brings the watches of managed certificates to what main has. Only what changed is written.
func (m *Monitor) takeUp(ctx context.Context) error {
	snapshot, err := m.cfg.Store.Snapshot()
	if err != nil || snapshot.Commit == m.commit {
		return err
	}
	if m.leaves == nil {
		if m.leaves, err = m.cfg.Watches.WatchedLeaves(ctx, hub.WatchManaged, ""); err != nil {
			return err
		}
	}
	var fresh []hub.Watch
	for name, have := range snapshot.Issued {
		if snapshot.Certificates[name] == nil || m.leaves[name] == have.LeafSHA256 {
			continue
		}
		fresh = append(fresh, hub.Watch{
			Kind: hub.WatchManaged, Object: name, Names: have.Names, Issuer: have.Issuer, LeafSHA256: have.LeafSHA256,
			NotBefore: have.NotBefore, NotAfter: have.NotAfter, SeenAt: m.cfg.Now(),
		})
	}
	var gone []string
	for name := range m.leaves {
		// A certificate that nobody wishes for any more is nobody's worry.
		if snapshot.Issued[name] == nil || snapshot.Certificates[name] == nil {
			gone = append(gone, name)
		}
	}
	if err := m.Take(ctx, fresh); err != nil {
		return err
	}
	if err := m.forget(ctx, hub.WatchManaged, gone); err != nil {
		return err
	}
	for i := range fresh {
		m.leaves[fresh[i].Object] = fresh[i].LeafSHA256
	}
	for _, name := range gone {
		delete(m.leaves, name)
	}
	m.commit = snapshot.Commit
	return nil
}

// Take begins to watch certificates, or takes them as they are now, and tells of each. They are told of before they are
// written down: where the hub dies in between, it tells twice, and no alarm is lost.
func (m *Monitor) Take(ctx context.Context, watches []hub.Watch) error {
	now := m.cfg.Now()
	for i := range watches {
		w := &watches[i]
		w.Level, w.NextAt = w.LevelAt(now)
		// Certificates hold what their makers like; people get names, and one line of text.
		w.Names = slices.DeleteFunc(slices.Clone(w.Names), func(name string) bool { return manifest.ValidDNSName(name) != nil })
		w.Issuer = oneLine(w.Issuer)
	}
	for i := range watches {
		if err := m.tell(ctx, &watches[i]); err != nil {
			return err
		}
	}
	return m.cfg.Watches.PutWatches(ctx, watches)
}

func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
	return strings.ToValidUTF8(text[:min(len(text), 256)], "")
}

// due tells of the watches whose level changes.
func (m *Monitor) due(ctx context.Context) error {
	for {
		due, err := m.cfg.Watches.DueWatches(ctx, m.cfg.Now(), watchBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		if err := m.Take(ctx, due); err != nil {
			return err
		}
		if len(due) < watchBatch {
			return nil
		}
	}
}

// object names a watch in alerts.
// tell raises or clears the alert of a watch.
func (m *Monitor) tell(ctx context.Context, w *hub.Watch) error {
	name := w.Kind.Alert(w.Object)
	if w.Level == hub.WatchOK {
		return m.cfg.Alerts.Clear(ctx, hub.AlertCertificateExpiring, name)
	}
	if w.Kind != hub.WatchManaged {
		managed, err := m.cfg.Watches.IsManaged(ctx, w.LeafSHA256)
		if err != nil {
			return err
		}
		if managed { // it is told of once, as the hub's own
			return m.cfg.Alerts.Clear(ctx, hub.AlertCertificateExpiring, name)
		}
	}
	a := hub.Alert{Kind: hub.AlertCertificateExpiring, Object: name, Level: hub.AlertWarning}
	until := w.NotAfter.UTC().Format("2006-01-02 15:04 UTC")
	switch w.Level {
	case hub.WatchExpired:
		a.Level, a.Message = hub.AlertCritical, "expired on "+until
	case hub.WatchCritical:
		a.Level, a.Message = hub.AlertCritical, "expires on "+until+": less than an eighth of its lifetime is left"
	default:
		a.Message = "expires on " + until + ": less than a quarter of its lifetime is left"
	}
	switch w.Kind {
	case hub.WatchManaged:
		a.Message += "; the hub should have renewed it: look at certferry cert show " + w.Object
	case hub.WatchFound:
		a.Message += "; nobody told the hub to renew it: take it over, or renew it where it comes from"
	case hub.WatchEndpoint:
		a.Message += "; renew it where it comes from"
	}
	return m.cfg.Alerts.Raise(ctx, a)
}

// forget ends watches and their alerts, which nobody would find any more without their watch.
func (m *Monitor) forget(ctx context.Context, kind hub.WatchKind, objects []string) error {
	for _, name := range objects {
		if err := m.cfg.Alerts.Clear(ctx, hub.AlertCertificateExpiring, kind.Alert(name)); err != nil {
			return err
		}
	}
	return m.cfg.Watches.DeleteWatches(ctx, kind, objects)
}

// Found takes what an agent found on its server, in place of what it found before.
func (m *Monitor) Found(ctx context.Context, server string, found []hub.Watch) error {
	before, err := m.cfg.Watches.WatchedLeaves(ctx, hub.WatchFound, server)
	if err != nil {
		return fmt.Errorf("take what server %s found: %w", server, err)
	}
	for i := range found {
		found[i].Kind, found[i].Object, found[i].SeenAt = hub.WatchFound, server+"/"+found[i].Object, m.cfg.Now()
		delete(before, found[i].Object)
	}
	var gone []string
	for name := range before {
		gone = append(gone, name)
	}
	if err := m.forget(ctx, hub.WatchFound, gone); err != nil {
		return fmt.Errorf("take what server %s found: %w", server, err)
	}
	if err := m.Take(ctx, found); err != nil {
		return fmt.Errorf("take what server %s found: %w", server, err)
	}
	return nil
}
