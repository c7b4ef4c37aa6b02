// This file makes and reads private keys and certificate signing requests.

package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// KeyType is the kind and size of a certificate's key.
type KeyType string

// The key types that can be asked for.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	RSA2048   KeyType = "rsa-2048"
	RSA3072   KeyType = "rsa-3072"
	RSA4096   KeyType = "rsa-4096"
)

// ParseKeyType reads a key type; the empty text is ECDSAP256.
func ParseKeyType(text string) (KeyType, error) {
	switch t := KeyType(text); t {
	case "":
		return ECDSAP256, nil
	case ECDSAP256, ECDSAP384, RSA2048, RSA3072, RSA4096:
		return t, nil
	default:
		return "", errors.New("parse key type: it must be ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	}
}

// GenerateKey makes a private key.
func GenerateKey(t KeyType) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch t {
	case ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, errors.New("make private key: unknown key type")
	}
	if err != nil {
		return nil, fmt.Errorf("make private key: %w", err)
	}
	return key, nil
}

// NewCSR makes a PKCS #10 request (RFC 2986) in DER for names, which stand as subject alternative names only.
func NewCSR(key crypto.Signer, names []string) ([]byte, error) {
	if len(names) == 0 {
		return nil, errors.New("make certificate request: no names")
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return der, nil
}

// ParseKey reads one private key from PEM data that holds nothing else.
func ParseKey(data []byte) (crypto.Signer, error) {
	all, err := blocks(data)
	if err != nil || len(all) != 1 {
		return nil, errors.New("parse private key: one PEM block was expected")
	}
	return parseKey(all[0])
}

func parseKey(block *pem.Block) (crypto.Signer, error) {
	var key any
	var err error
	switch block.Type {
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		// The parser's text may describe parts of the key; it is not passed on.
		return nil, errors.New("parse private key: it is damaged or encrypted")
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		return key, nil
	default:
		return nil, errors.New("parse private key: it is neither ECDSA nor RSA")
	}
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// checkStrength refuses keys that browsers refuse (CA/Browser Forum Baseline Requirements §6.1.5).
func checkStrength(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			return errors.New("check certificate: its RSA key has less than 2048 bits")
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
			return errors.New("check certificate: its curve is neither P-256 nor P-384")
		}
	default:
		return errors.New("check certificate: its key is neither ECDSA nor RSA")
	}
	return nil
}
