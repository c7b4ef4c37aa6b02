package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// authority is a CA of one level.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

func make509(tb testing.TB, template *x509.Certificate, public crypto.PublicKey, by *authority, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func newAuthority(tb testing.TB, name string, by *authority) *authority {
	tb.Helper()
	key := newKey(tb, bundle.ECDSAP256)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: start.Add(-time.Hour), NotAfter: start.Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return &authority{make509(tb, template, key.Public(), by, key), key}
}

func newKey(tb testing.TB, kind bundle.KeyType) crypto.Signer {
	tb.Helper()
	key, err := bundle.GenerateKey(kind)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// leaf makes a certificate for www.test, changed by change.
func leaf(tb testing.TB, by *authority, public crypto.PublicKey, change func(*x509.Certificate)) *x509.Certificate {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: start.Add(-time.Hour), NotAfter: start.Add(100 * time.Hour),
		DNSNames: []string{"www.test", "*.www.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	return make509(tb, template, public, by, nil)
}

func pemOf(all ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range all {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}

var names = []string{"*.www.test", "WWW.test"}

func good(tb testing.TB) (*bundle.Bundle, *authority, *authority) {
	tb.Helper()
	root := newAuthority(tb, "root", nil)
	middle := newAuthority(tb, "middle", root)
	key := newKey(tb, bundle.ECDSAP256)
	return &bundle.Bundle{Leaf: leaf(tb, middle, key.Public(), nil), Chain: []*x509.Certificate{middle.certificate}, Key: key}, middle, root
}

func TestParsePutsTheChainInOrder(t *testing.T) {
	t.Parallel()
	b, middle, root := good(t)
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, parts := range map[string][][]byte{
		"in order":      {pemOf(b.Leaf, middle.certificate, root.certificate), key},
		"upside down":   {pemOf(root.certificate, middle.certificate, b.Leaf), key},
		"one file":      {append(append(key, pemOf(root.certificate, b.Leaf)...), pemOf(middle.certificate)...)},
		"without a key": {pemOf(root.certificate, b.Leaf, middle.certificate)},
		"comments":      {append([]byte("issuer=CN = middle\n"), pemOf(b.Leaf, middle.certificate, root.certificate)...)},
	} {
		got, err := bundle.Parse(parts...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !got.Leaf.Equal(b.Leaf) || len(got.Chain) != 2 || !got.Chain[0].Equal(middle.certificate) || !got.Chain[1].Equal(root.certificate) {
			t.Errorf("%s: chain of %d in another order", name, len(got.Chain))
		}
		if err := got.Check(names, start); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	b, middle, _ := good(t)
	other := newKey(t, bundle.ECDSAP256)
	otherPEM, err := (&bundle.Bundle{Key: other}).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	ownPEM, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKCS8PrivateKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	stranger := newAuthority(t, "stranger", nil)
	for name, parts := range map[string][][]byte{
		"nothing":           {},
		"text":              {[]byte("hello")},
		"text behind":       {append(pemOf(b.Leaf), "hello"...)},
		"damaged block":     {pemOf(b.Leaf), []byte(strings.Replace(string(pemOf(middle.certificate)), "\nMII", "\n!!!", 1)), ownPEM},
		"another block":     {pem.EncodeToMemory(&pem.Block{Type: "X509 CRL"})},
		"damaged":           {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})},
		"damaged key":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), pemOf(b.Leaf)},
		"Ed25519 key":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: edDER}), pemOf(b.Leaf)},
		"two keys":          {ownPEM, ownPEM, pemOf(b.Leaf)},
		"another key":       {otherPEM, pemOf(b.Leaf)},
		"another chain":     {pemOf(b.Leaf, stranger.certificate)},
		"CA only":           {pemOf(middle.certificate)},
		"many":              {bytes.Repeat(pemOf(b.Leaf), 12)},
		"large":             {bytes.Repeat([]byte(" "), bundle.MaxSize+1)},
		"key without leaf":  {ownPEM},
		"leaf of the chain": {pemOf(b.Leaf, b.Leaf)},
	} {
		if _, err := bundle.Parse(parts...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := bundle.ParseChain(pemOf(b.Leaf, middle.certificate)); err != nil {
		t.Error(err)
	}
	for name, data := range map[string][]byte{
		"lost member": append([]byte(strings.Replace(string(pemOf(b.Leaf)), "\nMII", "\n!!!", 1)), pemOf(middle.certificate)...),
		"nothing":     nil, "text": []byte("x"), "key": ownPEM, "damaged": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}),
		"many": bytes.Repeat(pemOf(b.Leaf), 12), "large": bytes.Repeat([]byte(" "), bundle.MaxSize+1),
	} {
		if _, err := bundle.ParseChain(data); err == nil {
			t.Errorf("chain %s: no error", name)
		}
	}
}

