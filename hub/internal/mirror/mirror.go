// Package mirror keeps other Git hosts at what the hub's repository holds, and takes up what people commit to main
// there.
//
// Nothing is queued: what a remote lacks is the difference between its references and the hub's, so that a crash
// loses nothing. The hub's copy is the master. Main is never forced: commits of others go through Intake first.
// Branches of servers and proposals are the hub's alone; what others do to them is put back.
package mirror

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub"
)

// Remote is a repository elsewhere; *gitrepo.Remote is one.
type Remote interface {
	List(ctx context.Context, prefixes ...string) (map[string]gitrepo.Hash, error)
	FetchHistory(ctx context.Context, repo *gitrepo.Repo, tip gitrepo.Hash, haves []gitrepo.Hash) (*gitrepo.Incoming, error)
	Push(ctx context.Context, repo *gitrepo.Repo, updates []gitrepo.RefUpdate, atomic bool) ([]gitrepo.RefResult, error)
}

// Intake decides about commits that people made on a remote. When it returns nil, the hub's main leads to tip.
type Intake interface {
	Take(ctx context.Context, remote string, in *gitrepo.Incoming, tip gitrepo.Hash) error
}

// Alerts tells people.
type Alerts interface {
	Raise(ctx context.Context, a hub.Alert) error
	Clear(ctx context.Context, kind hub.AlertKind, object string) error
}

// Target is one remote.
type Target struct {
	// Name is the remote's name in the configuration, URL what people are shown.
	Name   string
	URL    string
	Remote Remote
	// Intent says that people's commits to main count.
	Intent bool
}

// Config is what New needs; all of it is required, but for Interval.
type Config struct {
	Repo    *gitrepo.Repo
	Targets []Target
	Intake  Intake
	Alerts  Alerts
	// Interval is the longest time between two looks at a remote; a minute by default.
	Interval time.Duration
	Now      func() time.Time
	Logger   *slog.Logger
}

const (
	// firstDelay and longestDelay bound the time until a remote that failed is tried again.
	firstDelay   = 5 * time.Second
	longestDelay = 10 * time.Minute
	// patience is how many failures in a row that may pass by themselves are not worth an alert.
	patience = 3
	// rewrittenFor is how long an alert about history stays after the last sign of it.
	rewrittenFor = time.Hour
)

// Mirror keeps all remotes.
type Mirror struct{ loops []*loop }

// New returns the mirror of cfg.Targets.
func New(cfg Config) *Mirror {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	m := &Mirror{}
	for _, t := range cfg.Targets {
		m.loops = append(m.loops, newLoop(&cfg, t))
	}
	return m
}

// Run keeps the remotes until ctx is done. No failure of a remote ends it.
func (m *Mirror) Run(ctx context.Context) error {
	var group errgroup.Group
	for _, l := range m.loops {
		group.Go(func() error {
			l.run(ctx)
			return nil
		})
	}
	return group.Wait()
}

// Status says how the remotes are doing, in the order of the configuration.
func (m *Mirror) Status() []hub.RemoteStatus {
	all := make([]hub.RemoteStatus, 0, len(m.loops))
	for _, l := range m.loops {
		all = append(all, l.snapshot())
	}
	return all
}

// loop keeps one remote. Only its own goroutine changes it, under mu.
type loop struct {
	cfg    *Config
	target Target
	log    *slog.Logger
	// delay is the first delay after a failure.
	delay time.Duration

	mu     sync.Mutex
	status hub.RemoteStatus
	// there is what the remote is known to hold; nil before the first look.
	there map[string]gitrepo.Hash
	// single says that the remote cannot move references all or none.
	single bool
	// rewritten is when somebody replaced history last.
	rewritten time.Time
	// told says that alerts may be open.
	told bool
}

func newLoop(cfg *Config, t Target) *loop {
	return &loop{
		cfg: cfg, target: t, log: cfg.Logger.With(slog.String("remote", t.Name)), delay: firstDelay, told: true,
		status: hub.RemoteStatus{Name: t.Name, URL: t.URL, Intent: t.Intent, State: hub.RemoteStarting},
	}
}

