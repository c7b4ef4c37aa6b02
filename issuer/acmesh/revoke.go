// This file tells a CA that nobody should trust a certificate any more.

package acmesh

import (
	"context"
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/acme"

	"github.com/certferry/certferry/issuer"
)

// Revoke revokes leaf with the account's key (RFC 8555 §7.6): no TLS key is needed. One that is revoked already is no
// error.
func (i *Issuer) Revoke(ctx context.Context, leaf *x509.Certificate, reason int) error {
	a, err := i.account(ctx)
	if err != nil {
		return err
	}
	client, done, err := i.client(a)
	if err != nil {
		return err
	}
	defer done()
	err = client.RevokeCert(ctx, nil, leaf.Raw, acme.CRLReasonCode(reason))
	if problem := new(acme.Error); errors.As(err, &problem) && problem.ProblemType == acmeURN+"alreadyRevoked" {
		return nil
	}
	if err == nil {
		return nil
	}
	failed := i.refused("revoke the certificate", err)
	if failed.ACMEType == "unauthorized" {
		failed.Class, failed.Detail = issuer.Permanent, "this account may not revoke the certificate: another account ordered it"
	}
	return failed
}
