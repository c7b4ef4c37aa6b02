// Package deployertest holds what tests of deployments need: certificates, real servers on free loopback ports, a
// client that never stops connecting, and the conformance suite that every deployer passes.
package deployertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
)

// CA signs certificates for tests.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// Now is when certificates begin that say nothing else.
	Now time.Time
}

// NewCA makes a CA whose certificates begin an hour before now.
func NewCA(tb testing.TB, now time.Time) *CA {
	tb.Helper()
	ca := &CA{Now: now.Add(-time.Hour)}
	ca.key = newKey(tb)
	template := &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: "Certferry test CA"},
		NotBefore: ca.Now.Add(-24 * time.Hour), NotAfter: ca.Now.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.cert = sign(tb, template, template, &ca.key.PublicKey, ca.key)
	return ca
}

// Issue makes a certificate for names with a new key, valid for 90 days.
func (ca *CA) Issue(tb testing.TB, names ...string) *bundle.Bundle {
	tb.Helper()
	return ca.IssueAt(tb, ca.Now, 90*24*time.Hour, names...)
}

// IssueAt is Issue with another time.
func (ca *CA) IssueAt(tb testing.TB, notBefore time.Time, lifetime time.Duration, names ...string) *bundle.Bundle {
	tb.Helper()
	key := newKey(tb)
	leaf := sign(tb, leafTemplate(tb, notBefore, lifetime, names), ca.cert, &key.PublicKey, ca.key)
	return &bundle.Bundle{Leaf: leaf, Chain: []*x509.Certificate{ca.cert}, Key: key}
}

// SelfSigned makes a placeholder such as administrators put where no certificate is yet.
func SelfSigned(tb testing.TB, notBefore time.Time, lifetime time.Duration, names ...string) *bundle.Bundle {
	tb.Helper()
	key := newKey(tb)
	template := leafTemplate(tb, notBefore, lifetime, names)
	return &bundle.Bundle{Leaf: sign(tb, template, template, &key.PublicKey, key), Key: key}
}

func leafTemplate(tb testing.TB, notBefore time.Time, lifetime time.Duration, names []string) *x509.Certificate {
	tb.Helper()
	return &x509.Certificate{
		SerialNumber: serial(tb), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: notBefore, NotAfter: notBefore.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func serial(tb testing.TB) *big.Int {
	tb.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func sign(tb testing.TB, template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}
