// Package privateca is an embedded certificate authority: a root, an intermediate that signs, both in a folder of the
// hub. It serves where no public CA can: for internal names, and for trying things out.
//
// It signs for the names that its name constraints permit, all where there are none; who may ask for which is the hub's to
// decide. Serial numbers are random. What was issued and what was revoked stands in two lists in the folder.
package privateca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
)

// Files of a CA's folder.
const (
	rootCertificate         = "root.crt"
	rootKey                 = "root.key"
	intermediateCertificate = "intermediate.crt"
	intermediateKey         = "intermediate.key"
	issuedList              = "issued.jsonl"
	revokedList             = "revoked.jsonl"
)

const (
	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 10 * 365 * 24 * time.Hour
	// DefaultLifetime is that of a certificate where Config gives none.
	DefaultLifetime = 90 * 24 * time.Hour
	// backdate lets clients whose clock is a little behind accept a new certificate.
	backdate = 5 * time.Minute
)

var plainDomain = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Init makes the root and the intermediate called name in dir, which it makes with mode 0700. It refuses to replace a
// CA that is there. Where permitted is not empty, both can sign for these domains and what is below them only (RFC 5280
// §4.2.1.10).
func Init(dir, name string, now time.Time, permitted ...string) error {
	for _, domain := range permitted {
		if !plainDomain.MatchString(domain) {
			return errors.New("make CA: a permitted domain must be a DNS name such as internal.example")
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make CA folder: %w", err)
	}
	for _, file := range []string{rootCertificate, rootKey, intermediateCertificate, intermediateKey} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make CA: %s is there already; it is never replaced", filepath.Join(dir, file))
		}
	}
	root, rootSigner, err := newAuthority(name+" Root", now, rootLife, nil, nil, permitted)
	if err != nil {
		return err
	}
	intermediate, signer, err := newAuthority(name+" Intermediate", now, intermediateLife, root, rootSigner, permitted)
	if err != nil {
		return err
	}
	// The root's certificate comes last: New takes it as the sign of a whole CA.
	return errors.Join(
		writeKey(filepath.Join(dir, rootKey), rootSigner),
		writeKey(filepath.Join(dir, intermediateKey), signer),
		write(filepath.Join(dir, intermediateCertificate), pemOf(intermediate)),
		write(filepath.Join(dir, rootCertificate), pemOf(root)),
	)
}

// newAuthority makes a CA certificate, signed by parent or by itself where parent is nil.
func newAuthority(name string, now time.Time, life time.Duration, parent *x509.Certificate, parentKey crypto.Signer, permitted []string) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA key: %w", err)
	}
	certificate, err := signAuthority(name, now, life, parent, parentKey, key, permitted)
	return certificate, key, err
}

// signAuthority certifies the key of an authority, for no longer than its parent lasts.
func signAuthority(name string, now time.Time, life time.Duration, parent *x509.Certificate, parentKey, key crypto.Signer, permitted []string) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: serialNumber(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate).UTC().Truncate(time.Second), NotAfter: now.Add(life).UTC().Truncate(time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		PermittedDNSDomains: permitted, PermittedDNSDomainsCritical: len(permitted) > 0,
	}
	signer := parentKey
	if parent == nil {
		parent, signer = template, key
	} else {
		if template.NotAfter.After(parent.NotAfter) {
			template.NotAfter = parent.NotAfter
		}
		if !template.NotBefore.Before(template.NotAfter) {
			return nil, errors.New("make CA certificate: the root has expired: make a new CA")
		}
		// The intermediate signs leaves only.
		template.MaxPathLenZero = true
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return certificate, nil
}

// serialNumber has 127 random bits (Baseline Requirements §7.1 ask for 64) and is never zero or negative.
func serialNumber() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f
	b[15] |= 1
	return new(big.Int).SetBytes(b[:])
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode CA key: %w", err)
	}
	return write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// write makes a file that was not there, synced.
func write(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the path is the administrator's
	if err != nil {
		return fmt.Errorf("write CA file: %w", err)
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write CA file: %w", err)
	}
	return nil
}

// replace writes a file in one synced step.
func replace(path string, data []byte) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write CA file: %w", err)
	}
	if err := write(next, data); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write CA file: %w", err)
	}
	return nil
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it is not a private key")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it is not a private key")
	}
	return signer, nil
}

// Config is what New needs.
type Config struct {
	// Dir was made by Init.
	Dir string
	// Lifetime of a certificate; 0 for DefaultLifetime.
	Lifetime time.Duration
	// CRLURL is where clients find the list of revoked certificates; empty leaves it out of certificates.
	CRLURL string
	Now    func() time.Time
}

