package bundle_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
)

func TestCheckCSR(t *testing.T) {
	t.Parallel()
	for _, kind := range []bundle.KeyType{bundle.ECDSAP256, bundle.ECDSAP384, bundle.RSA2048} {
		key := newKey(t, kind)
		der, err := bundle.NewCSR(key, []string{"www.test", "*.www.test"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := bundle.CheckCSR(der, names, kind)
		want, kerr := bundle.KeySHA256(key.Public())
		if err != nil || kerr != nil || got != want {
			t.Errorf("%s: %q, %v, want %q, %v", kind, got, err, want, kerr)
		}
	}
}

func TestCheckCSRRefuses(t *testing.T) {
	t.Parallel()
	key := newKey(t, bundle.ECDSAP256)
	request := func(change func(*x509.CertificateRequest)) []byte {
		template := &x509.CertificateRequest{DNSNames: []string{"www.test", "*.www.test"}}
		change(template)
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := request(func(*x509.CertificateRequest) {})
	forged := append([]byte(nil), good...)
	forged[len(forged)-3] ^= 1
	mustStaple := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	for name, der := range map[string][]byte{
		"nothing":       nil,
		"no request":    []byte("hello"),
		"bytes behind":  append(append([]byte(nil), good...), 0),
		"large":         make([]byte, bundle.MaxCSR+1),
		"another's key": forged,
		"fewer names":   request(func(r *x509.CertificateRequest) { r.DNSNames = r.DNSNames[:1] }),
		"more names":    request(func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "bank.test") }),
		"no names":      request(func(r *x509.CertificateRequest) { r.DNSNames = nil }),
		"a name twice":  request(func(r *x509.CertificateRequest) { r.DNSNames = append(r.DNSNames, "www.test") }),
		"an address":    request(func(r *x509.CertificateRequest) { r.IPAddresses = []net.IP{{127, 0, 0, 1}} }),
		"a subject":     request(func(r *x509.CertificateRequest) { r.Subject = pkix.Name{CommonName: "bank.test"} }),
		"an extension": request(func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: mustStaple, Value: []byte{5, 0}}}
		}),
	} {
		if _, err := bundle.CheckCSR(der, names, bundle.ECDSAP256); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := bundle.CheckCSR(good, names, bundle.RSA2048); err == nil {
		t.Error("a key of another type: no error")
	}
}

func FuzzCheckCSR(f *testing.F) {
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		f.Fatal(err)
	}
	der, err := bundle.NewCSR(key, names)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, data []byte) {
		spki, err := bundle.CheckCSR(data, names, bundle.ECDSAP256)
		if (err == nil) != (len(spki) == 64) {
			t.Errorf("%q, %v", spki, err)
		}
	})
}
