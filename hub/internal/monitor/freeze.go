// Package monitor draws conclusions from what agents say.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/certferry/certferry/hub"
)

// Alerts tells people.
type Alerts interface {
	Raise(ctx context.Context, a hub.Alert) error
	Clear(ctx context.Context, kind hub.AlertKind, object string) error
}

// FreezeAfter is how long a living agent may see less than its branch holds before somebody is told.
const FreezeAfter = 5 * time.Minute

// Freezes finds agents that live and do not get what their branch holds: a remote is down for them, behind, or holds
// newer states back. What it knows is lost with the process; the time begins anew then.
type Freezes struct {
	alerts Alerts
	now    func() time.Time

	mu      sync.Mutex
	servers map[string]*freeze
}

// freeze is what is known of one server.
type freeze struct {
	// newest is what the agent said last, since when it has not grown while it was too old.
	newest uint64
	since  time.Time
	// settled says that no alert of this server is open.
	settled bool
	// unknown is the generation beyond those of the branch that people were told of.
	unknown uint64
}

// NewFreezes returns a Freezes that knows of nothing.
func NewFreezes(alerts Alerts, now func() time.Time) *Freezes {
	return &Freezes{alerts: alerts, now: now, servers: map[string]*freeze{}}
}

// Seen notes a heartbeat: newest is the generation that the agent of server verified last, expected that of its branch.
func (f *Freezes) Seen(ctx context.Context, server string, newest, expected uint64) error {
	now := f.now()
	f.mu.Lock()
	s := f.servers[server]
	if s == nil {
		s = &freeze{}
		f.servers[server] = s
	}
	settle, tell, unknown := false, false, false
	switch {
	case newest > expected:
		unknown = s.unknown != newest
	case newest == expected:
		s.since, settle = time.Time{}, !s.settled
	case s.since.IsZero() || newest != s.newest:
		s.since = now
	case now.Sub(s.since) > FreezeAfter:
		tell = true
	}
	s.newest = newest
	since := s.since
	f.mu.Unlock()

	var err error
	switch {
	case unknown:
		err = f.unknown(ctx, s, server, newest, expected)
	case settle:
		if err = errors.Join(f.alerts.Clear(ctx, hub.AlertFreezeSuspected, server), f.alerts.Clear(ctx, hub.AlertStateUnknown, server)); err == nil {
			f.settle(s, true)
		}
	case tell:
		f.settle(s, false)
		err = f.alerts.Raise(ctx, hub.Alert{
			Kind: hub.AlertFreezeSuspected, Object: server, Level: hub.AlertWarning,
			Message: fmt.Sprintf("server %s lives, but has seen generation %d since %s while its branch holds %d: its Git remotes are behind, down for it, or hold newer states back. Look at certferry remote ls, and on the server at certferry-agent status.",
				server, newest, since.UTC().Format("2006-01-02 15:04"), expected),
		})
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("tell of freeze: %w", err)
	}
	return err
}

// unknown tells that an agent verified a state that is not of this hub. Only a signing key makes one.
func (f *Freezes) unknown(ctx context.Context, s *freeze, server string, newest, expected uint64) error {
	err := f.alerts.Raise(ctx, hub.Alert{
		Kind: hub.AlertStateUnknown, Object: server, Level: hub.AlertCritical,
		Message: fmt.Sprintf("server %s took a state of generation %d, and this hub made none after %d: either an older copy of the hub was put back, or somebody else has its signing key. In that case run certferry-hub key rotate --compromised; the guide on keys says what follows.",
			server, newest, expected),
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	s.settled = false
	if err == nil {
		s.unknown = newest
	}
	return err
}

func (f *Freezes) settle(s *freeze, settled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.settled = settled
	if settled {
		s.unknown = 0
	}
}
