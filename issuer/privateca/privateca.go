// Package privateca is an embedded certificate authority: a root, an intermediate that signs, both in a folder of the
// hub. It serves where no public CA can: for internal names, and for trying things out.
//
// It signs for whatever names a request holds; who may ask for which is the hub's to decide. Serial numbers are
// random, nothing is recorded.
package privateca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
)

const (
	rootLife         = 20 * 365 * 24 * time.Hour
	intermediateLife = 10 * 365 * 24 * time.Hour
	// DefaultLifetime is that of a certificate where Config gives none.
	DefaultLifetime = 90 * 24 * time.Hour
	// backdate lets clients whose clock is a little behind accept a new certificate.
	backdate = 5 * time.Minute
)

// Init makes the root and the intermediate called name in dir, which it makes with mode 0700. It refuses to replace a
// CA that is there.
func Init(dir, name string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make CA folder: %w", err)
	}
	for _, file := range []string{rootCertificate, rootKey, intermediateCertificate, intermediateKey} {
		if _, err := os.Lstat(filepath.Join(dir, file)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make CA: %s is there already; it is never replaced", filepath.Join(dir, file))
		}
	}
	root, rootSigner, err := newAuthority(name+" Root", now, rootLife, nil, nil)
	if err != nil {
		return err
	}
	intermediate, signer, err := newAuthority(name+" Intermediate", now, intermediateLife, root, rootSigner)
	if err != nil {
		return err
	}
	// The root's certificate comes last: New takes it as the sign of a whole CA.
	return errors.Join(
		writeKey(filepath.Join(dir, rootKey), rootSigner),
		writeKey(filepath.Join(dir, intermediateKey), signer),
		write(filepath.Join(dir, intermediateCertificate), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: intermediate.Raw})),
		write(filepath.Join(dir, rootCertificate), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})),
	)
}

// newAuthority makes a CA certificate, signed by parent or by itself where parent is nil.
func newAuthority(name string, now time.Time, life time.Duration, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serialNumber(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate).UTC().Truncate(time.Second), NotAfter: now.Add(life).UTC().Truncate(time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	signer := parentKey
	if parent == nil {
		parent, signer = template, key
	} else {
		// The intermediate signs leaves only.
		template.MaxPathLenZero = true
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA certificate: %w", err)
	}
	return certificate, key, nil
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

// Config is what New needs.
type Config struct {
	// Dir was made by Init.
	Dir string
	// Lifetime of a certificate; 0 for DefaultLifetime.
	Lifetime time.Duration
	Now      func() time.Time
}

// CA signs certificates. It is an issuer.Issuer.
type CA struct {
	cfg          Config
	root         *x509.Certificate
	intermediate *x509.Certificate
	key          crypto.Signer
}

var _ issuer.Issuer = (*CA)(nil)

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
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw})
}

// Issue signs the request's CSR for exactly the request's names. Challenge, Profile and PreferredChain are ignored.
func (ca *CA) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	if err := ctx.Err(); err != nil {
		return nil, &issuer.Error{Class: issuer.Retryable, Detail: "the order was cancelled", Err: err}
	}
	csr, err := checkCSR(req)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Permanent, ACMEType: "badCSR", Detail: err.Error()}
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
	der, err := x509.CreateCertificate(rand.Reader, template, ca.intermediate, csr.PublicKey, ca.key)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "sign certificate", Err: err}
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "sign certificate", Err: err}
	}
	return &issuer.Certificate{Chain: []*x509.Certificate{leaf, ca.intermediate}}, nil
}

// checkCSR says why a request cannot be signed.
func checkCSR(req issuer.Request) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(req.CSR)
	if err != nil {
		return nil, errors.New("the certificate request cannot be read")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errors.New("the certificate request is not signed by its own key")
	}
	if len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, errors.New("the certificate request holds names that are not DNS names")
	}
	if len(req.Names) == 0 || !slices.Equal(sorted(csr.DNSNames), sorted(req.Names)) {
		return nil, errors.New("the certificate request is for other names than the order")
	}
	if bytes.ContainsAny([]byte(strings.Join(csr.DNSNames, "")), " \x00\r\n\t") {
		return nil, errors.New("the certificate request holds a name with white space")
	}
	return csr, nil
}

func sorted(names []string) []string {
	all := slices.Clone(names)
	slices.Sort(all)
	return slices.Compact(all)
}