// CA signs certificates. It is an issuer.Issuer.
type CA struct {
	cfg          Config
	root         *x509.Certificate
	intermediate *x509.Certificate
	key          crypto.Signer

	// mu guards the lists and the CRL that was made last, of a list of crlOf bytes.
	mu    sync.Mutex
	crl   *x509.RevocationList
	crlOf int64
}

var (
	_ issuer.Issuer  = (*CA)(nil)
	_ issuer.Revoker = (*CA)(nil)
)

// New opens the CA in cfg.Dir.
func New(cfg Config) (*CA, error) {
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	if cfg.Lifetime < time.Minute || cfg.Now == nil {
		return nil, errors.New("open CA: the lifetime is shorter than a minute, or the clock is missing")
	}
	read := func(names ...string) (*bundle.Bundle, error) {
		var parts [][]byte
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(cfg.Dir, name)) //nolint:gosec // the path is the administrator's
			if err != nil {
				return nil, fmt.Errorf("open CA: %w", err)
			}
			parts = append(parts, data)
		}
		b, err := bundle.Parse(parts...)
		if err != nil {
			return nil, fmt.Errorf("open CA in %s: %w", cfg.Dir, err)
		}
		return b, nil
	}
	signing, err := read(intermediateCertificate, intermediateKey, rootCertificate)
	if err != nil {
		return nil, err
	}
	if len(signing.Chain) != 1 || signing.Key == nil {
		return nil, fmt.Errorf("open CA in %s: root and intermediate do not belong together", cfg.Dir)
	}
	return &CA{cfg: cfg, root: signing.Chain[0], intermediate: signing.Leaf, key: signing.Key}, nil
}

// RootPEM is the root's certificate, for the trust stores of clients.
func (ca *CA) RootPEM() []byte {
	return pemOf(ca.root)
}

// Issue signs the request's CSR for exactly the request's names. Challenge, Profile and PreferredChain are ignored.
func (ca *CA) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, &issuer.Error{Class: issuer.Retryable, Detail: "the order was cancelled", Err: err}
	}
	csr, err := readCSR(&req)
	if err != nil {
		return nil, err
	}
	if err := ca.permits(csr.DNSNames); err != nil {
		return nil, err
	}
	now := ca.cfg.Now().UTC()
	expires := now.Add(ca.cfg.Lifetime).Truncate(time.Second)
	if expires.After(ca.intermediate.NotAfter) {
		expires = ca.intermediate.NotAfter
	}
	if !now.Add(time.Minute).Before(expires) {
		return nil, &issuer.Error{Class: issuer.Account, Detail: "the private CA has expired: make a new one"}
	}
	template := &x509.Certificate{
		SerialNumber: serialNumber(), DNSNames: csr.DNSNames,
		NotBefore: now.Add(-backdate).Truncate(time.Second), NotAfter: expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if _, ok := csr.PublicKey.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment // the key exchange of old TLS
	}
	if ca.cfg.CRLURL != "" {
		template.CRLDistributionPoints = []string{ca.cfg.CRLURL}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.intermediate, csr.PublicKey, ca.key)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "sign certificate", Err: err}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "sign certificate", Err: err}
	}
	if err := ca.note(issuedList, entry{Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter, At: now, Names: leaf.DNSNames}); err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "note what was signed", Err: err}
	}
	return &issuer.Certificate{Chain: []*x509.Certificate{leaf, ca.intermediate}}, nil
}

// permits says why the CA's name constraints keep it from signing for names.
func (ca *CA) permits(names []string) error {
	for _, constrained := range []*x509.Certificate{ca.root, ca.intermediate} {
		if len(constrained.PermittedDNSDomains) == 0 {
			continue
		}
		for _, name := range names {
			if !slices.ContainsFunc(constrained.PermittedDNSDomains, func(domain string) bool { return within(name, domain) }) {
				return &issuer.Error{
					Class: issuer.Permanent, ACMEType: "rejectedIdentifier", Name: name,
					Detail: "this CA may sign for " + strings.Join(constrained.PermittedDNSDomains, ", ") + " and below only",
				}
			}
		}
	}
	return nil
}

// within says whether a name is domain or below it.
func within(name, domain string) bool {
	name = strings.TrimPrefix(name, "*.")
	return name == domain || strings.HasSuffix(name, "."+domain)
}

// readCSR reads what is to be signed. No other CA looks at the names again, so that white space is refused here.
func readCSR(req *issuer.Request) (*x509.CertificateRequest, error) {
	csr, err := req.ParseCSR()
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(strings.Join(csr.DNSNames, ""), " \x00\r\n\t") {
		return nil, &issuer.Error{Class: issuer.Permanent, ACMEType: "badCSR", Detail: "the certificate request holds a name with white space"}
	}
	return csr, nil
}
