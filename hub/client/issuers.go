// Issuers: the configured ways to get certificates, and their accounts at CAs.

package client

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub/apiv1"
)

// Issuers lists them.
func (c *Client) Issuers(ctx context.Context, p Page) (out apiv1.List[apiv1.Issuer], err error) {
	return out, c.get(ctx, "/issuers", p.values(), &out)
}

// Issuer shows one.
func (c *Client) Issuer(ctx context.Context, name string) (out apiv1.Issuer, err error) {
	return out, c.get(ctx, path("issuers", name), nil, &out)
}

// CreateIssuer adds one.
func (c *Client) CreateIssuer(ctx context.Context, in apiv1.CreateIssuerRequest) (out apiv1.Issuer, err error) {
	return out, c.post(ctx, "/issuers", in, &out)
}

// ReplaceIssuer changes one.
func (c *Client) ReplaceIssuer(ctx context.Context, name string, in apiv1.IssuerSpec) (out apiv1.Issuer, err error) {
	return out, c.send(ctx, call{method: http.MethodPut, path: path("issuers", name), in: in}, &out)
}

// DeleteIssuer removes one that no certificate names.
func (c *Client) DeleteIssuer(ctx context.Context, name string) error {
	return c.send(ctx, call{method: http.MethodDelete, path: path("issuers", name)}, nil)
}

// IssuerAccount asks the CA for the account of an issuer, and registers it where there is none.
func (c *Client) IssuerAccount(ctx context.Context, name string) (out apiv1.IssuerAccount, err error) {
	return out, c.post(ctx, path("issuers", name, "account"), nil, &out)
}

// DeactivateAccount ends it for good.
func (c *Client) DeactivateAccount(ctx context.Context, name string) error {
	return c.post(ctx, path("issuers", name, "deactivate"), apiv1.DeactivateRequest{Confirm: name}, nil)
}
