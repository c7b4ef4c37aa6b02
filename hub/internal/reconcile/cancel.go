package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// cancelTimeout bounds how long an order that runs takes to stop.
const cancelTimeout = 20 * time.Second

// running is an order under way.
type running struct {
	ctx    context.Context //nolint:containedctx // it is the order's life, which Cancel ends
	cancel context.CancelCauseFunc
	job    hub.Job
	phase  issuer.Phase
	done   chan struct{}
}

// cancellation is why an order was stopped by a person.
type cancellation struct{ event hub.AuditEvent }

// Error implements error.
func (c *cancellation) Error() string { return "cancelled by " + c.event.Actor }

func (r *Reconciler) begun(ctx context.Context, job hub.Job) *running {
	run := &running{job: job, done: make(chan struct{})}
	run.ctx, run.cancel = context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[job.ID] = run
	return run
}

func (r *Reconciler) ended(run *running) {
	run.cancel(nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, run.job.ID)
	close(run.done)
}

// ordersAt notes where a job's order goes: it counts there, whatever was wished.
func (r *Reconciler) ordersAt(id, issuer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.running[id]; run != nil {
		run.job.Issuer = issuer
	}
}

// reached notes how far a running order is.
func (r *Reconciler) reached(id string, phase issuer.Phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.running[id]; run != nil {
		run.phase = phase
	}
}

// busyIssuers are those with as many orders under way as one may have: a slow CA must not keep the others waiting.
func (r *Reconciler) busyIssuers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[string]int{}
	for _, run := range r.running {
		count[run.job.Issuer]++
	}
	var busy []string
	for name, n := range count {
		if name != "" && n >= r.cfg.IssuerWorkers {
			busy = append(busy, name)
		}
	}
	return busy
}

// Cancel ends a job that is not over. The certificate is then not ordered again before somebody renews it by hand or
// changes what is wished. An order that the CA may have fulfilled already is not cancelled: that would waste it.
func (r *Reconciler) Cancel(ctx context.Context, id string, event hub.AuditEvent) (hub.Job, error) {
	job, err := r.cfg.Data.Job(ctx, id)
	if err != nil {
		return hub.Job{}, err
	}
	if !job.State.Active() {
		return hub.Job{}, &hub.Error{Class: hub.ErrConflict, Message: "the job is over: there is nothing to cancel"}
	}
	r.mu.Lock()
	run := r.running[id]
	spent := run != nil && run.phase.Spent()
	r.mu.Unlock()
	if spent {
		return hub.Job{}, &hub.Error{Class: hub.ErrConflict, Message: "the CA is making the certificate already: wait for it"}
	}
	if run == nil {
		if err := r.cancel(ctx, job, r.wishNow(job.Certificate), event); err != nil {
			return hub.Job{}, err
		}
	} else {
		run.stop(ctx, &cancellation{event})
	}
	job, err = r.cfg.Data.Job(ctx, id)
	if err == nil && job.State != apiv1.JobCancelled && !job.State.Active() {
		err = &hub.Error{Class: hub.ErrConflict, Message: "the job ended before it could be cancelled"}
	}
	return job, err
}

// stop ends an order that runs, and waits until its outcome is written down, cancelTimeout at most.
func (run *running) stop(ctx context.Context, why error) {
	run.cancel(why)
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	select {
	case <-run.done:
	case <-ctx.Done():
	}
}

// wishNow is the wishOf a certificate, empty where it is not known.
func (r *Reconciler) wishNow(certificate string) string {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil || snapshot.Certificates[certificate] == nil {
		return ""
	}
	return wishOf(snapshot, snapshot.Certificates[certificate])
}

// cancel writes down that a job was cancelled, and that the hub is not to take it up by itself.
func (r *Reconciler) cancel(ctx context.Context, job hub.Job, wish string, event hub.AuditEvent) error {
	mark := map[string]string{stalledSetting + job.Certificate: wish}
	if job.Kind == apiv1.JobDryRun {
		mark = nil // nothing is ordered because of it
	}
	_, err := r.cfg.Data.CancelJob(ctx, job.ID, mark, event)
	if errors.Is(err, hub.ErrConflict) {
		return nil // it ended meanwhile
	}
	return err
}
