package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// SendCSR answers a certificate request that the hub asked the agent for.
func (c *Client) SendCSR(ctx context.Context, in apiv1.CertificateRequest) error {
	return c.post(ctx, "/servers/csr", in, nil)
}
