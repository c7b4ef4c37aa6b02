package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/issuer"
)

const (
	// walkLimit bounds how many commits of main are compared with the outbox.
	walkLimit = 100_000
	// clockSlack forgives a clock that was set back between a job and its commit.
	clockSlack = day
)

// recover takes up the jobs that were running when the last process ended. A job whose commit landed on main is
// done: what was ordered is there. Any other is queued again.
func (r *Reconciler) recover(ctx context.Context) error {
	if err := r.recallAlerts(ctx); err != nil {
		return err
	}
	if err := r.recallRenewals(ctx); err != nil {
		return err
	}
	if err := r.clearUp(ctx); err != nil {
		return err
	}
	return r.takeUp(ctx, r.cfg.Data.RequeueJob)
}

// putOffLost has a job tried again whose outcome could not be written down. Nobody knows what the CA said, so that it is
// not asked at once.
func (r *Reconciler) putOffLost(ctx context.Context, id string) error {
	return r.cfg.Data.WaitJob(ctx, id, r.cfg.Now().Add(localBackoff), string(issuer.Local), "the outcome could not be written down")
}

// takeUp ends the jobs that run in the database and not in this process, or has them tried again: those of the last
// process, and those whose outcome could not be written down.
func (r *Reconciler) takeUp(ctx context.Context, again func(ctx context.Context, id string) error) error {
	// First what runs here: a job that ends between the two looks is taken for one that runs, and not for a lost one.
	mine := r.runningIDs()
	running, err := r.cfg.Data.RunningJobs(ctx)
	if err != nil {
		return err
	}
	for i := range running {
		job := &running[i]
		if mine[job.ID] {
			continue
		}
		landed := false
		if job.Commit != "" {
			if landed, err = r.landed(job.Commit, job.Certificate, job.CreatedAt); err != nil {
				return fmt.Errorf("take up job %s: %w", job.ID, err)
			}
		}
		if landed {
			err = r.finish(ctx, *job)
		} else {
			err = again(ctx, job.ID)
		}
		if err != nil {
			return fmt.Errorf("take up job %s: %w", job.ID, err)
		}
		r.cfg.Logger.InfoContext(ctx, "interrupted job taken up", "job", job.ID, "certificate", job.Certificate, "landed", landed)
	}
	return nil
}

// runningIDs are the jobs under way in this process.
func (r *Reconciler) runningIDs() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make(map[string]bool, len(r.running))
	for id := range r.running {
		ids[id] = true
	}
	return ids
}

// clearUp ends what orders left running when the last process was killed, and books what they spent. What cannot be
// cleared up is told and stops nobody.
func (r *Reconciler) clearUp(ctx context.Context) error {
	if r.cfg.Leftovers == nil {
		return nil
	}
	left, err := r.cfg.Leftovers(ctx)
	if err != nil {
		r.cfg.Logger.ErrorContext(ctx, "not all that interrupted orders left could be cleared up", "error", err)
	}
	for _, l := range left {
		r.cfg.Logger.WarnContext(ctx, "interrupted order cleared up", "order", l.OrderID, "phase", l.Phase, "records_left", len(l.Records))
		if r.cfg.Ledger == nil || l.Phase == "" {
			continue
		}
		out := ledger.Outcome{Phase: l.Phase, Err: &issuer.Error{Class: issuer.Retryable}}
		if err := ledger.Settle(ctx, r.cfg.Ledger, ledger.Order{ID: l.OrderID}, out, r.cfg.Now()); err != nil {
			return err
		}
	}
	return nil
}

// landed tells whether main, or a proposal of the certificate, holds a commit that was made after since.
func (r *Reconciler) landed(commit, certificate string, since time.Time) (bool, error) {
	proposals, err := r.cfg.Store.Proposals()
	if err != nil {
		return false, err
	}
	for _, p := range proposals {
		if p.Certificate == certificate && p.Commit.Hash.String() == commit {
			return true, nil
		}
	}
	head, ok := r.cfg.Repo.Ref(manifest.MainBranch)
	if !ok {
		return false, errors.New("main does not exist")
	}
	// The commit is among the newest ones, so the walk goes in steps.
	for limit := 64; ; limit *= 8 {
		log, err := r.cfg.Repo.Log(head, limit)
		if err != nil {
			return false, err
		}
		for _, c := range log {
			if c.Hash.String() == commit {
				return true, nil
			}
			if c.Committer.When.Before(since.Add(-clockSlack)) {
				return false, nil
			}
		}
		if len(log) < limit || limit > walkLimit {
			return false, nil
		}
	}
}
