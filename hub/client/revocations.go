// Revocations.

package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// RevokeCertificate tells the CA that nobody should trust the present issue any more.
func (c *Client) RevokeCertificate(ctx context.Context, name string, in apiv1.RevokeRequest) (out apiv1.Certificate, err error) {
	return out, c.post(ctx, path("certificates", name, "revoke"), in, &out)
}
