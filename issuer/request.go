// This file holds a certificate request against its order, once for all drivers.

package issuer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"slices"
)

// maxCSR bounds a certificate request, in bytes: 100 long names with an RSA key take below 30 KiB.
const maxCSR = 64 << 10

// ParseCSR reads the request's CSR for a driver and holds it against the order: it is signed by its own key, the key
// is one that browsers accept (CA/Browser Forum Baseline Requirements §6.1.5), and its names are exactly those of
// the order. The error is an *Error of class Permanent and repeats nothing of the CSR.
func (r *Request) ParseCSR() (*x509.CertificateRequest, error) {
	if len(r.CSR) > maxCSR {
		return nil, badCSR("badCSR", "the certificate request is too large")
	}
	csr, err := x509.ParseCertificateRequest(r.CSR)
	if err != nil {
		return nil, badCSR("badCSR", "the certificate request cannot be read")
	}
	if csr.CheckSignature() != nil {
		return nil, badCSR("badCSR", "the certificate request is not signed by its own key")
	}
	if !acceptableKey(csr.PublicKey) {
		return nil, badCSR("badPublicKey", "the key of the certificate request must be ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits")
	}
	if len(csr.IPAddresses)+len(csr.EmailAddresses)+len(csr.URIs) > 0 {
		return nil, badCSR("badCSR", "the certificate request holds names that are not DNS names")
	}
	if len(r.Names) == 0 || !slices.Equal(sorted(csr.DNSNames), sorted(r.Names)) {
		return nil, badCSR("badCSR", "the certificate request is for other names than the order")
	}
	if cn := csr.Subject.CommonName; cn != "" && !slices.Contains(r.Names, cn) {
		return nil, badCSR("badCSR", "the common name of the certificate request is not one of the order's names")
	}
	return csr, nil
}

func badCSR(acmeType, detail string) error {
	return &Error{Class: Permanent, ACMEType: acmeType, Detail: detail}
}

func acceptableKey(key any) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= 2048 && key.N.BitLen() <= 8192
	case *ecdsa.PublicKey:
		return key.Curve == elliptic.P256() || key.Curve == elliptic.P384()
	default:
		return false
	}
}

// sorted is names as a set.
func sorted(names []string) []string {
	all := slices.Clone(names)
	slices.Sort(all)
	return slices.Compact(all)
}
