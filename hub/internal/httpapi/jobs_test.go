package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
)

// canceller cancels jobs that nobody runs.
type canceller struct{ db *database.DB }

func (c canceller) Cancel(ctx context.Context, id string, event hub.AuditEvent) (hub.Job, error) {
	return c.db.CancelJob(ctx, id, nil, event)
}

func (i *intentLog) RenewAll(_ context.Context, actor hub.Principal, _ string, req apiv1.RenewAllRequest) (apiv1.RenewAllReply, error) {
	return apiv1.RenewAllReply{Certificates: []string{"a"}, Paused: []string{}}, i.note("renew all", actor.Name, req.Issuer, req.Authority)
}

func (i *intentLog) RevokeCertificate(_ context.Context, actor hub.Principal, _, name string, req apiv1.RevokeRequest) error {
	return i.note("revoke certificate", actor.Name, name, req.Reason, req.Serial)
}

func (i *intentLog) PauseCertificate(_ context.Context, actor hub.Principal, _, name, reason string) error {
	return i.note("pause certificate", actor.Name, name, reason)
}

func TestJobsTellHowFarTheyAreAndCanBeCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator, viewer := w.person("op", apiv1.RoleOperator), w.person("view", apiv1.RoleViewer)
	job, _, err := w.db.EnqueueJob(t.Context(), hub.Job{Certificate: "shop", Issuer: "le", Actor: "ada", Reason: "test"})
	w.must(err)
	_, _, err = w.db.EnqueueJob(t.Context(), hub.Job{Certificate: "other", Kind: apiv1.JobDryRun, Actor: "ada", Reason: "test"})
	w.must(err)
	w.must(w.db.AppendJobLog(t.Context(), job.ID, []hub.JobLine{
		{At: w.clock(), Phase: "order", Line: "ordering"}, {At: w.clock(), Phase: "validate"}, {At: w.clock(), Line: "the CA\nlooks"},
	}))
	log, cancel := apiv1.Prefix+"/jobs/"+job.ID+"/log", apiv1.Prefix+"/jobs/"+job.ID+"/cancel"

	jobs := decode[apiv1.List[apiv1.Job]](t, w.get(apiv1.Prefix+"/jobs?certificate=shop", viewer))
	if len(jobs.Items) != 1 || jobs.Items[0].Kind != apiv1.JobIssue || jobs.Items[0].Phase != "validate" || jobs.Items[0].Issuer != "le" || jobs.Items[0].Actor != "ada" {
		t.Errorf("jobs: %+v", jobs.Items)
	}
	lines := decode[apiv1.List[apiv1.JobLine]](t, w.get(log+"?limit=1", viewer))
	if len(lines.Items) != 1 || lines.Items[0].Line != "ordering" || lines.Items[0].Phase != "order" || lines.Next == "" {
		t.Errorf("first page of the log: %+v", lines)
	}
	lines = decode[apiv1.List[apiv1.JobLine]](t, w.get(log+"?after="+lines.Next, viewer))
	if len(lines.Items) != 1 || strings.Contains(lines.Items[0].Line, "\n") {
		t.Errorf("second page of the log: %+v", lines)
	}

	if got := w.send(http.MethodPost, cancel, viewer, nil); got.status != http.StatusForbidden {
		t.Errorf("a viewer cancels: status %d", got.status)
	}
	if got := decode[apiv1.Job](t, w.send(http.MethodPost, cancel, operator, nil)); got.State != apiv1.JobCancelled {
		t.Errorf("cancelled: %+v", got)
	}
	if got := w.send(http.MethodPost, cancel, operator, nil); got.status != http.StatusConflict {
		t.Errorf("cancel again: status %d, want 409", got.status)
	}
	events, err := w.db.AuditEvents(t.Context(), 0, 10)
	w.must(err)
	found := false
	for _, e := range events {
		found = found || e.Action == "cancel-job" && e.Actor == "op" && e.Object == "shop" && e.Outcome == hub.OutcomeOK
	}
	if !found {
		t.Errorf("the audit history does not tell who cancelled: %+v", events)
	}
}
