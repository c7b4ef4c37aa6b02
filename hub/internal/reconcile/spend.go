package reconcile

import (
	"context"
	"errors"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/internal/failpoint"
	"github.com/certferry/certferry/issuer"
)

// Limits are those of one account at a CA.
type Limits struct {
	// Account is shared by all issuers that order under it; empty where nothing is counted.
	Account string
	Limits  []issuer.Limit
}

// reserve books an order, or answers a *ledger.WaitError.
func (o *order) reserve(ctx context.Context, request issuer.Request) (ledger.Order, error) {
	limits := o.r.limits(o.issuer)
	booked := ledger.Order{
		ID: request.ID, Account: limits.Account, Names: request.Names, Renewal: len(request.Previous) > 0, Limits: limits.Limits,
	}
	if limits.Account == "" {
		return booked, nil
	}
	return booked, ledger.Reserve(ctx, o.r.cfg.Ledger, booked, o.r.cfg.Now())
}

func (r *Reconciler) limits(i *manifest.Issuer) Limits {
	if r.cfg.Limits == nil {
		return Limits{}
	}
	return r.cfg.Limits(i)
}

// settle gives back what the order did not spend.
func (o *order) settle(ctx context.Context, booked ledger.Order, err error) error {
	if booked.Account == "" {
		return nil
	}
	out := ledger.Outcome{Phase: o.phase}
	if err != nil {
		out.Err = classify(err)
		if out.Err.Phase != "" {
			out.Phase = out.Err.Phase
		}
	}
	// It is written down even when the process is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return ledger.Settle(ctx, o.r.cfg.Ledger, booked, out, o.r.cfg.Now())
}

// soonAfter is a moment soon after at, so that not all that wait for one limit come at once.
func (r *Reconciler) soonAfter(at time.Time) time.Time {
	return at.Add(time.Duration(float64(max(at.Sub(r.cfg.Now())/20, time.Second)) * r.cfg.Random()))
}

// progress notes how far an order is, and tells people.
func (o *order) progress(ctx context.Context, e issuer.Event) {
	if e.Phase != "" {
		o.phase = e.Phase
		o.r.reached(o.job.ID, e.Phase)
	}
	o.tell(ctx, e)
	if e.Phase != "" {
		failpoint.Hit("hub.issue.phase-" + string(e.Phase))
	}
}

// tell writes to the job's log. A log that cannot be written stops nobody.
func (o *order) tell(ctx context.Context, e issuer.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	line := hub.JobLine{At: o.r.cfg.Now(), Phase: string(e.Phase), Line: e.Line}
	if err := o.r.cfg.Data.AppendJobLog(ctx, o.job.ID, []hub.JobLine{line}); err != nil && !errors.Is(err, context.Canceled) {
		o.r.cfg.Logger.ErrorContext(ctx, "log of a job not written", "job", o.job.ID, "error", err)
	}
}
