// This file tells people of certificates whose orders do not go through, and takes it back.

package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// complaints says from which attempt on people are told of a failure, 0 for never: what a CA asks to wait for is none.
func complaints(class issuer.Class) (from int, level hub.AlertLevel) {
	switch class {
	case issuer.Account, issuer.Permanent:
		return 1, hub.AlertCritical
	case issuer.ValidationFailed, issuer.DNSProvider:
		return 2, hub.AlertWarning
	case issuer.Local:
		return 3, hub.AlertWarning
	case issuer.RateLimited:
		return 0, ""
	default:
		return 6, hub.AlertWarning
	}
}

// complain tells people of an order that does not go through. Where that fails it is logged: the outcome of the order
// matters more.
func (r *Reconciler) complain(ctx context.Context, o *order, class issuer.Class, cause error) {
	from, level := complaints(class)
	if from == 0 || o.job.Attempts < from {
		return
	}
	r.complainOf(ctx, o.job.Certificate, level,
		fmt.Sprintf("attempt %d to issue %s failed: %v. %s", o.job.Attempts, o.job.Certificate, cause, issuer.NextStep(class)))
}

func (r *Reconciler) complainOf(ctx context.Context, certificate string, level hub.AlertLevel, message string) {
	r.mu.Lock()
	r.failing[certificate] = true
	r.mu.Unlock()
	err := r.cfg.Alerts.Raise(ctx, hub.Alert{Kind: hub.AlertIssueFailed, Object: certificate, Level: level, Message: message})
	if err != nil {
		r.cfg.Logger.ErrorContext(ctx, "alert not raised", "certificate", certificate, "error", err)
	}
}

func (r *Reconciler) hasComplaints() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failing) > 0
}

// tidyComplaints withdraws what is over: the certificate was issued, is not wished for any more, its renewal is paused, or
// what was wished when its order failed is not wished now.
func (r *Reconciler) tidyComplaints(ctx context.Context, snapshot *gitstore.Snapshot, due map[string]string, latest map[string]hub.Job) error {
	r.mu.Lock()
	names := sortedKeys(r.failing)
	r.mu.Unlock()
	var faults []error
	for _, name := range names {
		stands, err := r.stands(ctx, snapshot, name, due[name] != "", latest[name].State)
		if err == nil && !stands {
			err = r.withdraw(ctx, name)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// stands says whether what people were told of a certificate still holds. An order that a person asked for may have
// failed although nothing is due: then it holds as long as the same is wished.
func (r *Reconciler) stands(ctx context.Context, snapshot *gitstore.Snapshot, name string, due bool, order apiv1.JobState) (bool, error) {
	want := snapshot.Certificates[name]
	switch {
	case want == nil, want.Renewal.Paused:
		return false, nil
	case due, order.Active():
		return true, nil
	case order != apiv1.JobFailed:
		return false, nil
	}
	wish, err := r.cfg.Data.Setting(ctx, stalledSetting+name)
	return wish == "" || wish == wishOf(snapshot, want), err
}

// withdraw takes back what people were told of a certificate.
func (r *Reconciler) withdraw(ctx context.Context, certificate string) error {
	if err := r.cfg.Alerts.Clear(ctx, hub.AlertIssueFailed, certificate); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failing, certificate)
	return nil
}
