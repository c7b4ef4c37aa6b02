// Watched certificates, endpoints and reports.

package client

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub/apiv1"
)

// Watches lists certificates that are watched; those of one kind where it is not empty.
func (c *Client) Watches(ctx context.Context, kind string, p Page) (out apiv1.List[apiv1.Watch], err error) {
	v := p.values()
	if kind != "" {
		v.Set("kind", kind)
	}
	return out, c.get(ctx, "/watches", v, &out)
}

// Endpoints lists the endpoints that are watched.
func (c *Client) Endpoints(ctx context.Context, p Page) (out apiv1.List[apiv1.Endpoint], err error) {
	return out, c.get(ctx, "/endpoints", p.values(), &out)
}

// CreateEndpoint watches an endpoint.
func (c *Client) CreateEndpoint(ctx context.Context, in apiv1.EndpointRequest) (out apiv1.Endpoint, err error) {
	return out, c.post(ctx, "/endpoints", in, &out)
}

// DeleteEndpoint stops watching an endpoint.
func (c *Client) DeleteEndpoint(ctx context.Context, name string) error {
	return c.send(ctx, call{method: http.MethodDelete, path: path("endpoints", name)}, nil)
}

// CertificateStats are figures about certificates.
func (c *Client) CertificateStats(ctx context.Context) (out apiv1.CertificateStats, err error) {
	return out, c.get(ctx, "/stats/certificates", nil, &out)
}

// CertificateReport is a table of all certificates (CSV).
func (c *Client) CertificateReport(ctx context.Context) (table []byte, err error) {
	return table, c.get(ctx, "/reports/certificates.csv", nil, &table)
}
