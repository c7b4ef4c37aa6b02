// Package intent turns what people and enrolment wish for into commits on the branch main: certificates, servers,
// holds and pauses as YAML, with the person who acted as the commit's author.
//
// It validates everything before it writes, and it writes nothing else than intent and, for a rollback, an earlier
// state of issued/. It never issues, seals or publishes: package reconcile does that from what main says.
package intent

import (
	"context"
	"errors"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

var errUnfinished = errors.New("not built yet")

// Service writes intent. Its errors that a caller can mend are *hub.Error.
type Service struct{}

// CreateCertificate writes certificates/<name>.yaml.
func (s *Service) CreateCertificate(ctx context.Context, actor hub.Principal, requestID string, spec apiv1.CertificateSpec) error {
	return errUnfinished
}

// RenewCertificate queues a job that issues the certificate again, or answers the one that is active.
func (s *Service) RenewCertificate(ctx context.Context, actor hub.Principal, requestID, name, reason string) (hub.Job, error) {
	return hub.Job{}, errUnfinished
}

// RollbackCertificate brings back an earlier issue of the certificate and pauses its renewal; commit is one of
// main, the issue before the present one when empty.
func (s *Service) RollbackCertificate(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error {
	return errUnfinished
}

// ResumeCertificate ends the pause of a certificate's renewal.
func (s *Service) ResumeCertificate(ctx context.Context, actor hub.Principal, requestID, name string) error {
	return errUnfinished
}

// EnsureServer writes servers/<name>.yaml where it is absent; a server that is there stays as it is.
func (s *Service) EnsureServer(ctx context.Context, name string, labels map[string]string) error {
	return errUnfinished
}

// RollbackServer holds the server at commit of its own branch, the one before the present one when empty.
func (s *Service) RollbackServer(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error {
	return errUnfinished
}

// ResumeServer ends the hold of a server.
func (s *Service) ResumeServer(ctx context.Context, actor hub.Principal, requestID, name string) error {
	return errUnfinished
}
