package reconcile_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

func TestWhatTheCASignedIsKept(t *testing.T) {
	t.Parallel()
	t.Run("when the process is told to stop", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("shop", nil)
		ctx, stop := context.WithCancel(t.Context())
		w.ca.Answer = func(context.Context, issuer.Request) error {
			stop()
			return nil
		}
		r, err := reconcile.New(w.cfg)
		w.must(err)
		if err := r.Once(ctx); err == nil {
			t.Error("a stopped pass says that it is done")
		}
		w.issued("shop")
		w.wantJob("shop", apiv1.JobDone, "")
	})
	t.Run("when somebody cancels", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("shop", nil)
		asked := make(chan struct{})
		w.ca.Answer = func(ctx context.Context, _ issuer.Request) error {
			close(asked)
			<-ctx.Done()
			return nil
		}
		r, err := reconcile.New(w.cfg)
		w.must(err)
		done := make(chan error, 1)
		go func() { done <- r.Once(t.Context()) }()
		<-asked
		if _, err := r.Cancel(t.Context(), w.job("shop").ID, hub.AuditEvent{Actor: "ada"}); !errors.Is(err, hub.ErrConflict) {
			t.Errorf("cancel: %v, want a conflict", err)
		}
		w.must(<-done)
		w.issued("shop")
		w.wantJob("shop", apiv1.JobDone, "")
	})
}

// full is a database that cannot write the first outcome of a job.
type full struct {
	reconcile.Data

	refused atomic.Bool
}

func (f *full) FinishJob(ctx context.Context, id string) error {
	if f.refused.CompareAndSwap(false, true) {
		return errTest
	}
	return f.Data.FinishJob(ctx, id)
}

func (f *full) FailJob(ctx context.Context, id, class, message string) error {
	if f.refused.CompareAndSwap(false, true) {
		return errTest
	}
	return f.Data.FailJob(ctx, id, class, message)
}

func TestAnOutcomeThatCouldNotBeWrittenDownIsTakenUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(context.Context, issuer.Request) error
		want   apiv1.JobState
		wait   time.Duration
	}{
		"success": {nil, apiv1.JobDone, 0},
		// The CA may have asked to wait: it is not asked at once.
		"failure": {fails(issuer.Permanent), apiv1.JobWaiting, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.Data = &full{Data: w.db}
			w.ca.Answer = c.answer
			w.want("shop", nil)
			r, err := reconcile.New(w.cfg)
			w.must(err)
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			w.eventually("the job to be taken up", func() bool {
				job, err := w.db.LatestJob(t.Context(), "shop")
				return err == nil && job.State == c.want
			})
			stop()
			w.must(<-done)
			job := w.job("shop")
			if n := len(w.ca.Orders()); n != 1 || c.wait > 0 && job.NotBefore.Before(w.clock.Now().Add(c.wait)) {
				t.Errorf("%d orders, job %+v", n, job)
			}
		})
	}
}

// late is a database in which a job ends just before it is cancelled.
type late struct {
	reconcile.Data

	end func(id string) error
}

func (l late) CancelJob(ctx context.Context, id string, settings map[string]string, event hub.AuditEvent) (hub.Job, error) {
	if err := l.end(id); err != nil {
		return hub.Job{}, err
	}
	return l.Data.CancelJob(ctx, id, settings, event)
}

func TestCancellingTooLateLeavesNoMark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("shop", nil)
	w.ca.Answer = fails(issuer.Retryable)
	w.once()
	w.cfg.Data = late{w.db, func(id string) error { return w.db.FailJob(t.Context(), id, string(issuer.Account), "") }}
	r, err := reconcile.New(w.cfg)
	w.must(err)
	if _, err := r.Cancel(t.Context(), w.job("shop").ID, hub.AuditEvent{Actor: "ada", Action: "cancel-job"}); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("cancel: %v, want a conflict", err)
	}
	// Nothing was cancelled, so that the hub goes on by itself.
	w.ca.Answer = nil
	w.once()
	w.issued("shop")
}

func TestWhatNoCAIsAskedAboutHasNoPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hubtest.Put(t, w.store, manifest.IssuerPath("acme"), &manifest.Issuer{
		Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/directory"},
	})
	w.want("shop", func(c *manifest.Certificate) {
		c.Issuer, c.Challenge = "acme", &manifest.Challenge{Type: "http-01", Method: "standalone"}
	})
	w.once()
	w.once() // which takes up what was issued
	if plans, err := w.db.Renewals(t.Context()); err != nil || len(plans) != 1 {
		t.Fatalf("plans: %+v, %v", plans, err)
	}
	w.clock.Advance(time.Hour)
	w.want("shop", nil)
	w.once()
	w.once()
	if plans, err := w.db.Renewals(t.Context()); err != nil || len(plans) != 0 {
		t.Errorf("plans of a certificate of the private CA: %+v, %v", plans, err)
	}
}
