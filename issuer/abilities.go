// This file says what a driver may be able to do beside issuing. Who needs an ability asks for it by a type assertion.

package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// ErrUnsupported says that the CA does not offer what was asked of it.
var ErrUnsupported = errors.New("the CA does not offer this")

// Revoker can tell the CA that nobody should trust a certificate any more.
type Revoker interface {
	// Revoke revokes leaf for a reason of RFC 5280 §5.3.1. One that is revoked already is no error.
	Revoke(ctx context.Context, leaf *x509.Certificate, reason int) error
}

// RenewalInformer can ask when the CA wants a certificate renewed (RFC 9773).
type RenewalInformer interface {
	// RenewalInfo answers for leaf, which parent signed; ErrUnsupported where the CA says nothing about it.
	RenewalInfo(ctx context.Context, leaf, parent *x509.Certificate) (RenewalInfo, error)
}

// RenewalInfo is the window in which a CA wants a certificate renewed (RFC 9773 §4.2).
type RenewalInfo struct {
	Start time.Time
	End   time.Time
	// ExplanationURL is a page for people, or empty.
	ExplanationURL string
	// RetryAfter is when to ask again, 0 where the CA did not say.
	RetryAfter time.Duration
}

// AccountHolder has an account at its CA.
type AccountHolder interface {
	// Account asks the CA for the account, and registers one where there is none.
	Account(ctx context.Context) (AccountInfo, error)
	// Thumbprint is the JWK thumbprint of the account's key (RFC 7638). It needs no network where there is an account.
	Thumbprint(ctx context.Context) (string, error)
	// Deactivate ends the account at the CA for good (RFC 8555 §7.3.6).
	Deactivate(ctx context.Context) error
}

// AccountInfo is an account as its CA shows it.
type AccountInfo struct {
	URL string
	// Status is valid, deactivated or revoked.
	Status  string
	Contact []string
}

// Recoverer can clear up after a process that was killed in the middle of orders.
type Recoverer interface {
	// Recover ends what was left running and removes what was left lying, TXT records with the credentials of that name
	// included, and tells about each order. Nothing else may use the driver meanwhile.
	Recover(ctx context.Context, credentials func(name string) (map[string]string, error)) ([]Leftover, error)
}

// Leftover is an order that was cut short.
type Leftover struct {
	// OrderID is the Request's ID, Phase how far it had come.
	OrderID string
	Phase   Phase
	// Records are the TXT records that it had added and that could not be removed, as "name value".
	Records []string
}

// Checker can say before an order what it would refuse of it.
type Checker interface {
	// Check is about all but the CSR: the names, the challenge and those that overrides hold by name. It talks to nobody; its
	// error is an *Error.
	Check(names []string, challenge Challenge, overrides map[string]Challenge) error
}

// DNSTester can try a DNS credential.
type DNSTester interface {
	// TestDNS adds a random TXT record below domain with c's hook and credentials, waits until it is seen, and removes it.
	TestDNS(ctx context.Context, c Challenge, domain string, progress func(Event)) error
}

// Event is a step of an order.
type Event struct {
	// Phase is set when the order came to a further one.
	Phase Phase
	// Line is for people: one line without secrets, or empty.
	Line string
}

// Phase is how far an order is.
type Phase string

// The phases, in order.
const (
	PhasePrepare   Phase = "prepare"
	PhaseAccount   Phase = "account"
	PhaseOrder     Phase = "order"
	PhaseAuthorize Phase = "authorize"
	PhaseDNS       Phase = "dns"
	PhaseValidate  Phase = "validate"
	PhaseFinalize  Phase = "finalize"
	PhaseDownload  Phase = "download"
	PhaseCheck     Phase = "check"
)

// phases are in order.
var phases = []Phase{
	PhasePrepare, PhaseAccount, PhaseOrder, PhaseAuthorize, PhaseDNS, PhaseValidate, PhaseFinalize, PhaseDownload, PhaseCheck,
}

// Reached says whether p is at other or behind it; an unknown phase has reached nothing.
func (p Phase) Reached(other Phase) bool {
	return slices.Index(phases, p) >= slices.Index(phases, other) && slices.Contains(phases, p)
}

// Spent says whether the CA may have issued a certificate by then, which counts against its limits.
func (p Phase) Spent() bool { return p.Reached(PhaseFinalize) }
