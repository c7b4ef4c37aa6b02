package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/internal/failpoint"
	"github.com/certferry/certferry/issuer"
)

// startOrders starts as many jobs as there are free workers, and says how many.
func (r *Reconciler) startOrders(ctx context.Context) (started int, err error) {
	for {
		select {
		case r.workers <- struct{}{}:
		default:
			return started, nil
		}
		job, found, err := r.cfg.Data.ClaimJob(ctx, r.busyIssuers())
		if err != nil || !found {
			<-r.workers
			return started, err
		}
		started++
		running := r.begun(ctx, job)
		r.orders.Go(func() {
			defer r.Trigger()
			defer func() { <-r.workers }()
			defer r.ended(running)
			r.work(running.ctx, job)
		})
	}
}

// work runs one job and writes down what became of it.
func (r *Reconciler) work(ctx context.Context, job hub.Job) {
	log := r.cfg.Logger.With("job", job.ID, "certificate", job.Certificate)
	o := &order{r: r, job: job}
	err := o.run(ctx)
	stopped := ctx.Err() != nil
	cancelled, wasCancelled := errors.AsType[*cancellation](context.Cause(ctx))
	// The outcome is written down even when the process is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if err != nil && o.commit != "" {
		// The failure came after the commit was written down: only main knows whether it landed.
		if landed, lerr := r.landed(o.commit, job.Certificate, job.CreatedAt); lerr == nil && landed {
			log.WarnContext(ctx, "certificate recorded with a complaint", "error", err)
			err = nil
		}
	}
	switch {
	case err == nil:
		err = r.finish(ctx, job)
	case wasCancelled:
		err = r.cancel(ctx, job, o.wish, cancelled.event)
	case stopped:
		log.InfoContext(ctx, "order interrupted, it is taken up at the next start")
		err = r.cfg.Data.RequeueJob(ctx, job.ID)
	default:
		err = r.failed(ctx, o, err)
	}
	if err != nil {
		// The job stays running in the database, and the next pass that can write takes it up.
		log.ErrorContext(ctx, "outcome of a job could not be written down", "error", err)
	}
}

// finish ends a job whose certificate stands on main, or is not needed.
func (r *Reconciler) finish(ctx context.Context, job hub.Job) error {
	if job.Kind == apiv1.JobDryRun {
		return r.cfg.Data.FinishJob(ctx, job.ID) // it says nothing about the certificate itself
	}
	stalled, err := r.cfg.Data.Setting(ctx, stalledSetting+job.Certificate)
	if err == nil && stalled != "" {
		err = r.cfg.Data.SetSetting(ctx, stalledSetting+job.Certificate, "")
	}
	if err != nil {
		return err
	}
	if err := r.cfg.Data.FinishJob(ctx, job.ID); err != nil {
		return err
	}
	failpoint.Hit("hub.issue.done")
	return nil
}

// failed decides what happens after a failed attempt.
func (r *Reconciler) failed(ctx context.Context, o *order, cause error) error {
	log := r.cfg.Logger.With("job", o.job.ID, "certificate", o.job.Certificate, "attempt", o.job.Attempts, "error", cause)
	if _, ok := errors.AsType[obsoleteError](cause); ok {
		log.InfoContext(ctx, "job is not needed any more")
		return r.cfg.Data.FailJob(ctx, o.job.ID, string(issuer.Permanent), cause.Error())
	}
	if wait, ok := errors.AsType[*ledger.WaitError](cause); ok {
		log.InfoContext(ctx, "order waits for a limit of the CA", "until", wait.Until.UTC().Format(time.RFC3339))
		o.tell(ctx, issuer.Event{Line: wait.Error()})
		if o.turnsAway(&issuer.Error{Class: issuer.RateLimited}, wait.Until.Sub(r.cfg.Now())) {
			r.turnAway(o.want, wait.Until)
			return r.cfg.Data.PutOffJob(ctx, o.job.ID, r.cfg.Now(), string(issuer.RateLimited), wait.Error())
		}
		return r.cfg.Data.PutOffJob(ctx, o.job.ID, r.soonAfter(wait.Until), string(issuer.RateLimited), wait.Error())
	}
	if wait, ok := errors.AsType[*requestWaitError](cause); ok {
		log.InfoContext(ctx, "order waits for a certificate request", "server", wait.server)
		return r.waitForServer(ctx, o, wait)
	}
	e := classify(cause)
	o.tell(ctx, issuer.Event{Line: "failed: " + cause.Error()})
	if o.job.Kind == apiv1.JobDryRun {
		// A dry run is there to show what is wrong, now.
		return r.cfg.Data.FailJob(ctx, o.job.ID, string(e.Class), cause.Error())
	}
	if e.Class == issuer.Account && o.issuer != nil {
		r.stall(o.issuer)
	}
	wait, again := backoff(e, o.job.Attempts, r.cfg.Random)
	if o.turnsAway(e, wait) {
		if e.Class == issuer.RateLimited {
			r.turnAway(o.want, r.cfg.Now().Add(wait))
		}
		log.WarnContext(ctx, "the fallback issuer takes over", "class", e.Class, "fallback", o.want.FallbackIssuer)
		return r.cfg.Data.WaitJob(ctx, o.job.ID, r.cfg.Now(), string(e.Class), cause.Error())
	}
	r.complain(ctx, o, e.Class, cause)
	if again {
		wait = hurry(wait, e, o.timeLeft())
		retryAt := r.cfg.Now().Add(wait)
		log.WarnContext(ctx, "order failed", "class", e.Class, "retry_at", retryAt.UTC().Format(time.RFC3339))
		err := r.cfg.Data.WaitJob(ctx, o.job.ID, retryAt, string(e.Class), cause.Error())
		failpoint.Hit("hub.issue.waiting")
		return err
	}
	log.ErrorContext(ctx, "order failed, and waiting helps little: somebody must change it or renew by hand", "class", e.Class)
	if e.Class != issuer.Account { // there it is the issuer that is stopped
		if err := r.cfg.Data.SetSetting(ctx, stalledSetting+o.job.Certificate, o.wish); err != nil {
			return err
		}
	}
	event := hub.AuditEvent{
		At: r.cfg.Now(), Actor: o.job.Actor, Action: "issue-certificate", Object: o.job.Certificate,
		Outcome: hub.OutcomeFailed, Detail: string(e.Class),
	}
	return errors.Join(r.cfg.Data.Audit(ctx, event), r.cfg.Data.FailJob(ctx, o.job.ID, string(e.Class), cause.Error()))
}

// classify gives every error a class.
func classify(err error) *issuer.Error {
	var e *issuer.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, gitstore.ErrConflict), errors.Is(err, context.DeadlineExceeded):
		return &issuer.Error{Class: issuer.Retryable, Err: err}
	}
	return &issuer.Error{Class: issuer.Local, Err: err}
}
