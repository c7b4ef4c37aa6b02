package reconcile_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

// complaints are the alerts about orders, open or not, newest first.
func (w *world) complaints() (all []hub.Alert) {
	w.Helper()
	alerts, err := w.db.Alerts(w.Context(), false, 0, 100)
	w.must(err)
	for i := range alerts {
		if alerts[i].Kind == hub.AlertIssueFailed {
			all = append(all, alerts[i])
		}
	}
	return all
}

// wantComplaint checks that there was one complaint about shop, and whether it is open.
func (w *world) wantComplaint(when string, state hub.AlertState) hub.Alert {
	w.Helper()
	all := w.complaints()
	if len(all) != 1 || all[0].Object != "shop" || all[0].State != state {
		w.Fatalf("%s: %+v, want one that is %s", when, all, state)
	}
	return all[0]
}

// remove takes a certificate off main.
func (w *world) remove(name string) {
	w.Helper()
	_, err := w.store.Apply(w.Context(), gitstore.Change{Subject: "remove " + name, Edits: []gitrepo.Edit{
		{Path: manifest.CertificatePath(name), Delete: true},
	}})
	w.must(err)
}

func TestPeopleAreToldOfOrdersThatDoNotGoThrough(t *testing.T) {
	t.Parallel()
	for class, want := range map[issuer.Class]struct {
		attempt int
		level   hub.AlertLevel
	}{
		issuer.Account: {1, hub.AlertCritical}, issuer.Permanent: {1, hub.AlertCritical},
		issuer.ValidationFailed: {2, hub.AlertWarning}, issuer.DNSProvider: {2, hub.AlertWarning},
		issuer.Local: {3, hub.AlertWarning}, issuer.Retryable: {6, hub.AlertWarning}, issuer.RateLimited: {},
	} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.want("shop", nil)
			w.ca.Answer = fails(class)
			for n := 1; n <= 8; n++ {
				w.once()
				if told := len(w.complaints()) > 0; told != (want.attempt > 0 && n >= want.attempt) {
					t.Fatalf("attempt %d: told %t", n, told)
				}
				w.clock.Advance(13 * time.Hour)
			}
			if want.attempt > 0 {
				a := w.wantComplaint("after eight attempts", hub.AlertOpen)
				if a.Level != want.level || !strings.Contains(a.Message, "as the test wants") || !strings.Contains(a.Message, issuer.NextStep(class)) {
					t.Errorf("alert: %+v", a)
				}
			}
			w.ca.Answer = nil
			w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
			w.must(w.db.HurryJob(t.Context(), w.job("shop").ID, time.Time{}, "ada", "mended"))
			w.once()
			w.issued("shop")
			if want.attempt > 0 {
				w.wantComplaint("after the certificate came", hub.AlertResolved)
			}
		})
	}
}

func TestComplaintsEndWhenNothingIsToBeIssued(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		then func(*world)
		want hub.AlertState
	}{
		"nothing happens":      {func(*world) {}, hub.AlertOpen},
		"something else does":  {func(w *world) { w.want("other", nil) }, hub.AlertOpen},
		"it is removed":        {func(w *world) { w.remove("shop") }, hub.AlertResolved},
		"it is paused":         {func(w *world) { w.want("shop", func(c *manifest.Certificate) { c.Renewal.Paused = true }) }, hub.AlertResolved},
		"the old wish is back": {func(w *world) { w.want("shop", nil) }, hub.AlertResolved},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.want("shop", nil)
			w.once()
			w.clock.Advance(time.Hour)
			w.ca.Answer = fails(issuer.Permanent)
			w.want("shop", func(c *manifest.Certificate) { c.Names = append(c.Names, "www.shop") })
			w.once()
			w.wantComplaint("after the order", hub.AlertOpen)
			w.once()
			w.wantComplaint("after a restart", hub.AlertOpen)
			w.ca.Answer = nil
			c.then(w)
			w.once()
			w.wantComplaint("at the end", c.want)
		})
	}
}

func TestARenewalByHandThatFailsIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("shop", nil)
	w.once()
	w.ca.Answer = fails(issuer.DNSProvider)
	w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
	for range 3 {
		w.once()
		w.clock.Advance(7 * time.Hour)
	}
	if a := w.wantComplaint("while it is tried again", hub.AlertOpen); a.Count != 2 {
		t.Errorf("raised %d times for two attempts", a.Count)
	}
	w.ca.Answer = fails(issuer.Permanent)
	w.once()
	w.once()
	w.wantComplaint("after it failed for good", hub.AlertOpen)
	// Somebody gives up: nothing is due, so that nothing is wrong any more.
	w.ca.Answer = fails(issuer.Retryable)
	w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
	w.once()
	r, err := reconcile.New(w.cfg)
	w.must(err)
	_, err = r.Cancel(t.Context(), w.job("shop").ID, hub.AuditEvent{Actor: "ada", Action: "cancel-job"})
	w.must(err)
	w.once()
	w.wantComplaint("after somebody gave up", hub.AlertResolved)
}

func TestADryRunNeitherComplainsNorTakesItBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("staging-ca")
	w.cfg.Staging = func(*manifest.Issuer) *manifest.Issuer {
		return &manifest.Issuer{Name: "staging-ca", Type: "privateca"}
	}
	w.want("shop", nil)
	cas["staging-ca"].Answer = fails(issuer.Permanent)
	w.ca.Answer = fails(issuer.RateLimited)
	w.ask(hub.Job{Certificate: "shop", Kind: apiv1.JobDryRun, Actor: "ada"})
	w.once()
	if all := w.complaints(); len(all) != 0 {
		t.Errorf("a dry run raised %+v", all)
	}
	cas["staging-ca"].Answer = nil
	w.ca.Answer = fails(issuer.Permanent)
	w.clock.Advance(2 * time.Hour)
	w.once()
	w.wantComplaint("before the dry run", hub.AlertOpen)
	w.ask(hub.Job{Certificate: "shop", Kind: apiv1.JobDryRun, Actor: "ada"})
	w.once()
	w.wantComplaint("after the dry run", hub.AlertOpen)
	w.clock.Advance(time.Hour)
	w.once()
	if n := len(w.ca.Orders()); n != 2 {
		t.Errorf("%d orders: a dry run had the certificate tried again", n)
	}
}

// mute is a list of alerts that cannot be written.
type mute struct{ *database.DB }

func (mute) Raise(context.Context, hub.Alert) error { return errTest }

func TestAnAlertThatCannotBeRaisedKeepsNoOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Alerts = mute{w.db}
	w.want("shop", nil)
	w.ca.Answer = fails(issuer.Permanent)
	w.once()
	w.wantJob("shop", apiv1.JobFailed, issuer.Permanent)
}

func TestTheFallbackIssuerIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer issuer.Error
		want   bool
	}{
		"the CA does not want these names": {issuer.Error{Class: issuer.Permanent, ACMEType: "rejectedIdentifier"}, true},
		"the account is unusable":          {issuer.Error{Class: issuer.Account}, true},
		"the CA makes it wait for long":    {issuer.Error{Class: issuer.RateLimited, RetryAfter: 7 * time.Hour}, true},
		"the CA makes it wait":             {issuer.Error{Class: issuer.RateLimited, RetryAfter: 5 * time.Hour}, false},
		"this machine does not want it":    {issuer.Error{Class: issuer.Permanent}, false},
		"the CA is away":                   {issuer.Error{Class: issuer.Retryable}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cas := w.cas("second-ca")
			w.ca.Answer = func(context.Context, issuer.Request) error { return &c.answer }
			w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
			w.once()
			want := 0
			if c.want {
				want = 1
			}
			if first, second := len(w.ca.Orders()), len(cas["second-ca"].Orders()); first != 1 || second != want {
				t.Fatalf("%d orders at the wished issuer, %d at the fallback, want 1 and %d", first, second, want)
			}
			if c.want {
				if got := w.issued("shop").Issuer; got != "second-ca" || len(w.complaints()) != 0 {
					t.Errorf("issued by %s, with complaints %+v", got, w.complaints())
				}
			}
		})
	}
}

