// This file is what the stand-in knows of renewals: the certificate that an order replaces, and the chain that is preferred.
// The ACME library speaks of neither.

package issuertest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// replacing is a transport that adds "replaces" to new orders (RFC 9773 §5) and signs them again.
type replacing struct {
	http.RoundTripper

	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// replaced makes a transport for orders that replace the certificate which the driver seeded; base where there is none.
func (s *standIn) replaced(base http.RoundTripper, key *ecdsa.PrivateKey) http.RoundTripper {
	domain := s.flags["--domain"]
	data, err := os.ReadFile(filepath.Join(s.flags["--cert-home"], domain+"_ecc", domain+".cer")) //nolint:gosec // a test's file
	block, _ := pem.Decode(data)
	if err != nil || block == nil {
		return base
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return base
	}
	return &replacing{base, key, cert}
}

// RoundTrip implements http.RoundTripper.
func (r *replacing) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, AtNewOrder) || req.Method != http.MethodPost {
		return r.RoundTripper.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	signed, order := &jws{}, map[string]any{}
	if err := signed.open(body, &order); err != nil {
		return nil, err
	}
	serial := r.cert.SerialNumber.Bytes()
	if serial[0] >= 0x80 { // as in DER (RFC 9773 §4.1)
		serial = append([]byte{0}, serial...)
	}
	order["replaces"] = base64.RawURLEncoding.EncodeToString(r.cert.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
	if body, err = signed.sign(r.key, order); err != nil {
		return nil, err
	}
	again := req.Clone(req.Context())
	again.Body, again.ContentLength, again.GetBody = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	return r.RoundTripper.RoundTrip(again)
}

// sign makes the request say something else, by ES256 (RFC 7518 §3.4).
func (j *jws) sign(key *ecdsa.PrivateKey, payload any) ([]byte, error) {
	data, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	j.Payload = base64.RawURLEncoding.EncodeToString(data)
	sum := sha256.Sum256([]byte(j.Protected + "." + j.Payload))
	x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64)
	for n, part := range []*big.Int{x, y} {
		part.FillBytes(signature[32*n : 32*(n+1)])
	}
	j.Signature = base64.RawURLEncoding.EncodeToString(signature)
	return json.Marshal(j)
}

// preferred is the chain whose last issuer's name holds the wish, as acme.sh compares them; chain where the CA has none.
func (s *standIn) preferred(ctx context.Context, chain [][]byte, url string) [][]byte {
	text := strings.TrimSuffix(strings.TrimPrefix(s.conf["Le_Preferred_Chain"], "__ACME_BASE64__START_"), "__ACME_BASE64__END_")
	wish, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(wish) == 0 || leadsTo(chain, string(wish)) {
		return chain
	}
	others, err := s.acme.ListCertAlternates(ctx, url)
	if err != nil {
		return chain
	}
	for _, other := range others {
		if found, err := s.acme.FetchCert(ctx, other, true); err == nil && leadsTo(found, string(wish)) {
			return found
		}
	}
	return chain
}

func leadsTo(chain [][]byte, name string) bool {
	last, err := x509.ParseCertificate(chain[len(chain)-1])
	return err == nil && strings.Contains(strings.ToLower(last.Issuer.CommonName), strings.ToLower(name))
}