func TestCheckRefusesWhatIsNotFitToServe(t *testing.T) {
	t.Parallel()
	_, middle, root := good(t)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("skipped: no RSA-1024 here: %v", err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPublic, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	notCA := leaf(t, middle, middle.key.Public(), nil)
	for name, tt := range map[string]struct {
		public crypto.PublicKey
		change func(*x509.Certificate)
		chain  []*x509.Certificate
		key    crypto.Signer
		at     time.Time
		names  []string
		says   string
	}{
		"expired":         {at: start.Add(101 * time.Hour), says: "expired"},
		"not yet valid":   {at: start.Add(-2 * time.Hour), says: "not valid before"},
		"other names":     {names: []string{"other.test"}, says: "it is for"},
		"a name too many": {names: []string{"www.test"}, says: "it is for"},
		"client only":     {change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, says: "server authentication"},
		"an e-mail name":  {change: func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} }, says: "not DNS names"},
		"a CA":            {change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, says: "CA certificate"},
		"another key":     {key: newKey(t, bundle.ECDSAP256), says: "not its own"},
		"weak RSA":        {public: weak.Public(), says: "2048"},
		"another curve":   {public: p521.Public(), says: "P-256"},
		"another kind":    {public: edPublic, says: "neither ECDSA nor RSA"},
		"wrong issuer":    {chain: []*x509.Certificate{root.certificate}, says: "is not the issuer"},
		"a namesake":      {chain: []*x509.Certificate{newAuthority(t, "middle", nil).certificate}, says: "did not sign"},
		"not a CA":        {chain: []*x509.Certificate{notCA}, says: "not a CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			public := tt.public
			if public == nil {
				public = newKey(t, bundle.ECDSAP256).Public()
			}
			b := &bundle.Bundle{Leaf: leaf(t, middle, public, tt.change), Chain: tt.chain, Key: tt.key}
			if b.Chain == nil {
				b.Chain = []*x509.Certificate{middle.certificate}
			}
			if tt.at.IsZero() {
				tt.at = start
			}
			if tt.names == nil {
				tt.names = names
			}
			if err := b.Check(tt.names, tt.at); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("check: %v, want %q", err, tt.says)
			}
		})
	}
	if err := (&bundle.Bundle{}).Check(nil, start); err == nil {
		t.Error("an empty bundle is fit")
	}
	old := newAuthority(t, "old", nil)
	late := leaf(t, old, newKey(t, bundle.ECDSAP256).Public(), func(c *x509.Certificate) { c.NotAfter = start.Add(5000 * time.Hour) })
	if err := (&bundle.Bundle{Leaf: late, Chain: []*x509.Certificate{old.certificate}}).Check(names, start.Add(2000*time.Hour)); err == nil || !strings.Contains(err.Error(), "certificate 1 expired") {
		t.Errorf("an expired issuer: %v", err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, kind := range []bundle.KeyType{bundle.ECDSAP256, bundle.ECDSAP384, bundle.RSA2048} {
		key := newKey(t, kind)
		der, err := bundle.NewCSR(key, []string{"www.test"})
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || csr.CheckSignature() != nil || csr.Subject.CommonName != "" || len(csr.DNSNames) != 1 {
			t.Errorf("%s: %v %v", kind, csr, err)
		}
		text, err := (&bundle.Bundle{Key: key}).KeyPEM()
		if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN PRIVATE KEY-----")) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for text, good := range map[string]bool{"": true, "rsa-3072": true, "rsa-4096": true, "rsa-1024": false, "ed25519": false} {
		if _, err := bundle.ParseKeyType(text); (err == nil) != good {
			t.Errorf("key type %q: %v", text, err)
		}
	}
	if _, err := bundle.GenerateKey("x"); err == nil {
		t.Error("unknown key type: no error")
	}
	if _, err := bundle.NewCSR(newKey(t, bundle.ECDSAP256), nil); err == nil {
		t.Error("CSR without names: no error")
	}
	if _, err := (&bundle.Bundle{}).KeyPEM(); err == nil {
		t.Error("no key: no error")
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	_, middle, _ := good(t)
	old, err := bundle.Parse(pemOf(leaf(t, middle, ec.Public(), nil)), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	if err != nil || old.Key == nil {
		t.Errorf("SEC 1 key: %v", err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	if old, err = bundle.Parse(pemOf(leaf(t, middle, rsaKey.Public(), nil)), pkcs1); err != nil || old.Key == nil || old.Check(names, start) != nil {
		t.Errorf("PKCS #1 key: %v", err)
	}
}