// limited lets each account order once a week, until the limits are switched off.
func (w *world) limited() (off func()) {
	w.cfg.Ledger = w.db
	all := []issuer.Limit{{Name: "new orders", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 1, Per: 7 * day}}
	w.cfg.Limits = func(i *manifest.Issuer) reconcile.Limits { return reconcile.Limits{Account: i.Name, Limits: all} }
	return func() { all = nil }
}

func TestTheFallbackIssuerIsAskedWhereALimitIsSpent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cas("second-ca")
	w.limited()
	w.want("first", nil)
	w.once()
	w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
	w.once()
	if got := w.issued("shop").Issuer; got != "second-ca" || len(w.ca.Orders()) != 1 {
		t.Errorf("issued by %s, %d orders at the wished issuer", got, len(w.ca.Orders()))
	}
}

func TestALimitThatADryRunMeetsSaysNothingOfOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("second-ca")
	off := w.limited()
	w.cfg.Staging = func(i *manifest.Issuer) *manifest.Issuer { return i }
	w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
	r, err := reconcile.New(w.cfg)
	w.must(err)
	w.must(r.Once(t.Context()))
	w.ask(hub.Job{Certificate: "shop", Kind: apiv1.JobDryRun, Actor: "ada"})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute) // it once never ended
	defer stop()
	w.must(r.Once(ctx))
	jobs, err := w.db.Jobs(t.Context(), "shop", "", 1)
	w.must(err)
	if jobs[0].State != apiv1.JobWaiting || !jobs[0].NotBefore.After(w.clock.Now().Add(6*day)) {
		t.Errorf("dry run: %+v", jobs[0])
	}
	off()
	w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
	w.must(r.Once(t.Context()))
	if first, second := len(w.ca.Orders()), len(cas["second-ca"].Orders()); first != 2 || second != 0 {
		t.Errorf("%d orders at the wished issuer, %d at the fallback, want 2 and none", first, second)
	}
}

func TestAnIssuerThatAsksToWaitIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("second-ca")
	w.ca.Answer = func(context.Context, issuer.Request) error {
		return &issuer.Error{Class: issuer.RateLimited, RetryAfter: 30 * time.Hour}
	}
	cas["second-ca"].Answer = fails(issuer.Retryable)
	w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
	r, err := reconcile.New(w.cfg)
	w.must(err)
	for range 4 {
		w.must(r.Once(t.Context()))
		w.clock.Advance(7 * time.Hour)
	}
	if first, second := len(w.ca.Orders()), len(cas["second-ca"].Orders()); first != 1 || second != 4 {
		t.Errorf("%d orders at the issuer that asked to wait, %d at the fallback, want 1 and 4", first, second)
	}
	for range 2 {
		w.clock.Advance(7 * time.Hour)
		w.must(r.Once(t.Context()))
	}
	if first := len(w.ca.Orders()); first != 2 {
		t.Errorf("%d orders at the issuer after it had its time, want 2", first)
	}
}

func TestTwoIssuersThatRefuseAreNotAskedInACircle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second issuer.Error
		actor         string
	}{
		"accounts":        {issuer.Error{Class: issuer.Account}, issuer.Error{Class: issuer.Account}, "hub"},
		"accounts by ada": {issuer.Error{Class: issuer.Account}, issuer.Error{Class: issuer.Account}, "ada"},
		"names":           {issuer.Error{Class: issuer.Permanent, ACMEType: "caa"}, issuer.Error{Class: issuer.Permanent, ACMEType: "caa"}, "hub"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cas := w.cas("second-ca")
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			refuse := func(e *issuer.Error) func(context.Context, issuer.Request) error {
				return func(context.Context, issuer.Request) error {
					if len(w.ca.Orders())+len(cas["second-ca"].Orders()) > 10 {
						stop() // it would never end
					}
					return e
				}
			}
			w.ca.Answer, cas["second-ca"].Answer = refuse(&c.first), refuse(&c.second)
			w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
			r, err := reconcile.New(w.cfg)
			w.must(err)
			w.ask(hub.Job{Certificate: "shop", Actor: c.actor})
			w.must(r.Once(ctx))
			w.clock.Advance(time.Hour)
			w.must(r.Once(ctx))
			if first, second := len(w.ca.Orders()), len(cas["second-ca"].Orders()); first != 1 || second != 1 {
				t.Errorf("%d and %d orders, want one at each", first, second)
			}
			w.wantJob("shop", apiv1.JobFailed, c.second.Class)
			w.wantComplaint("when both refused", hub.AlertOpen)
			if jobs, err := w.db.Jobs(t.Context(), "shop", "", 10); err != nil || len(jobs) != 1 {
				t.Errorf("%d jobs, %v", len(jobs), err)
			}
		})
	}
}

func TestAnOrderCountsWhereItGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("slow-ca")
	w.cfg.Workers, w.cfg.IssuerWorkers = 4, 2
	w.ca.Answer = func(_ context.Context, req issuer.Request) error {
		if strings.HasPrefix(req.Names[0], "slow") {
			return &issuer.Error{Class: issuer.Permanent, ACMEType: "rejectedIdentifier"}
		}
		return nil
	}
	release := make(chan struct{})
	var both sync.WaitGroup
	both.Add(2)
	cas["slow-ca"].Answer = func(context.Context, issuer.Request) error {
		both.Done()
		<-release
		return nil
	}
	for _, name := range []string{"slow1.example", "slow2.example"} {
		w.want(name, func(c *manifest.Certificate) { c.FallbackIssuer = "slow-ca" })
	}
	r, err := reconcile.New(w.cfg)
	w.must(err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	both.Wait()
	w.want("quick.example", nil)
	w.eventually("certificate of the wished issuer, which has nothing to do", func() bool { return w.snapshot().Issued["quick.example"] != nil })
	close(release)
	stop()
	w.must(<-done)
}

func TestWhatServesIsTriedAgainAfterItFailedForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("shop", nil)
	w.once()
	end := w.issued("shop").NotAfter
	w.ca.Answer = fails(issuer.Permanent)
	orders := func(want int, when string) {
		t.Helper()
		w.once()
		if n := len(w.ca.Orders()) - 1; n != want {
			t.Fatalf("%s: %d tries, want %d", when, n, want)
		}
	}
	w.clock.Advance(62 * day)
	orders(1, "when it falls due")
	w.clock.Advance(23 * time.Hour)
	orders(1, "on the same day")
	w.clock.Advance(time.Hour)
	orders(2, "a day later")
	w.clock.Advance(end.Add(-20 * time.Hour).Sub(w.clock.Now()))
	orders(3, "20 hours before its end")
	w.clock.Advance(time.Hour)
	orders(3, "an hour later, of 19")
	w.clock.Advance(time.Hour)
	orders(4, "two hours later, of 18")
	w.clock.Advance(end.Add(time.Minute).Sub(w.clock.Now()))
	orders(4, "when it expired, 18 hours later")
	w.clock.Advance(6 * time.Hour)
	orders(5, "a day later")

	// What a person cancelled stays so.
	w.ca.Answer = fails(issuer.Retryable)
	w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
	orders(6, "by hand")
	r, err := reconcile.New(w.cfg)
	w.must(err)
	_, err = r.Cancel(t.Context(), w.job("shop").ID, hub.AuditEvent{Actor: "ada", Action: "cancel-job"})
	w.must(err)
	w.clock.Advance(10 * day)
	orders(6, "after it was cancelled")
}

func TestARevokedKeyIsNeverKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep := func(c *manifest.Certificate) { c.Renewal.Key = "keep" }
	w.want("shop", keep)
	w.once()
	before := w.issued("shop")
	revoked := *before
	revoked.Revoked = &manifest.Revocation{At: w.clock.Now(), By: "ada", Reason: "superseded"}
	hubtest.Put(t, w.store, manifest.IssuedDir("shop")+"/certificate.yaml", &revoked)
	w.clock.Advance(time.Hour)
	w.once()
	after := w.issued("shop")
	if after.LeafSHA256 == before.LeafSHA256 || after.SPKISHA256 == before.SPKISHA256 {
		t.Errorf("after the revocation of %s with key %s: %s with key %s", before.LeafSHA256, before.SPKISHA256, after.LeafSHA256, after.SPKISHA256)
	}
}
