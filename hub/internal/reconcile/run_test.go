package reconcile_test

import (
	"context"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

// eventually polls for at most ten seconds.
func (w *world) eventually(what string, holds func() bool) {
	w.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			w.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

func TestRunFollowsMainTriggersAndTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	r, err := reconcile.New(w.cfg)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()

	// A change of main is seen without a trigger.
	w.want("example.com", at("web-1"))
	w.eventually("certificate at the server", func() bool {
		_, ok := w.store.Repo().Ref("refs/heads/servers/web-1")
		return ok && len(w.tip("web-1").Manifest.Deployments) == 1
	})
	// What only the database knows needs one.
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
	r.Trigger()
	r.Trigger()
	w.eventually("renewal by hand", func() bool { return len(w.ca.Orders()) == 2 })
	w.eventually("end of the job", func() bool { return w.job("example.com").Commit != "" })

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRunWakesByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Interval = 10 * time.Millisecond
	w.ca.Answer = fails(issuer.Retryable)
	w.want("example.com", nil)
	r, err := reconcile.New(w.cfg)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.eventually("a first try", func() bool {
		job, err := w.db.LatestJob(t.Context(), "example.com")
		return err == nil && job.NotBefore.After(w.clock.Now())
	})
	w.clock.Advance(2 * time.Minute)
	w.eventually("a second try", func() bool { return len(w.ca.Orders()) == 2 })
	cancel()
	w.must(<-done)
}

// broken is a database that fails where a test wants.
type broken struct {
	reconcile.Data

	servers, claim, running, latest bool
}

func (b broken) Servers(ctx context.Context, after string, limit int) ([]hub.Server, error) {
	if b.servers {
		return nil, errTest
	}
	return b.Data.Servers(ctx, after, limit)
}

func (b broken) ClaimJob(ctx context.Context, busy []string) (hub.Job, bool, error) {
	if b.claim {
		return hub.Job{}, false, errTest
	}
	return b.Data.ClaimJob(ctx, busy)
}

func (b broken) RunningJobs(ctx context.Context) ([]hub.Job, error) {
	if b.running {
		return nil, errTest
	}
	return b.Data.RunningJobs(ctx)
}

func (b broken) LatestOrders(ctx context.Context) (map[string]hub.Job, error) {
	if b.latest {
		return nil, errTest
	}
	return b.Data.LatestOrders(ctx)
}

func TestStepThatFailsDoesNotKeepTheOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
	w.cfg.Data = broken{Data: w.db, latest: true}
	r, err := reconcile.New(w.cfg)
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.eventually("certificate at the server", func() bool {
		_, ok := w.store.Repo().Ref("refs/heads/servers/web-1")
		return ok && len(w.tip("web-1").Manifest.Deployments) == 1
	})
	cancel()
	w.must(<-done)
}

func TestOnceSaysWhatFailed(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]broken{
		"servers": {servers: true}, "claim": {claim: true}, "running": {running: true}, "latest": {latest: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.want("example.com", nil)
			data.Data = w.db
			w.cfg.Data = data
			r, err := reconcile.New(w.cfg)
			w.must(err)
			if err := r.Once(t.Context()); err == nil {
				t.Error("no error")
			}
			if name == "running" {
				if err := r.Run(t.Context()); err == nil {
					t.Error("the loop began without knowing what was left")
				}
			}
		})
	}
}

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, spoil := range map[string]func(*reconcile.Config){
		"store":    func(c *reconcile.Config) { c.Store = nil },
		"clock":    func(c *reconcile.Config) { c.Now = nil },
		"domain":   func(c *reconcile.Config) { c.Domain = "" },
		"workers":  func(c *reconcile.Config) { c.Workers = 0 },
		"interval": func(c *reconcile.Config) { c.Interval = 0 },
	} {
		cfg := w.cfg
		spoil(&cfg)
		if _, err := reconcile.New(cfg); err == nil {
			t.Errorf("%s missing: no error", name)
		}
	}
	cfg := w.cfg
	cfg.Random = nil
	if _, err := reconcile.New(cfg); err != nil {
		t.Error(err)
	}
}
