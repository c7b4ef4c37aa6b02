package intent_test

import (
	"context"
	"crypto/x509"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/issuer"
)

// revoker is a CA that revokes, or does not.
type revoker struct {
	*hubtest.CA

	err     error
	revoked map[string]int
}

// Revoke implements issuer.Revoker.
func (r *revoker) Revoke(_ context.Context, leaf *x509.Certificate, reason int) error {
	if r.err == nil {
		r.revoked[leaf.SerialNumber.Text(16)] = reason
	}
	return r.err
}

func TestRevokeCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ca := &revoker{CA: f.ca, revoked: map[string]int{}}
	cfg := f.config()
	cfg.Issuer = func(*manifest.Issuer) (issuer.Issuer, error) { return ca, nil }
	var err error
	f.service, err = intent.New(cfg)
	f.must(err)
	f.create("shop", func(s *apiv1.CertificateSpec) { s.KeepKey = true })
	before := f.head()
	revoke := func(req apiv1.RevokeRequest) error {
		return f.service.RevokeCertificate(t.Context(), ada, "request-3", "shop", req)
	}
	f.refused(revoke(apiv1.RevokeRequest{Reason: "keyCompromise", Serial: "1"}), hub.ErrConflict, before, "never issued")
	f.issue("shop")
	first := f.snapshot().Issued["shop"]
	before = f.head()
	f.refused(revoke(apiv1.RevokeRequest{Reason: "boredom", Serial: first.Serial}), hub.ErrInvalid, before, "RFC 5280")
	f.refused(revoke(apiv1.RevokeRequest{Reason: "superseded", Serial: "ffff"}), hub.ErrConflict, before, "another issue")
	ca.err = &issuer.Error{Class: issuer.Retryable, Detail: "the CA is away"}
	f.refused(revoke(apiv1.RevokeRequest{Reason: "superseded", Serial: first.Serial}), hub.ErrConflict, before, "the CA is away")
	ca.err = nil

	f.must(revoke(apiv1.RevokeRequest{Reason: "keyCompromise", Serial: first.Serial}))
	have := f.snapshot().Issued["shop"]
	if have.Revoked == nil || have.Revoked.Reason != "keyCompromise" || have.Revoked.By != "ada" || len(ca.revoked) != 1 {
		t.Fatalf("main says %+v, the CA %v", have, ca.revoked)
	}
	job, err := f.db.LatestJob(t.Context(), "shop")
	f.must(err)
	if !job.NewKey || job.State != apiv1.JobQueued || job.Actor != "ada" {
		t.Errorf("job: %+v", job)
	}
	if reason, is := due(f.snapshot().Certificates["shop"], have, f.clock.Now()); !is || reason != "it was revoked" {
		t.Errorf("due: %v, %q", is, reason)
	}
	before = f.head()
	f.refused(revoke(apiv1.RevokeRequest{Reason: "superseded", Serial: first.Serial}), hub.ErrConflict, before, "revoked already")

	// Nobody goes back to it.
	revokedAt := f.head().Hash.String()
	f.issue("shop")
	before = f.head()
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "shop", "", ""), hub.ErrConflict, before, "no earlier issue")
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "shop", revokedAt, ""), hub.ErrConflict, before, "was revoked")

	// One that nothing is to replace.
	second := f.snapshot().Issued["shop"]
	f.must(revoke(apiv1.RevokeRequest{Reason: "cessationOfOperation", Serial: second.Serial, NoRenew: true}))
	if wish := f.snapshot().Certificates["shop"]; !wish.Renewal.Paused || f.snapshot().Issued["shop"].Revoked == nil {
		t.Errorf("%+v", wish)
	}
}
