// Jobs: the orders of certificates, how far they are, and what they said.

package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// Orders ends orders.
type Orders interface {
	// Cancel ends a job that is not over, and records event with it.
	Cancel(ctx context.Context, id string, event hub.AuditEvent) (hub.Job, error)
}

func (s *server) addJobs() {
	add(s, operation{
		id: "list-jobs", method: http.MethodGet, path: "/jobs", tag: "overview", summary: "List jobs, newest first",
	}, s.listJobs)
	add(s, operation{
		id: "get-job", method: http.MethodGet, path: "/jobs/{id}", tag: "overview", summary: "Show a job",
	}, s.getJob)
	add(s, operation{
		id: "get-job-log", method: http.MethodGet, path: "/jobs/{id}/log", tag: "overview", summary: "Read the log of a job, from its begin",
	}, s.jobLog)
	add(s, operation{
		id: "cancel-job", method: http.MethodPost, path: "/jobs/{id}/cancel", tag: "overview",
		summary: "Cancel a job that is not over, unless the CA is making the certificate already",
	}, s.cancelJob)
}

type jobsInput struct {
	PageInput

	Certificate string `query:"certificate" maxLength:"100" doc:"Lists the jobs of this certificate only."`
}

func (s *server) listJobs(ctx context.Context, _ *call, in *jobsInput) (*listOutput[apiv1.Job], error) {
	jobs := source[hub.Job]{
		fetch: func(ctx context.Context, after string, limit int) ([]hub.Job, error) {
			return s.cfg.Data.Jobs(ctx, in.Certificate, after, limit)
		},
		key: func(j hub.Job) string { return j.ID },
	}
	return list(ctx, jobs, in.PageInput, func(j hub.Job) (apiv1.Job, error) { return viewJob(j), nil })
}

func (s *server) getJob(ctx context.Context, _ *call, in *IDInput) (*output[apiv1.Job], error) {
	job, err := s.cfg.Data.Job(ctx, in.ID)
	if err != nil {
		return nil, named(err, "there is no job of this id")
	}
	return &output[apiv1.Job]{Body: viewJob(job)}, nil
}

func (s *server) jobLog(ctx context.Context, _ *call, in *idPageInput) (*listOutput[apiv1.JobLine], error) {
	if _, err := s.cfg.Data.Job(ctx, in.ID); err != nil {
		return nil, named(err, "there is no job of this id")
	}
	lines := source[hub.JobLine]{
		fetch: func(ctx context.Context, after string, limit int) ([]hub.JobLine, error) {
			seq, err := keyBefore(after)
			if err != nil {
				return nil, err
			}
			return s.cfg.Data.JobLog(ctx, in.ID, seq, limit)
		},
		key: func(l hub.JobLine) string { return strconv.FormatInt(l.Seq, 10) },
	}
	return list(ctx, lines, in.PageInput, func(l hub.JobLine) (apiv1.JobLine, error) {
		return apiv1.JobLine{Seq: l.Seq, At: l.At, Phase: l.Phase, Line: oneLine(l.Line)}, nil
	})
}

func (s *server) cancelJob(ctx context.Context, c *call, in *IDInput) (*output[apiv1.Job], error) {
	job, err := s.cfg.Data.Job(ctx, in.ID)
	if err != nil {
		return nil, named(err, "there is no job of this id")
	}
	job, err = s.cfg.Orders.Cancel(ctx, in.ID, s.event(c, job.Certificate, hub.OutcomeOK, "job "+job.ID))
	if err != nil {
		return nil, err
	}
	return &output[apiv1.Job]{Body: viewJob(job)}, nil
}