func (l *loop) run(ctx context.Context) {
	for ctx.Err() == nil {
		changed := l.cfg.Repo.Changed()
		err := l.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := l.note(ctx, err)
		if err != nil {
			changed = nil // a remote that fails is not asked more often because the hub has news
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// note keeps and tells the outcome of a pass, and says when the next one is due.
func (l *loop) note(ctx context.Context, err error) time.Duration {
	l.mu.Lock()
	s := &l.status
	now := l.cfg.Now()
	wait := jitter(l.cfg.Interval)
	if err == nil {
		if s.Failures > 0 {
			l.log.InfoContext(ctx, "remote is well again", slog.Int("failures", s.Failures))
		}
		s.State, s.LastOK, s.Failures, s.LastError, s.LastErrorAt, s.NextTry = hub.RemoteCurrent, now, 0, "", time.Time{}, time.Time{}
	} else {
		s.State = hub.RemoteFailing
		if errors.Is(err, errUnrelated) {
			s.State = hub.RemoteUnrelated
		}
		s.Failures++
		s.LastError, s.LastErrorAt = advice(err), now
		wait = max(jitter(backOff(l.delay, s.Failures)), gitrepo.RetryAfter(err))
		s.NextTry = now.Add(wait)
		l.log.WarnContext(ctx, "remote not brought up to date", slog.Any("error", err), slog.Int("failures", s.Failures), slog.Duration("next_try", wait))
	}
	status, rewritten := *s, l.rewritten
	l.mu.Unlock()
	if fault := l.tell(ctx, status, rewritten, err); fault != nil && ctx.Err() == nil {
		l.log.ErrorContext(ctx, "alert not recorded", slog.Any("error", fault))
	}
	return wait
}

// tell raises and clears alerts.
func (l *loop) tell(ctx context.Context, s hub.RemoteStatus, rewritten time.Time, err error) error {
	switch {
	case err == nil:
		if !l.told {
			return nil
		}
		if fault := l.cfg.Alerts.Clear(ctx, hub.AlertGitRemote, s.Name); fault != nil {
			return fault
		}
		if l.cfg.Now().Sub(rewritten) < rewrittenFor {
			return nil
		}
		fault := l.cfg.Alerts.Clear(ctx, hub.AlertHistoryRewritten, s.Name)
		l.told = fault != nil
		return fault
	case errors.Is(err, errUnrelated):
		l.told = true
		return l.cfg.Alerts.Raise(ctx, hub.Alert{Kind: hub.AlertHistoryRewritten, Object: s.Name, Level: hub.AlertCritical, Message: s.LastError})
	case s.Failures >= patience || !passes(err):
		l.told = true
		return l.cfg.Alerts.Raise(ctx, hub.Alert{Kind: hub.AlertGitRemote, Object: s.Name, Level: hub.AlertWarning, Message: s.LastError})
	}
	return nil
}

// foreign tells people that others changed what is the hub's alone.
func (l *loop) foreign(ctx context.Context, message string) {
	l.mu.Lock()
	l.rewritten = l.cfg.Now()
	l.mu.Unlock()
	l.told = true
	l.log.WarnContext(ctx, "history on a remote was changed by somebody else", slog.String("what", message))
	err := l.cfg.Alerts.Raise(ctx, hub.Alert{Kind: hub.AlertHistoryRewritten, Object: l.target.Name, Level: hub.AlertWarning, Message: message})
	if err != nil && ctx.Err() == nil {
		l.log.ErrorContext(ctx, "alert not recorded", slog.Any("error", err))
	}
}

func (l *loop) snapshot() hub.RemoteStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.status
	if l.there != nil {
		s.Behind = len(differences(l.cfg.Repo.Refs(), l.there))
		if s.State == hub.RemoteUnrelated {
			s.Behind = 0
		}
	}
	return s
}

// backOff doubles from first with each failure.
func backOff(first time.Duration, failures int) time.Duration {
	return min(first<<min(failures-1, 20), longestDelay)
}

// jitter spreads d by up to a fifth.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(max(2*d/5, 1)) //nolint:gosec // spreading load needs no secret randomness
}
