// This file is what the hub writes down of the limits that CAs set.

package hub

import (
	"time"

	"github.com/certferry/certferry/issuer"
)

// Spend is what an order takes from one limit of an account: it is booked before the order begins and given back where
// it turns out not to be spent.
type Spend struct {
	// OrderID is of the order, as issuer.Request has it.
	OrderID string
	// Account is the ACME account, which all issuers of one directory share.
	Account  string
	Spending issuer.Spending
	Scope    issuer.Scope
	// Object is the domain, set or host name that Scope counts by; empty for the account.
	Object string
	// Renewal says that the order replaces a certificate.
	Renewal bool
	At      time.Time
}

// SpendQuery asks for what was spent of one limit.
type SpendQuery struct {
	Account  string
	Spending issuer.Spending
	Scope    issuer.Scope
	Object   string
	// Since is where the window begins. SkipRenewals leaves out what the CA exempts.
	Since        time.Time
	SkipRenewals bool
}

// Ledger is what was spent.
type Ledger interface {
	// Spent lists when a limit was spent, the newest n first.
	Spent(q SpendQuery, n int) ([]time.Time, error)
	// Paused is until when the CA wants an account's orders to wait, zero for not at all, and why.
	Paused(account string) (until time.Time, reason string, err error)
}
