package issuer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"slices"
	"testing"

	"github.com/certferry/certferry/issuer"
)

func csr(t *testing.T, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{DNSNames: []string{"www.example.com", "example.com"}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseCSR(t *testing.T) {
	t.Parallel()
	names := []string{"example.com", "www.example.com"}
	key := ecKey(t, elliptic.P256())
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(csr(t, key, nil))
	forged[len(forged)-1] ^= 1
	for name, tt := range map[string]struct {
		csr      []byte
		names    []string
		acmeType string
	}{
		"good":           {csr(t, key, nil), names, ""},
		"P-384":          {csr(t, ecKey(t, elliptic.P384()), nil), names, ""},
		"common name":    {csr(t, key, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{CommonName: "example.com"} }), names, ""},
		"foreign name":   {csr(t, key, func(c *x509.CertificateRequest) { c.Subject = pkix.Name{CommonName: "evil.example"} }), names, "badCSR"},
		"garbage":        {[]byte("garbage"), names, "badCSR"},
		"nothing":        {nil, names, "badCSR"},
		"huge":           {make([]byte, 1<<20), names, "badCSR"},
		"forged":         {forged, names, "badCSR"},
		"no names":       {csr(t, key, nil), nil, "badCSR"},
		"fewer names":    {csr(t, key, nil), names[:1], "badCSR"},
		"other names":    {csr(t, key, nil), []string{"example.com", "evil.example"}, "badCSR"},
		"upper case":     {csr(t, key, func(c *x509.CertificateRequest) { c.DNSNames[0] = "WWW.example.com" }), names, "badCSR"},
		"an address":     {csr(t, key, func(c *x509.CertificateRequest) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }), names, "badCSR"},
		"a mail address": {csr(t, key, func(c *x509.CertificateRequest) { c.EmailAddresses = []string{"a@example.com"} }), names, "badCSR"},
		"a URI":          {csr(t, key, func(c *x509.CertificateRequest) { c.URIs = []*url.URL{{Scheme: "https", Host: "a"}} }), names, "badCSR"},
		"Ed25519":        {csr(t, edwards, nil), names, "badPublicKey"},
		"P-521":          {csr(t, ecKey(t, elliptic.P521()), nil), names, "badPublicKey"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := (&issuer.Request{Names: tt.names, CSR: tt.csr}).ParseCSR()
			if tt.acmeType == "" {
				if err != nil || len(got.DNSNames) != 2 {
					t.Errorf("%v", err)
				}
				return
			}
			refused, ok := errors.AsType[*issuer.Error](err)
			if !ok || refused.Class != issuer.Permanent || refused.ACMEType != tt.acmeType {
				t.Errorf("%v, want permanent (%s)", err, tt.acmeType)
			}
		})
	}
}

func TestErrorTellsEverything(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	err := &issuer.Error{Class: issuer.ValidationFailed, ACMEType: "dns", Name: "a.example", Detail: "no record", Err: cause}
	if want := "validation_failed (dns) a.example: no record: cause"; err.Error() != want || !errors.Is(err, cause) {
		t.Errorf("%q, want %q", err, want)
	}
}

func FuzzParseCSR(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"example.com"}}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der, "example.com")
	f.Fuzz(func(t *testing.T, der []byte, name string) {
		csr, err := (&issuer.Request{Names: []string{name}, CSR: der}).ParseCSR()
		if err == nil && (len(csr.DNSNames) == 0 || csr.DNSNames[0] != name) {
			t.Errorf("a request for %q passes as one for %q", csr.DNSNames, name)
		}
		if refused, ok := errors.AsType[*issuer.Error](err); err != nil && (!ok || refused.Class != issuer.Permanent) {
			t.Errorf("%v, want permanent", err)
		}
	})
}

// TestEachClassHasANextStep holds that a person is never left with a class alone.
func TestEachClassHasANextStep(t *testing.T) {
	t.Parallel()
	for _, c := range []issuer.Class{
		issuer.Retryable, issuer.RateLimited, issuer.ValidationFailed, issuer.DNSProvider, issuer.Account, issuer.Permanent, issuer.Local,
	} {
		if issuer.NextStep(c) == "" {
			t.Errorf("class %s has no next step", c)
		}
	}
}
