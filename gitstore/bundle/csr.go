// This file judges the certificate requests that others made.

package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// MaxCSR bounds a certificate request, in bytes: one of a hundred long names and an RSA key of 4096 bits has half of it.
const MaxCSR = 64 << 10

var extensionNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// CheckCSR says whether a PKCS #10 request (RFC 2986) in DER is signed by its own key, which is of the type, and asks for
// exactly the names and for nothing else. It returns the lower-case hex SHA-256 of the request's public key info.
func CheckCSR(der []byte, names []string, kind KeyType) (spki string, err error) {
	if len(der) > MaxCSR {
		return "", fmt.Errorf("check certificate request: it has more than %d bytes", MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return "", errors.New("check certificate request: it cannot be read")
	}
	if err := csr.CheckSignature(); err != nil {
		return "", errors.New("check certificate request: it is not signed by its own key")
	}
	switch {
	case TypeOf(csr.PublicKey) != kind:
		return "", fmt.Errorf("check certificate request: its key is not of the type %s", kind)
	case len(csr.Subject.Names) > 0:
		return "", errors.New("check certificate request: it names a subject beside its DNS names")
	case len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0:
		return "", errors.New("check certificate request: it holds names that are not DNS names")
	case len(csr.Extensions) != 1 || !csr.Extensions[0].Id.Equal(extensionNames):
		return "", errors.New("check certificate request: it asks for more than names")
	case len(csr.DNSNames) != len(sortedNames(names)) || !slices.Equal(sortedNames(csr.DNSNames), sortedNames(names)):
		return "", errors.New("check certificate request: it is for other names")
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// TypeOf is the type of a public key, empty for one that cannot be asked for.
func TypeOf(key crypto.PublicKey) KeyType {
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch key.N.BitLen() {
		case 2048:
			return RSA2048
		case 3072:
			return RSA3072
		case 4096:
			return RSA4096
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return ECDSAP256
		case elliptic.P384():
			return ECDSAP384
		}
	}
	return ""
}

// KeySHA256 is the lower-case hex SHA-256 of a public key's info, as SPKISHA256 is that of a certificate's.
func KeySHA256(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}
