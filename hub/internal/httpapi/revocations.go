// Revocations: telling a CA that nobody should trust a certificate any more, and what private CAs publish.

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// CRLPath and RootPath precede the name of an issuer with .crl and .pem behind it.
const (
	CRLPath  = "/crl/"
	RootPath = "/root/"
)

// Authorities are what private CAs publish, by the names of their issuers.
type Authorities interface {
	// CRL is the list of revoked certificates in DER, Root the root certificate in PEM.
	CRL(issuer string) ([]byte, error)
	Root(issuer string) ([]byte, error)
}

func (s *server) addRevocations() {
	add(s, operation{
		id: "revoke-certificate", method: http.MethodPost, path: "/certificates/{id}/revoke", tag: "certificates",
		summary: "Tell the CA that nobody should trust this issue any more, and order another one",
	}, s.revokeCertificate)
}

func (s *server) revokeCertificate(ctx context.Context, c *call, in *idBodyInput[apiv1.RevokeRequest]) (*output[apiv1.Certificate], error) {
	if err := s.knownCertificate(in.ID); err != nil {
		return nil, err
	}
	if err := s.cfg.Intent.RevokeCertificate(ctx, c.principal, c.requestID, in.ID, in.Body); err != nil {
		return nil, err
	}
	return s.showCertificate(ctx, in.ID)
}

func (s *server) crl(w http.ResponseWriter, r *http.Request) {
	s.publish(w, r, CRLPath, ".crl", "application/pkix-crl", Authorities.CRL)
}

func (s *server) rootCertificate(w http.ResponseWriter, r *http.Request) {
	s.publish(w, r, RootPath, ".pem", "application/x-pem-file", Authorities.Root)
}

// publish answers what a private CA publishes.
func (s *server) publish(w http.ResponseWriter, r *http.Request, prefix, ending, kind string, of func(Authorities, string) ([]byte, error)) {
	name, ok := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, prefix), ending)
	if !ok || s.cfg.Authorities == nil {
		http.NotFound(w, r)
		return
	}
	data, err := of(s.cfg.Authorities, name)
	switch {
	case errors.Is(err, hub.ErrNotFound):
		http.NotFound(w, r)
	case err != nil:
		s.cfg.Logger.ErrorContext(r.Context(), "private CA cannot publish", "issuer", name, "error", err)
		http.Error(w, "try again later", http.StatusServiceUnavailable)
	default:
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(data)
	}
}
