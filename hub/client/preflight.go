// Preflights.

package client

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub/apiv1"
)

// Preflight checks what can be checked before the CA is asked for a certificate that is on main.
func (c *Client) Preflight(ctx context.Context, name string) (out apiv1.PreflightReport, err error) {
	return out, c.send(ctx, call{method: http.MethodPost, path: path("certificates", name, "preflight"), idempotent: true}, &out)
}

// PreflightSpec is Preflight for a certificate that nobody wished for yet.
func (c *Client) PreflightSpec(ctx context.Context, in apiv1.CertificateSpec) (out apiv1.PreflightReport, err error) {
	return out, c.send(ctx, call{method: http.MethodPost, path: "/preflight", in: in, idempotent: true}, &out)
}
