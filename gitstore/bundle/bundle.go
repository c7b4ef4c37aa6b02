// Package bundle is a certificate as it is carried: leaf, chain and private key, with the checks that make it fit to
// serve, and its encoding inside a sealed file. It knows certificates and nothing of Git, hub or agent.
package bundle

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxSize bounds what is parsed, in bytes: the largest chains in use are below 32 KiB.
const MaxSize = 256 << 10

// maxChain bounds the number of issuers in a bundle.
const maxChain = 8

// Bundle is a certificate with its chain and private key.
type Bundle struct {
	Leaf *x509.Certificate
	// Chain holds the issuers, the leaf's first. The root is usually left out.
	Chain []*x509.Certificate
	// Key is the leaf's private key, nil where it stays elsewhere.
	Key crypto.Signer
}

// Parse reads certificates and at most one private key from PEM data in any order, finds the leaf and puts its
// issuers in order. A key that is not the leaf's, and a certificate that is not of its chain, are errors. Comments
// between the blocks, as CAs and openssl write them, are passed over.
func Parse(data ...[]byte) (*Bundle, error) {
	var certificates []*x509.Certificate
	b := &Bundle{}
	for _, part := range data {
		all, err := blocks(part)
		if err != nil {
			return nil, fmt.Errorf("parse bundle: %w", err)
		}
		for _, block := range all {
			if err := b.add(block, &certificates); err != nil {
				return nil, err
			}
		}
	}
	if err := b.arrange(certificates); err != nil {
		return nil, err
	}
	return b, nil
}

// blocks reads all PEM blocks. The standard library passes over a damaged block as it does over a comment; here it
// is an error, so that a chain never loses a member in silence.
func blocks(data []byte) ([]*pem.Block, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("more than %d bytes", MaxSize)
	}
	var all []*pem.Block
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block != nil {
			all = append(all, block)
			continue
		}
		switch {
		case bytes.Count(data, []byte("-----BEGIN")) != len(all):
			return nil, errors.New("a damaged PEM block")
		case len(bytes.TrimSpace(rest)) > 0:
			return nil, errors.New("text that is not PEM")
		}
		return all, nil
	}
}

func (b *Bundle) add(block *pem.Block, certificates *[]*x509.Certificate) error {
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("parse certificate: %w", err)
		}
		*certificates = append(*certificates, c)
		return nil
	case "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY":
		if b.Key != nil {
			return errors.New("parse bundle: more than one private key")
		}
		key, err := parseKey(block)
		b.Key = key
		return err
	default:
		return errors.New("parse bundle: a PEM block that is neither certificate nor private key")
	}
}

// arrange finds the leaf and orders the rest from it.
func (b *Bundle) arrange(certificates []*x509.Certificate) error {
	leaf := slices.IndexFunc(certificates, func(c *x509.Certificate) bool {
		if b.Key != nil {
			return sameKey(c.PublicKey, b.Key.Public())
		}
		return !c.IsCA
	})
	switch {
	case len(certificates) == 0:
		return errors.New("parse bundle: no certificate")
	case len(certificates) > maxChain+1:
		return fmt.Errorf("parse bundle: more than %d certificates", maxChain+1)
	case leaf < 0 && b.Key != nil:
		return errors.New("parse bundle: the private key belongs to none of the certificates")
	case leaf < 0:
		return errors.New("parse bundle: no leaf certificate, only CA certificates")
	}
	b.Leaf = certificates[leaf]
	rest := slices.Delete(slices.Clone(certificates), leaf, leaf+1)
	for last := b.Leaf; len(rest) > 0; {
		next := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return isIssuer(last, c) })
		if next < 0 {
			return errors.New("parse bundle: a certificate that is not of the leaf's chain")
		}
		last = rest[next]
		b.Chain = append(b.Chain, last)
		rest = slices.Delete(rest, next, next+1)
	}
	return nil
}

func isIssuer(child, parent *x509.Certificate) bool {
	return bytes.Equal(child.RawIssuer, parent.RawSubject) && child.CheckSignatureFrom(parent) == nil
}

