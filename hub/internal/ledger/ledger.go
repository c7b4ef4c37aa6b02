// Package ledger keeps the hub below the limits of CAs. An order is booked before it begins, with all that it may spend,
// and settled when it ends: what was not spent is given back. A process that dies in between leaves it booked, which
// errs to the safe side.
//
// Only a share of each limit is used, counted over a sliding window: others may use the same account or domain, and a
// CA counts in its own way.
package ledger

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

// Shares of a limit that the hub spends, in percent. Failed validations are kept scarcer: a person who mends something
// needs a try as well.
const (
	share       = 80
	failedShare = 60
)

// Store keeps the ledger.
type Store interface {
	// Reserve runs rule and books what it answers, as one step that no other Reserve comes between.
	Reserve(ctx context.Context, rule func(hub.Ledger) ([]hub.Spend, error)) error
	// Refund gives back what an order booked of a kind, for one object where it is not empty.
	Refund(ctx context.Context, orderID string, spending issuer.Spending, object string) error
	PauseAccount(ctx context.Context, account string, until time.Time, reason string) error
}

// Order is what the rules look at.
type Order struct {
	ID      string
	Account string
	Names   []string
	// Renewal says that the order tells the CA which certificate it replaces (RFC 9773 §5).
	Renewal bool
	Limits  []issuer.Limit
}

// WaitError says that an order has to wait for a limit.
type WaitError struct {
	Until time.Time
	// Reason names the limit for people.
	Reason string
}

// Error implements error.
func (w *WaitError) Error() string {
	return fmt.Sprintf("%s: waits until %s", w.Reason, w.Until.UTC().Format(time.RFC3339))
}

// Reserve books an order, or answers a *WaitError and books nothing.
func Reserve(ctx context.Context, store Store, o Order, now time.Time) error {
	return store.Reserve(ctx, func(b hub.Ledger) ([]hub.Spend, error) {
		if err := Check(b, o, now); err != nil {
			return nil, err
		}
		return spends(o, now), nil
	})
}

// Check answers a *WaitError where an order would have to wait, nil where it would not.
func Check(b hub.Ledger, o Order, now time.Time) error {
	wait := &WaitError{}
	until, reason, err := b.Paused(o.Account)
	if err != nil {
		return err
	}
	wait.longer(until, reason)
	for _, limit := range o.Limits {
		if limit.RenewalExempt && o.Renewal {
			continue
		}
		for _, object := range objects(limit.Scope, o.Names) {
			free, err := freeAt(b, o.Account, limit, object, now)
			if err != nil {
				return err
			}
			reason := "the limit of the CA for " + limit.Name + " is nearly spent"
			if object != "" && limit.Scope != issuer.ScopeExactSet {
				reason += " (" + object + ")"
			}
			wait.longer(free, reason)
		}
	}
	if !wait.Until.After(now) {
		return nil
	}
	return wait
}

// longer waits until a moment where that is later.
func (w *WaitError) longer(until time.Time, reason string) {
	if until.After(w.Until) {
		w.Until, w.Reason = until, reason
	}
}

// budget is how much of a limit the hub spends.
func budget(l issuer.Limit) int {
	percent := share
	if l.Of == issuer.SpendFailedValidation {
		percent = failedShare
	}
	return max(l.Count*percent/100, 1)
}

// freeAt is when a limit has room for one more.
func freeAt(b hub.Ledger, account string, l issuer.Limit, object string, now time.Time) (time.Time, error) {
	n := budget(l)
	spent, err := b.Spent(hub.SpendQuery{
		Account: account, Spending: l.Of, Scope: l.Scope, Object: object, Since: now.Add(-l.Per), SkipRenewals: l.RenewalExempt,
	}, n)
	if err != nil || len(spent) < n {
		return now, err
	}
	return spent[n-1].Add(l.Per), nil
}

// spends is all that an order may spend. What is kept does not depend on the limits of today.
func spends(o Order, now time.Time) []hub.Spend {
	var all []hub.Spend
	for _, kind := range []struct {
		of     issuer.Spending
		scopes []issuer.Scope
	}{
		{issuer.SpendOrder, []issuer.Scope{issuer.ScopeAccount}},
		{issuer.SpendIssuance, []issuer.Scope{issuer.ScopeAccount, issuer.ScopeRegisteredDomain, issuer.ScopeExactSet}},
		{issuer.SpendFailedValidation, []issuer.Scope{issuer.ScopeHostname}},
	} {
		for _, scope := range kind.scopes {
			for _, object := range objects(scope, o.Names) {
				all = append(all, hub.Spend{
					OrderID: o.ID, Account: o.Account, Spending: kind.of, Scope: scope, Object: object, Renewal: o.Renewal, At: now,
				})
			}
		}
	}
	return all
}

// objects are what a scope counts the names of an order by.
func objects(scope issuer.Scope, names []string) []string {
	switch scope {
	case issuer.ScopeRegisteredDomain:
		return unique(names, registeredDomain)
	case issuer.ScopeHostname:
		return unique(names, func(name string) string { return strings.TrimPrefix(name, "*.") })
	case issuer.ScopeExactSet:
		set := slices.Compact(slices.Sorted(slices.Values(names)))
		sum := sha256.Sum256([]byte(strings.Join(set, ",")))
		return []string{hex.EncodeToString(sum[:16])}
	default:
		return []string{""}
	}
}

func unique(names []string, of func(string) string) []string {
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, of(name))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// registeredDomain is the domain that somebody registered, by the Public Suffix List.
func registeredDomain(name string) string {
	name = strings.TrimPrefix(name, "*.")
	domain, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return name // a public suffix itself
	}
	return domain
}

// Outcome is how an order ended.
type Outcome struct {
	// Phase is how far it came; empty where that is not known: then all counts as spent but failed validations.
	Phase issuer.Phase
	// Err is why it failed, nil for a certificate.
	Err *issuer.Error
}

// Settle gives back what an order that Reserve booked did not spend, and pauses the account where the CA asked for that.
func Settle(ctx context.Context, store Store, o Order, out Outcome, now time.Time) error {
	known := out.Phase != ""
	var refunds []issuer.Spending
	if known && !out.Phase.Reached(issuer.PhaseOrder) {
		refunds = append(refunds, issuer.SpendOrder)
	}
	if out.Err != nil && known && !out.Phase.Spent() {
		refunds = append(refunds, issuer.SpendIssuance)
	}
	// acme.sh posts every challenge of an order once one has failed: each host lost a try. A hook that stopped it
	// before, or a CA that is down, cost none.
	if out.Err == nil || out.Err.Class != issuer.ValidationFailed {
		refunds = append(refunds, issuer.SpendFailedValidation)
	}
	for _, of := range refunds {
		if err := store.Refund(ctx, o.ID, of, ""); err != nil {
			return err
		}
	}
	if e := out.Err; e != nil && e.Class == issuer.RateLimited && wholeAccount(e) {
		return store.PauseAccount(ctx, o.Account, now.Add(max(e.RetryAfter, time.Minute)), "the CA asked to wait")
	}
	return nil
}

// wholeAccount says whether a CA's refusal is about all orders of the account and not about these names.
func wholeAccount(e *issuer.Error) bool {
	for _, words := range []string{"certificates", "exact set", "failed authorizations", "domain"} {
		if strings.Contains(e.Detail, words) {
			return false
		}
	}
	return true
}
