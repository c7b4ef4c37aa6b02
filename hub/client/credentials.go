// Credentials for DNS providers and CAs.

package client

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub/apiv1"
)

// DNSProviders lists what credentials can be for.
func (c *Client) DNSProviders(ctx context.Context, p Page) (out apiv1.List[apiv1.DNSProvider], err error) {
	return out, c.get(ctx, "/dns-providers", p.values(), &out)
}

// Credentials lists credentials, without values.
func (c *Client) Credentials(ctx context.Context, p Page) (out apiv1.List[apiv1.Credential], err error) {
	return out, c.get(ctx, "/credentials", p.values(), &out)
}

// CreateCredential keeps a credential.
func (c *Client) CreateCredential(ctx context.Context, in apiv1.CredentialRequest) (out apiv1.Credential, err error) {
	return out, c.post(ctx, "/credentials", in, &out)
}

// ReplaceCredential replaces the values of a credential.
func (c *Client) ReplaceCredential(ctx context.Context, in apiv1.CredentialRequest) (out apiv1.Credential, err error) {
	return out, c.send(ctx, call{method: http.MethodPut, path: path("credentials", in.Name), in: in, idempotent: true}, &out)
}

// DeleteCredential forgets a credential that nothing uses.
func (c *Client) DeleteCredential(ctx context.Context, name string) error {
	return c.send(ctx, call{method: http.MethodDelete, path: path("credentials", name)}, nil)
}

// TestCredential begins to try a credential with a TXT record below domain.
func (c *Client) TestCredential(ctx context.Context, name, domain string) (out apiv1.CredentialTestResult, err error) {
	return out, c.post(ctx, path("credentials", name, "test"), apiv1.CredentialTest{Domain: domain}, &out)
}

// CredentialTest shows the newest test of a credential.
func (c *Client) CredentialTest(ctx context.Context, name string) (out apiv1.CredentialTestResult, err error) {
	return out, c.get(ctx, path("credentials", name, "test"), nil, &out)
}
