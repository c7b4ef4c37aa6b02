// This file encodes and reads key stores: leaf, chain and key in one file under a password, as Java and Windows software
// takes them.

package agent

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/certferry/certferry/gitstore/bundle"
)

// Keystore is a file that holds leaf, chain and key under a password. The zero value means that there is none.
type Keystore struct {
	Path string
	// Format is FormatPKCS12 or FormatJKS.
	Format Format
	// PasswordFile is the absolute path of the file that holds the password, and Password what was read from it.
	PasswordFile string
	Password     Password
	// Alias names the entry of a JKS file. Entries of PKCS #12 files get no name.
	Alias string
	// Legacy encrypts PKCS #12 with 3DES and SHA-1, for Java before 8u301 and Windows before 2019, which read nothing else.
	Legacy bool
}

// Password is a secret that no format string, log or JSON document shows.
type Password string

// String implements fmt.Stringer.
func (Password) String() string { return "(password)" }

// GoString implements fmt.GoStringer.
func (p Password) GoString() string { return p.String() }

// MarshalText implements encoding.TextMarshaler, which log/slog and encoding/json ask.
func (p Password) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// maxIterations bounds the work that a key store asks for before it can be read: it is made to be slow, and a hostile one
// would be for ever. Java and OpenSSL write 10,000 and less.
const maxIterations = 100_000

func (k Keystore) encode(b *bundle.Bundle) ([]byte, error) {
	switch {
	case k.Password == "":
		return nil, errors.New("its password was not read")
	case k.Format == FormatPKCS12 && k.Legacy:
		return pkcs12.Legacy.Encode(b.Key, b.Leaf, b.Chain, string(k.Password))
	case k.Format == FormatPKCS12:
		return pkcs12.Modern2023.Encode(b.Key, b.Leaf, b.Chain, string(k.Password))
	case k.Format == FormatJKS:
		return k.encodeJKS(b)
	}
	return nil, fmt.Errorf("format %q is not one of a key store", k.Format)
}

func (k Keystore) encodeJKS(b *bundle.Bundle) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(b.Key)
	if err != nil {
		return nil, err
	}
	entry := keystore.PrivateKeyEntry{CreationTime: b.Leaf.NotBefore, PrivateKey: der}
	for _, c := range append([]*x509.Certificate{b.Leaf}, b.Chain...) {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X509", Content: c.Raw})
	}
	store := keystore.New()
	if err := store.SetPrivateKeyEntry(k.Alias, entry, []byte(k.Password)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := store.Store(&out, []byte(k.Password)); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Open reads the leaf, chain and key of a key store in k's format, of which neither owner nor contents need be trusted. The
// chain is left in the order in which it stands there.
func (k Keystore) Open(data []byte) (*bundle.Bundle, error) {
	if len(data) > bundle.MaxSize {
		return nil, fmt.Errorf("open key store: larger than %d bytes", bundle.MaxSize)
	}
	open := k.openPKCS12
	if k.Format == FormatJKS {
		open = k.openJKS
	}
	b, err := open(data)
	if err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	if public, ok := b.Leaf.PublicKey.(interface{ Equal(x crypto.PublicKey) bool }); !ok || !public.Equal(b.Key.Public()) {
		return nil, errors.New("open key store: the private key is not the certificate's")
	}
	return b, nil
}

// pbes2 is the DER of the object identifier of the encryption that old software cannot read (RFC 8018, appendix C).
var pbes2 = []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d}

func (k Keystore) openPKCS12(data []byte) (*bundle.Bundle, error) {
	if k.Legacy && bytes.Contains(data, pbes2) {
		return nil, errors.New("it is encrypted in a way that old software cannot read")
	}
	if err := checkIterations(data, 0); err != nil {
		return nil, err
	}
	key, leaf, chain, err := pkcs12.DecodeChain(data, string(k.Password))
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok || leaf == nil {
		return nil, errors.New("it holds no certificate with a private key")
	}
	return &bundle.Bundle{Leaf: leaf, Chain: chain, Key: signer}, nil
}

// checkIterations looks for the count that follows a salt (RFC 7292, appendix C; RFC 8018, appendix A), at any depth that
// is not encrypted.
func checkIterations(der []byte, depth int) error {
	const deepest = 32
	salted := false
	for depth < deepest && len(der) > 0 {
		var v asn1.RawValue
		rest, err := asn1.Unmarshal(der, &v)
		if err != nil {
			return nil //nolint:nilerr // an octet string that holds no DER
		}
		der = rest
		if v.Tag == asn1.TagInteger && v.Class == asn1.ClassUniversal && salted {
			var n int
			if _, err := asn1.Unmarshal(v.FullBytes, &n); err != nil || n > maxIterations {
				return fmt.Errorf("it asks for more than %d rounds of key derivation", maxIterations)
			}
		}
		salted = v.Tag == asn1.TagOctetString && v.Class == asn1.ClassUniversal
		if v.IsCompound || salted {
			if err := checkIterations(v.Bytes, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (k Keystore) openJKS(data []byte) (*bundle.Bundle, error) {
	if err := checkJKS(data); err != nil {
		return nil, err
	}
	store := keystore.New()
	if err := store.Load(bytes.NewReader(data), []byte(k.Password)); err != nil {
		return nil, err
	}
	entry, err := store.GetPrivateKeyEntry(k.Alias, []byte(k.Password))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok || len(entry.CertificateChain) == 0 {
		return nil, errors.New("it holds no certificate with a private key")
	}
	b := &bundle.Bundle{Key: signer}
	for i, raw := range entry.CertificateChain {
		c, err := x509.ParseCertificate(raw.Content)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			b.Leaf = c
			continue
		}
		b.Chain = append(b.Chain, c)
	}
	return b, nil
}

var errJKS = errors.New("it is damaged or no JKS file")

// checkJKS makes sure that all lengths lie within data: the library would reserve as much memory as they say.
func checkJKS(data []byte) error {
	r := jksReader{rest: data}
	r.skip(4) // magic
	version := r.uint32()
	for n := r.uint32(); n > 0 && !r.bad; n-- {
		key := r.uint32() == 1
		r.skip(int(r.uint16())) // alias
		r.skip(8)               // time of creation
		certificates := uint32(1)
		if key {
			r.skip(int(r.uint32()))
			certificates = r.uint32()
		}
		if int64(certificates) > int64(len(r.rest)) {
			return errJKS
		}
		for ; certificates > 0 && !r.bad; certificates-- {
			if version != 1 {
				r.skip(int(r.uint16())) // type
			}
			r.skip(int(r.uint32()))
		}
	}
	if r.bad {
		return errJKS
	}
	return nil
}

// jksReader reads big-endian numbers; bad says that the data ended too early.
type jksReader struct {
	rest []byte
	bad  bool
}

func (r *jksReader) skip(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return nil
	}
	skipped := r.rest[:n]
	r.rest = r.rest[n:]
	return skipped
}

func (r *jksReader) uint16() uint16 {
	if b := r.skip(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *jksReader) uint32() uint32 {
	if b := r.skip(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}
