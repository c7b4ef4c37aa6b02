package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/issuer"
)

const day = 24 * time.Hour

// limits are those that Let's Encrypt publishes.
var limits = []issuer.Limit{
	{Name: "new orders", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 300, Per: 3 * time.Hour, RenewalExempt: true},
	{Name: "certificates per registered domain", Scope: issuer.ScopeRegisteredDomain, Of: issuer.SpendIssuance, Count: 50, Per: 7 * day, RenewalExempt: true},
	{Name: "certificates of the same names", Scope: issuer.ScopeExactSet, Of: issuer.SpendIssuance, Count: 5, Per: 7 * day, RenewalExempt: true},
	{Name: "failed validations", Scope: issuer.ScopeHostname, Of: issuer.SpendFailedValidation, Count: 5, Per: time.Hour},
}

type world struct {
	*testing.T

	db    *database.DB
	clock *hubtest.Clock
	n     int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, clock: hubtest.NewClock()}
	var err error
	w.db, err = database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), w.clock.Now)
	w.must(err)
	t.Cleanup(func() { w.must(w.db.Close()) })
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) order(names ...string) ledger.Order {
	w.n++
	return ledger.Order{ID: fmt.Sprintf("order-%d", w.n), Account: "ca", Names: names, Limits: limits}
}

// reserve books an order, and says whether it was let through and until when it waits.
func (w *world) reserve(o ledger.Order) (ok bool, wait *ledger.WaitError) {
	w.Helper()
	err := ledger.Reserve(w.Context(), w.db, o, w.clock.Now())
	if err != nil && !errors.As(err, &wait) {
		w.Fatal(err)
	}
	return err == nil, wait
}

func (w *world) settle(o ledger.Order, out ledger.Outcome) {
	w.Helper()
	w.must(ledger.Settle(w.Context(), w.db, o, out, w.clock.Now()))
}

func TestEachLimitIsSpentToItsShareAndFreedInTime(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		names  func(i int) []string
		out    ledger.Outcome
		spends int
		frees  time.Duration
		reason string
	}{
		"same names":        {func(int) []string { return []string{"a.example.com", "b.example.com"} }, ledger.Outcome{Phase: issuer.PhaseCheck}, 4, 7 * day, "same names"},
		"registered domain": {func(i int) []string { return []string{fmt.Sprintf("h%d.example.co.uk", i)} }, ledger.Outcome{Phase: issuer.PhaseCheck}, 40, 7 * day, "(example.co.uk)"},
		"orders":            {func(i int) []string { return []string{fmt.Sprintf("d%d.com", i)} }, ledger.Outcome{Phase: issuer.PhaseCheck}, 240, 3 * time.Hour, "new orders"},
		"failed validations": {func(int) []string { return []string{"*.a.example.com"} }, ledger.Outcome{
			Phase: issuer.PhaseValidate, Err: &issuer.Error{Class: issuer.ValidationFailed},
		}, 3, time.Hour, "(a.example.com)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			begin := w.clock.Now()
			for i := range tc.spends {
				o := w.order(tc.names(i)...)
				if ok, wait := w.reserve(o); !ok {
					t.Fatalf("order %d has to wait: %v", i+1, wait)
				}
				w.settle(o, tc.out)
				w.clock.Advance(time.Second)
			}
			ok, wait := w.reserve(w.order(tc.names(1)...))
			if ok || !wait.Until.Equal(begin.Add(tc.frees)) || !strings.Contains(wait.Reason, tc.reason) {
				t.Fatalf("one more: let through %v, %v; want a wait until %s for %q", ok, wait, begin.Add(tc.frees), tc.reason)
			}
			w.clock.Advance(begin.Add(tc.frees).Sub(w.clock.Now()))
			if ok, wait := w.reserve(w.order(tc.names(1)...)); !ok {
				t.Errorf("it waits still when it need not: %v", wait)
			}
		})
	}
}

