package reconcile_test

import (
	"context"
	"errors"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

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
