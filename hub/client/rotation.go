package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// RotateServerKey asks a server for a new key, or shuts it out where the present one is compromised.
func (c *Client) RotateServerKey(ctx context.Context, name string, in apiv1.RotateKeyRequest) (out apiv1.KeyRotation, err error) {
	return out, c.post(ctx, path("servers", name, "rotate-key"), in, &out)
}

// OfferKey sends the agent's new key, which the present one signed.
func (c *Client) OfferKey(ctx context.Context, in apiv1.OfferKeyRequest) (out apiv1.OfferedKey, err error) {
	return out, c.post(ctx, "/servers/rotate-key", in, &out)
}