func TestSettleGivesBackWhatWasNotSpent(t *testing.T) {
	t.Parallel()
	failed := func(class issuer.Class) *issuer.Error { return &issuer.Error{Class: class} }
	for name, tc := range map[string]struct {
		out                      ledger.Outcome
		orders, issues, failures int
	}{
		"a certificate":             {ledger.Outcome{Phase: issuer.PhaseCheck}, 1, 2, 0},
		"failed before the order":   {ledger.Outcome{Phase: issuer.PhaseAccount, Err: failed(issuer.Retryable)}, 0, 0, 0},
		"failed after the order":    {ledger.Outcome{Phase: issuer.PhaseAuthorize, Err: failed(issuer.Retryable)}, 1, 0, 0},
		"a name that was not shown": {ledger.Outcome{Phase: issuer.PhaseValidate, Err: failed(issuer.ValidationFailed)}, 1, 0, 2},
		"lost at the download":      {ledger.Outcome{Phase: issuer.PhaseDownload, Err: failed(issuer.Local)}, 1, 2, 0},
		"nobody knows how far":      {ledger.Outcome{Err: failed(issuer.Retryable)}, 1, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := w.order("a.example.com", "b.example.com")
			if ok, wait := w.reserve(o); !ok {
				t.Fatal(wait)
			}
			w.settle(o, tc.out)
			for _, c := range []struct {
				of      issuer.Spending
				scope   issuer.Scope
				objects []string
				want    int
			}{
				{issuer.SpendOrder, issuer.ScopeAccount, []string{""}, tc.orders},
				{issuer.SpendIssuance, issuer.ScopeRegisteredDomain, []string{"example.com"}, min(tc.issues, 1)},
				{issuer.SpendFailedValidation, issuer.ScopeHostname, []string{"a.example.com", "b.example.com"}, tc.failures},
			} {
				got := 0
				for _, object := range c.objects {
					spent, err := w.db.Spent(t.Context(), spentQuery(c.of, c.scope, object), 10)
					w.must(err)
					got += len(spent)
				}
				if got != c.want {
					t.Errorf("%s: %d booked, want %d", c.of, got, c.want)
				}
			}
		})
	}
}

func TestARenewalDoesNotCountWhereTheCAExemptsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 100 {
		o := w.order("a.example.com")
		o.Renewal = true
		if ok, wait := w.reserve(o); !ok {
			t.Fatalf("renewal %d waits: %v", i, wait)
		}
		w.settle(o, ledger.Outcome{Phase: issuer.PhaseCheck})
	}
	if ok, wait := w.reserve(w.order("a.example.com")); !ok {
		t.Errorf("renewals count against new orders: %v", wait)
	}
}

func TestTheCAAskedToWait(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		detail string
		all    bool
	}{
		"orders of the account": {"too many new orders (300) from this account in the last 3h0m0s", true},
		"no word":               {"the CA asks to slow down", true},
		"this domain":           {`too many certificates (50) already issued for "example.com"`, false},
		"these names":           {"too many certificates already issued for this exact set of identifiers", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := w.order("a.example.com")
			if ok, wait := w.reserve(o); !ok {
				t.Fatal(wait)
			}
			w.settle(o, ledger.Outcome{Phase: issuer.PhaseOrder, Err: &issuer.Error{
				Class: issuer.RateLimited, Detail: tc.detail, RetryAfter: 2 * time.Hour,
			}})
			ok, wait := w.reserve(w.order("other.example.net"))
			if ok == tc.all || tc.all && !wait.Until.Equal(w.clock.Now().Add(2*time.Hour).Truncate(time.Millisecond)) {
				t.Errorf("another order was let through: %v, %v", ok, wait)
			}
		})
	}
}

// TestNoWindowHoldsMoreThanTheShare asks at random, from several goroutines, and counts in every window.
func TestNoWindowHoldsMoreThanTheShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var mu sync.Mutex
	var times []time.Time
	for range 60 {
		var wg sync.WaitGroup
		for range 4 {
			w.n++
			o := ledger.Order{ID: fmt.Sprintf("o-%d", w.n), Account: "ca", Names: []string{"x.example.org"}, Limits: limits[1:3]}
			wg.Go(func() {
				now := w.clock.Now()
				if err := ledger.Reserve(context.WithoutCancel(t.Context()), w.db, o, now); err == nil {
					mu.Lock()
					times = append(times, now)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		w.clock.Advance(time.Duration(rand.Int64N(int64(day))))
	}
	for i, from := range times {
		n := 0
		for _, at := range times[i:] {
			if at.Before(from.Add(7 * day)) {
				n++
			}
		}
		if n > 4 {
			t.Fatalf("%d certificates of the same names in seven days", n)
		}
	}
	if len(times) < 8 {
		t.Errorf("only %d were let through in 30 days", len(times))
	}
}

func spentQuery(of issuer.Spending, scope issuer.Scope, object string) hub.SpendQuery {
	return hub.SpendQuery{Account: "ca", Spending: of, Scope: scope, Object: object}
}
