package hubtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

// CA is an issuer.Issuer that signs what it is asked for.
type CA struct {
	// Lifetime of what it issues.
	Lifetime time.Duration
	// Answer, if set, is asked before each order; an error is the CA's answer.
	Answer func(ctx context.Context, req issuer.Request) error
	// Spoil, if set, changes a certificate before it is signed.
	Spoil func(template *x509.Certificate)

	now    func() time.Time
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	mu     sync.Mutex
	serial int64
	orders []issuer.Request
}

// NewCA makes a CA whose certificates live 90 days.
func NewCA(tb testing.TB, now func() time.Time) *CA {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now().Add(-time.Hour), NotAfter: now().AddDate(20, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(tb, err)
	cert, err := x509.ParseCertificate(der)
	must(tb, err)
	return &CA{Lifetime: 90 * 24 * time.Hour, now: now, cert: cert, key: key, serial: 1}
}

// Issue implements issuer.Issuer.
func (c *CA) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	c.mu.Lock()
	c.orders = append(c.orders, req)
	c.serial++
	serial := c.serial
	c.mu.Unlock()
	if c.Answer != nil {
		if err := c.Answer(ctx, req); err != nil {
			return nil, err
		}
	}
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Permanent, ACMEType: "badCSR", Err: err}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: csr.DNSNames,
		NotBefore: c.now().Truncate(time.Second), NotAfter: c.now().Truncate(time.Second).Add(c.Lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if c.Spoil != nil {
		c.Spoil(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, csr.PublicKey, c.key)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Err: err}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Err: err}
	}
	return &issuer.Certificate{Chain: []*x509.Certificate{leaf, c.cert}}, nil
}

// Orders are the requests so far.
func (c *CA) Orders() []issuer.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]issuer.Request(nil), c.orders...)
}

// Bundle is a certificate of c for names, with a new key.
func Bundle(tb testing.TB, c *CA, names ...string) *bundle.Bundle {
	tb.Helper()
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	must(tb, err)
	csr, err := bundle.NewCSR(key, names)
	must(tb, err)
	issued, err := c.Issue(tb.Context(), issuer.Request{Names: names, CSR: csr})
	must(tb, err)
	return &bundle.Bundle{Leaf: issued.Chain[0], Chain: issued.Chain[1:], Key: key}
}
