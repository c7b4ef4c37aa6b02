// Package issuertest holds the conformance suite that every driver of package issuer runs, and a Pebble ACME server
// that runs inside the test process.
package issuertest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

// Harness is a driver under test.
type Harness struct {
	Issuer issuer.Issuer
	// Now is the clock that certificates are judged by; nil for the real one.
	Now func() time.Time
	// Names can be issued together, Wildcard alone; an empty Wildcard is not tried.
	Names    []string
	Wildcard string
	// Challenge is sent with each request for Names, WildcardChallenge with the one for Wildcard.
	Challenge         issuer.Challenge
	WildcardChallenge issuer.Challenge
}

func (h *Harness) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now() //nolint:forbidigo // the conformance suite runs in tests
}

// NewRequest makes a key and a request for names.
func NewRequest(tb testing.TB, kind bundle.KeyType, names ...string) (issuer.Request, crypto.Signer) {
	tb.Helper()
	key, err := bundle.GenerateKey(kind)
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := bundle.NewCSR(key, names)
	if err != nil {
		tb.Fatal(err)
	}
	return issuer.Request{ID: "t-" + strings.ToLower(rand.Text()[:10]), Names: names, CSR: csr}, key
}

// Run holds a driver to the contract.
func Run(t *testing.T, h Harness) {
	t.Helper()
	t.Run("issues what was asked for", func(t *testing.T) { h.issues(t, bundle.ECDSAP256, h.Challenge, h.Names...) })
	t.Run("issues for RSA keys", func(t *testing.T) { h.issues(t, bundle.RSA2048, h.Challenge, h.Names[0]) })
	if h.Wildcard != "" {
		t.Run("issues a wildcard", func(t *testing.T) { h.issues(t, bundle.ECDSAP384, h.WildcardChallenge, h.Wildcard) })
	}
	t.Run("renews with another key", h.renews)
	t.Run("refuses a request that does not fit", h.refuses)
}

func (h *Harness) issues(t *testing.T, kind bundle.KeyType, challenge issuer.Challenge, names ...string) *bundle.Bundle {
	t.Helper()
	req, key := NewRequest(t, kind, names...)
	req.Challenge = challenge
	got, err := h.Issuer.Issue(t.Context(), req)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	b := &bundle.Bundle{Leaf: got.Chain[0], Chain: got.Chain[1:], Key: key}
	if err := b.Check(names, h.now()); err != nil {
		t.Fatalf("check what was issued: %v", err)
	}
	if len(b.Chain) == 0 {
		t.Error("no intermediate: clients could not find the way to the root")
	}
	return b
}

func (h *Harness) renews(t *testing.T) {
	first := h.issues(t, bundle.ECDSAP256, h.Challenge, h.Names[0])
	req, key := NewRequest(t, bundle.ECDSAP256, h.Names[0])
	req.Challenge, req.Previous = h.Challenge, first.FullChainPEM()
	got, err := h.Issuer.Issue(t.Context(), req)
	if err != nil {
		t.Fatalf("renew: %v", err)
	}
	second := &bundle.Bundle{Leaf: got.Chain[0], Chain: got.Chain[1:], Key: key}
	if err := second.Check(h.Names[:1], h.now()); err != nil {
		t.Fatalf("check what was renewed: %v", err)
	}
	if first.LeafSHA256() == second.LeafSHA256() || first.SPKISHA256() == second.SPKISHA256() {
		t.Error("the renewal brought the old certificate or the old key")
	}
}

func (h *Harness) refuses(t *testing.T) {
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	withIP, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		DNSNames: h.Names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := NewRequest(t, bundle.ECDSAP256, h.Names...)
	forged := slices.Clone(good.CSR)
	forged[len(forged)-1] ^= 1
	for name, req := range map[string]issuer.Request{
		"other names":      {ID: "t-1", Names: []string{"other.example.test"}, CSR: good.CSR},
		"no names":         {ID: "t-2", CSR: good.CSR},
		"forged signature": {ID: "t-3", Names: h.Names, CSR: forged},
		"garbage":          {ID: "t-4", Names: h.Names, CSR: []byte("garbage")},
		"an IP address":    {ID: "t-5", Names: h.Names, CSR: withIP},
	} {
		req.Challenge = h.Challenge
		_, err := h.Issuer.Issue(t.Context(), req)
		if refused := new(issuer.Error); !errors.As(err, &refused) || refused.Class != issuer.Permanent {
			t.Errorf("%s: %v, want an *issuer.Error of class permanent", name, err)
		}
	}
}
