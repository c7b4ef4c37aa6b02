// Package issuer is the contract between the hub and whatever turns a certificate signing request into a
// certificate. Drivers live below it; package issuertest holds the conformance suite that every driver runs.
//
// A driver never sees a TLS private key: it takes a CSR and answers a chain. The hub checks the chain again
// before it is used.
package issuer

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"
)

// Issuer gets certificates from one CA under one account.
type Issuer interface {
	// Issue orders a certificate for req and returns once the chain was received and checked, or with an *Error.
	// It may be called from several goroutines. A done ctx ends it, external programs included, within seconds.
	Issue(ctx context.Context, req Request) (*Certificate, error)
}

// Request is one order.
type Request struct {
	// ID is unique to the order and matches [a-z0-9-]{1,64}; drivers may name a working folder by it.
	ID string
	// Names are DNS names as A-labels in lower case, the main name first; the CSR holds exactly these.
	Names []string
	// CSR is a DER PKCS #10 request (RFC 2986).
	CSR []byte
	// Previous is the PEM leaf that this order replaces, or nil; an ACME driver sends it as "replaces"
	// (RFC 9773 §5).
	Previous []byte
	// Challenge is how control of the names is proven, but for those that Overrides holds; a private CA ignores both.
	Challenge Challenge
	Overrides map[string]Challenge
	// Profile and PreferredChain are asked of the CA where set.
	Profile        string
	PreferredChain string
	// Progress is told how far the order is, by one goroutine at a time; nil for nobody.
	Progress func(Event)
}

// ChallengeOf is the challenge of one of the names.
func (r *Request) ChallengeOf(name string) Challenge {
	if c, ok := r.Overrides[name]; ok {
		return c
	}
	return r.Challenge
}

// Tell tells Progress, where there is one.
func (r *Request) Tell(e Event) {
	if r.Progress != nil {
		r.Progress(e)
	}
}

// ChallengeType is an ACME challenge type (RFC 8555 §8).
type ChallengeType string

// The challenge types that drivers know.
const (
	HTTP01    ChallengeType = "http-01"
	DNS01     ChallengeType = "dns-01"
	TLSALPN01 ChallengeType = "tls-alpn-01"
)

// Challenge says how to prove control of the names.
type Challenge struct {
	Type ChallengeType
	// Method is webroot, standalone or stateless for HTTP01 and empty for DNS01.
	Method string
	// Webroot is the absolute folder served on port 80, for the method webroot.
	Webroot string
	// Hook is the name of acme.sh's DNS hook, for DNS01.
	Hook string
	// Credential is the name of Credentials, for the record of a run.
	Credential string
	// Credentials are the hook's variables. They are given to one run's environment and stored nowhere.
	Credentials map[string]string
	// Alias is a domain whose label _acme-challenge takes the TXT record in the name's place, DomainAlias a name that
	// takes it as it stands; for DNS01.
	Alias       string
	DomainAlias string
}

// Certificate is what a CA answered.
type Certificate struct {
	// Chain holds the leaf first, then its issuers in order, the root left out where the CA left it out.
	Chain []*x509.Certificate
}

// Class says what an Error means for the next try.
type Class string

// The classes of errors, each with its next step.
const (
	// Retryable: try again after a short back-off.
	Retryable Class = "retryable"
	// RateLimited: try again after RetryAfter.
	RateLimited Class = "rate_limited"
	// ValidationFailed: the CA could not verify control of a name; someone should look, retries are slow.
	ValidationFailed Class = "validation_failed"
	// DNSProvider: the DNS provider's API refused or failed.
	DNSProvider Class = "dns_provider"
	// Account: the CA account is unusable; every order of the account stops until someone acts.
	Account Class = "account"
	// Permanent: the same request will never succeed.
	Permanent Class = "permanent"
	// Local: this machine is at fault (disk full, missing program, unreadable file).
	Local Class = "local"
)

// Error is a failed order. Its text never holds a credential.
type Error struct {
	Class Class
	// ACMEType is the problem type without its urn prefix (RFC 8555 §6.7), such as rateLimited, or empty.
	ACMEType string
	// Name is the DNS name at fault, where one is.
	Name string
	// Detail is the sentence for a person.
	Detail string
	// RetryAfter is the least time to wait, 0 when the CA gave none.
	RetryAfter time.Duration
	// Phase is how far the order came, empty where that is not known.
	Phase Phase
	// Err is the cause, or nil.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Class)
	if e.ACMEType != "" {
		s += " (" + e.ACMEType + ")"
	}
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil {
		s = fmt.Sprintf("%s: %v", s, e.Err)
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
