// Preflights: what can be checked before a CA is asked.

package httpapi

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// Preflight checks orders without a CA.
type Preflight interface {
	// Check checks an order of want at an issuer.
	Check(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer) hub.PreflightReport
	// Wish is the certificate that spec would be, and its issuer.
	Wish(spec apiv1.CertificateSpec) (*manifest.Certificate, *manifest.Issuer, error)
}

func (s *server) addPreflights() {
	add(s, operation{
		id: "preflight-certificate", method: http.MethodPost, path: "/certificates/{id}/preflight", tag: "certificates",
		summary: "Check what a CA would find, without asking it",
	}, s.preflightCertificate)
	add(s, operation{
		id: "preflight", method: http.MethodPost, path: "/preflight", tag: "certificates",
		summary: "Check what a CA would find for a certificate that is not on main yet",
	}, s.preflight)
}

func (s *server) preflightCertificate(ctx context.Context, _ *call, in *IDInput) (*output[apiv1.PreflightReport], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	want, ok := snap.Certificates[in.ID]
	if !ok {
		return nil, errNoCertificate()
	}
	at, ok := snap.Issuers[want.Issuer]
	if !ok {
		return nil, &hub.Error{Class: hub.ErrConflict, Message: "the issuer of this certificate does not exist: add it, or name another one"}
	}
	return s.check(ctx, want, at)
}

func (s *server) preflight(ctx context.Context, _ *call, in *input[apiv1.CertificateSpec]) (*output[apiv1.PreflightReport], error) {
	if s.cfg.Preflight == nil {
		return nil, errNoPreflight()
	}
	want, at, err := s.cfg.Preflight.Wish(in.Body)
	if err != nil {
		return nil, err
	}
	return s.check(ctx, want, at)
}

func errNoPreflight() error {
	return &hub.Error{Class: hub.ErrConflict, Message: "this hub cannot check orders: its log says why, at its start"}
}

func (s *server) check(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer) (*output[apiv1.PreflightReport], error) {
	if s.cfg.Preflight == nil {
		return nil, errNoPreflight()
	}
	report := s.cfg.Preflight.Check(ctx, want, at)
	out := apiv1.PreflightReport{Failed: report.Failed(), Issuer: at.Name, Findings: make([]apiv1.Finding, len(report))}
	for i, f := range report {
		out.Findings[i] = apiv1.Finding{
			Check: f.Check, Object: oneLine(f.Object), State: apiv1.FindingState(f.State), Detail: oneLine(f.Detail),
			Next: oneLine(f.Next), ErrorClass: string(f.Class),
		}
	}
	return &output[apiv1.PreflightReport]{Body: out}, nil
}