// ParseChain reads certificates from PEM data in the order in which they stand there. Other blocks are errors.
func ParseChain(data []byte) ([]*x509.Certificate, error) {
	all, err := blocks(data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("parse chain: %w", err)
	case len(all) == 0:
		return nil, errors.New("parse chain: no certificate")
	case len(all) > maxChain+1:
		return nil, fmt.Errorf("parse chain: more than %d certificates", maxChain+1)
	}
	chain := make([]*x509.Certificate, 0, len(all))
	for _, block := range all {
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("parse chain: a PEM block that is not a certificate")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse chain: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}

// Check says whether the bundle is fit to be served for exactly names at now: in date, names equal as sets, the key
// (where there is one) the leaf's and strong enough, made for server authentication, and each certificate signed
// by the next. Whether the last is trusted is the TLS client's to decide.
func (b *Bundle) Check(names []string, now time.Time) error {
	switch {
	case b.Leaf == nil:
		return errors.New("check bundle: no leaf certificate")
	case b.Leaf.IsCA:
		return errors.New("check certificate: it is a CA certificate")
	case now.Before(b.Leaf.NotBefore):
		return fmt.Errorf("check certificate: not valid before %s", b.Leaf.NotBefore.UTC().Format(time.RFC3339))
	case !now.Before(b.Leaf.NotAfter):
		return fmt.Errorf("check certificate: expired at %s", b.Leaf.NotAfter.UTC().Format(time.RFC3339))
	case b.Key != nil && !sameKey(b.Leaf.PublicKey, b.Key.Public()):
		return errors.New("check certificate: the private key is not its own")
	case !slices.Contains(b.Leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(b.Leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("check certificate: it is not made for server authentication")
	}
	if err := checkNames(b.Leaf, names); err != nil {
		return err
	}
	if err := checkStrength(b.Leaf.PublicKey); err != nil {
		return err
	}
	return b.checkChain(now)
}

func (b *Bundle) checkChain(now time.Time) error {
	child := b.Leaf
	for i, parent := range b.Chain {
		switch {
		case !parent.IsCA || !parent.BasicConstraintsValid:
			return fmt.Errorf("check chain: certificate %d is not a CA", i+1)
		case !now.Before(parent.NotAfter):
			return fmt.Errorf("check chain: certificate %d expired at %s", i+1, parent.NotAfter.UTC().Format(time.RFC3339))
		case !bytes.Equal(child.RawIssuer, parent.RawSubject):
			return fmt.Errorf("check chain: certificate %d is not the issuer that the one before it names", i+1)
		}
		if err := child.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("check chain: certificate %d did not sign the one before it: %w", i+1, err)
		}
		child = parent
	}
	return nil
}

func checkNames(leaf *x509.Certificate, names []string) error {
	if len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) > 0 {
		return errors.New("check certificate: it holds names that are not DNS names")
	}
	want := sortedNames(names)
	if got := sortedNames(leaf.DNSNames); !slices.Equal(got, want) {
		return fmt.Errorf("check certificate: it is for %q, not for %q", strings.Join(got, " "), strings.Join(want, " "))
	}
	return nil
}

func sortedNames(names []string) []string {
	lower := make([]string, 0, len(names))
	for _, name := range names {
		lower = append(lower, strings.ToLower(name))
	}
	slices.Sort(lower)
	return slices.Compact(lower)
}

// LeafSHA256 is the lower-case hex SHA-256 of the leaf's DER.
func (b *Bundle) LeafSHA256() string { return LeafSHA256(b.Leaf) }

// SPKISHA256 is the lower-case hex SHA-256 of the leaf's public key info.
func (b *Bundle) SPKISHA256() string { return SPKISHA256(b.Leaf) }

// LeafSHA256 is the lower-case hex SHA-256 of c's DER.
func LeafSHA256(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// SPKISHA256 is the lower-case hex SHA-256 of c's public key info.
func SPKISHA256(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// FullChainPEM is the leaf and its chain, as servers read it.
func (b *Bundle) FullChainPEM() []byte { return append(encodeCertificates(b.Leaf), b.ChainPEM()...) }

// LeafPEM is the leaf alone.
func (b *Bundle) LeafPEM() []byte { return encodeCertificates(b.Leaf) }

// ChainPEM is the chain without the leaf, empty where there is none.
func (b *Bundle) ChainPEM() []byte { return encodeCertificates(b.Chain...) }

func encodeCertificates(all ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range all {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer takes everything
	}
	return out.Bytes()
}

// KeyPEM is the private key as PKCS #8 (RFC 5208).
func (b *Bundle) KeyPEM() ([]byte, error) {
	if b.Key == nil {
		return nil, errors.New("encode private key: the bundle holds none")
	}
	der, err := x509.MarshalPKCS8PrivateKey(b.Key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
