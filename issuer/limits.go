// This file is how a CA's limits are written down as data.

package issuer

import "time"

// Scope is what a limit counts by.
type Scope string

// The scopes. All but ScopeAddress hold within one account.
const (
	ScopeAccount          Scope = "account"
	ScopeRegisteredDomain Scope = "registered_domain"
	ScopeExactSet         Scope = "exact_set"
	ScopeHostname         Scope = "hostname"
)

// Spending is what a limit counts.
type Spending string

// What is counted.
const (
	SpendOrder            Spending = "order"
	SpendIssuance         Spending = "issuance"
	SpendFailedValidation Spending = "failed_validation"
)

// Limit is one published limit of a CA: at most Count in each Per, refilled evenly.
type Limit struct {
	Name  string
	Scope Scope
	Of    Spending
	Count int
	Per   time.Duration
	// RenewalExempt says that an order which replaces a certificate (RFC 9773 §5) does not count.
	RenewalExempt bool
}
