// Certificates as people see and wish for them.

package httpapi

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// IDInput is the part of an input that names an object.
type IDInput struct {
	ID string `path:"id" maxLength:"100" pattern:"^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$" doc:"The object's name or id."`
}

type idOptionalInput[T any] struct {
	IDInput

	Body *T `required:"false"`
}

type idPageInput struct {
	IDInput
	PageInput
}

type createdOutput[T any] struct {
	Location string `header:"Location" doc:"Where the object stands."`
	Body     T
}

func (s *server) addCertificates() {
	add(s, operation{
		id: "list-certificates", method: http.MethodGet, path: "/certificates", tag: "certificates",
		summary: "List certificates",
	}, s.listCertificates)
	add(s, operation{
		id: "create-certificate", method: http.MethodPost, path: "/certificates", tag: "certificates",
		summary: "Wish for a certificate", status: http.StatusCreated,
	}, s.createCertificate)
	add(s, operation{
		id: "get-certificate", method: http.MethodGet, path: "/certificates/{id}", tag: "certificates",
		summary: "Show a certificate",
	}, s.getCertificate)
	add(s, operation{
		id: "list-certificate-history", method: http.MethodGet, path: "/certificates/{id}/history", tag: "certificates",
		summary: "List the commits that changed what was issued, newest first",
	}, s.certificateHistory)
	add(s, operation{
		id: "renew-certificate", method: http.MethodPost, path: "/certificates/{id}/renew", tag: "certificates",
		summary: "Issue a certificate anew, now", status: http.StatusAccepted,
	}, s.renewCertificate)
	add(s, operation{
		id: "rollback-certificate", method: http.MethodPost, path: "/certificates/{id}/rollback", tag: "certificates",
		summary: "Return to an earlier issue of a certificate and pause its renewal",
	}, s.rollbackCertificate)
	add(s, operation{
		id: "renew-all", method: http.MethodPost, path: "/certificates/renew-all", tag: "certificates",
		summary: "Issue all certificates of an issuer or an authority anew, spread over a time", status: http.StatusAccepted,
	}, s.renewAll)
	add(s, operation{
		id: "pause-certificate", method: http.MethodPost, path: "/certificates/{id}/pause", tag: "certificates",
		summary: "Stop renewals until somebody resumes them",
	}, s.pauseCertificate)
	add(s, operation{
		id: "resume-certificate", method: http.MethodPost, path: "/certificates/{id}/resume", tag: "certificates",
		summary: "Let renewals go on",
	}, s.resumeCertificate)
}

func (s *server) listCertificates(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.Certificate], error) {
	v, err := s.newView()
	if err != nil {
		return nil, err
	}
	names := source[string]{
		fetch: sorted(slices.Sorted(maps.Keys(v.snap.Certificates))),
		key:   func(name string) string { return name },
		keep: holding(in.Query, func(name string) []string {
			return append([]string{name}, v.snap.Certificates[name].Names...)
		}),
	}
	return list(ctx, names, in.PageInput, func(name string) (apiv1.Certificate, error) {
		return v.certificate(ctx, v.snap.Certificates[name])
	})
}

func (s *server) getCertificate(ctx context.Context, _ *call, in *IDInput) (*output[apiv1.Certificate], error) {
	return s.showCertificate(ctx, in.ID)
}

func (s *server) showCertificate(ctx context.Context, name string) (*output[apiv1.Certificate], error) {
	v, err := s.newView()
	if err != nil {
		return nil, err
	}
	wish, ok := v.snap.Certificates[name]
	if !ok {
		return nil, errNoCertificate()
	}
	certificate, err := v.certificate(ctx, wish)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.Certificate]{Body: certificate}, nil
}

func errNoCertificate() error {
	return &hub.Error{Class: hub.ErrNotFound, Message: "there is no certificate of this name: list them, or create it"}
}

// knownCertificate fails where main holds no such certificate.
func (s *server) knownCertificate(name string) error {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return err
	}
	if _, ok := snap.Certificates[name]; !ok {
		return errNoCertificate()
	}
	return nil
}

func (s *server) createCertificate(ctx context.Context, c *call, in *input[apiv1.CertificateSpec]) (*createdOutput[apiv1.Certificate], error) {
	if err := s.cfg.Intent.CreateCertificate(ctx, c.principal, c.requestID, in.Body); err != nil {
		return nil, err
	}
	out, err := s.showCertificate(ctx, in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &createdOutput[apiv1.Certificate]{
		Location: apiv1.Prefix + "/certificates/" + in.Body.Name, Body: out.Body,
	}, nil
}

func (s *server) certificateHistory(_ context.Context, _ *call, in *idPageInput) (*listOutput[apiv1.Commit], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	commits, err := s.cfg.Fleet.CertificateHistory(in.ID, depth(in.PageInput))
	if err = absentIsEmpty(err); err != nil {
		return nil, err
	}
	return historyPage(commits, in.PageInput, func(c *gitrepo.Commit) apiv1.Commit { return viewCommit(c) })
}

func (s *server) renewCertificate(ctx context.Context, c *call, in *idOptionalInput[apiv1.RenewRequest]) (*createdOutput[apiv1.Job], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	var req apiv1.RenewRequest
	if in.Body != nil {
		req = *in.Body
	}
	job, err := s.cfg.Intent.RenewCertificate(ctx, c.principal, c.requestID, in.ID, req)
	if err != nil {
		return nil, err
	}
	return &createdOutput[apiv1.Job]{Location: apiv1.Prefix + "/jobs/" + job.ID, Body: viewJob(job)}, nil
}

func (s *server) rollbackCertificate(ctx context.Context, c *call, in *idOptionalInput[apiv1.RollbackRequest]) (*output[apiv1.Certificate], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	commit, reason := rollbackOf(in.Body)
	if err := s.cfg.Intent.RollbackCertificate(ctx, c.principal, c.requestID, in.ID, commit, reason); err != nil {
		return nil, err
	}
	return s.showCertificate(ctx, in.ID)
}

func (s *server) resumeCertificate(ctx context.Context, c *call, in *IDInput) (*output[apiv1.Certificate], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	if err := s.cfg.Intent.ResumeCertificate(ctx, c.principal, c.requestID, in.ID); err != nil {
		return nil, err
	}
	return s.showCertificate(ctx, in.ID)
}

func (s *server) renewAll(ctx context.Context, c *call, in *input[apiv1.RenewAllRequest]) (*output[apiv1.RenewAllReply], error) {
	reply, err := s.cfg.Intent.RenewAll(ctx, c.principal, c.requestID, in.Body)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.RenewAllReply]{Body: reply}, nil
}

func (s *server) pauseCertificate(ctx context.Context, c *call, in *idOptionalInput[apiv1.PauseRequest]) (*output[apiv1.Certificate], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	reason := ""
	if in.Body != nil {
		reason = in.Body.Reason
	}
	if err := s.cfg.Intent.PauseCertificate(ctx, c.principal, c.requestID, in.ID, reason); err != nil {
		return nil, err
	}
	return s.showCertificate(ctx, in.ID)
}
