package reconcile_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

// cas adds issuers to the world, each with a CA of its own.
func (w *world) cas(names ...string) map[string]*hubtest.CA {
	w.Helper()
	all := map[string]*hubtest.CA{"private-ca": w.ca}
	for _, name := range names {
		all[name] = hubtest.NewCA(w, w.clock.Now)
		hubtest.Put(w, w.store, manifest.IssuerPath(name), &manifest.Issuer{Name: name, Type: "privateca"})
	}
	w.cfg.Issuer = func(i *manifest.Issuer) (issuer.Issuer, error) { return all[i.Name], nil }
	return all
}

func TestTheFallbackIssuerTakesOverWhileTheFirstIsDown(t *testing.T) {
	t.Parallel()
	for name, class := range map[string]issuer.Class{
		"unreachable": issuer.Retryable, "rate limited": issuer.RateLimited, "account unusable": issuer.Account,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			cas := w.cas("second-ca")
			w.ca.Answer = fails(class)
			w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
			for range 8 {
				w.once()
				if w.snapshot().Issued["shop"] != nil {
					break
				}
				w.clock.Advance(7 * time.Hour)
			}
			if got := w.issued("shop").Issuer; got != "second-ca" {
				t.Fatalf("issued by %s", got)
			}
			if first := len(w.ca.Orders()); class != issuer.Account && first < 3 {
				t.Errorf("the first issuer had %d tries only", first)
			}
			if job := w.job("shop"); job.Issuer != "second-ca" || job.State != apiv1.JobDone {
				t.Errorf("job: %+v", job)
			}
			// It stays with what it has, and goes home when it is renewed the next time.
			w.ca.Answer = nil
			w.once()
			if len(cas["second-ca"].Orders()) != 1 || w.issued("shop").Issuer != "second-ca" {
				t.Error("it was issued again at once")
			}
			w.clock.Advance(62 * day)
			w.once()
			if got := w.issued("shop").Issuer; got != "private-ca" && class != issuer.Account {
				t.Errorf("renewed by %s", got)
			}
		})
	}
}

func TestTheFallbackIssuerIsNotForFaultsOfOurOwn(t *testing.T) {
	t.Parallel()
	for _, class := range []issuer.Class{issuer.ValidationFailed, issuer.DNSProvider, issuer.Local} {
		w := newWorld(t)
		cas := w.cas("second-ca")
		w.ca.Answer = fails(class)
		w.want("shop", func(c *manifest.Certificate) { c.FallbackIssuer = "second-ca" })
		for range 8 {
			w.once()
			w.clock.Advance(day)
		}
		if n := len(cas["second-ca"].Orders()); n != 0 {
			t.Errorf("%s: %d orders at the fallback", class, n)
		}
	}
}

func TestADryRunChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("staging-ca")
	w.cfg.Staging = func(i *manifest.Issuer) *manifest.Issuer {
		if i.Name != "private-ca" {
			return nil
		}
		return &manifest.Issuer{Name: "staging-ca", Type: "privateca"}
	}
	w.want("shop", nil)
	w.once()
	before := w.snapshot().Commit
	w.ask(hub.Job{Certificate: "shop", Kind: apiv1.JobDryRun, Actor: "ada"})
	w.once()
	if w.snapshot().Commit != before || len(w.ca.Orders()) != 1 || len(cas["staging-ca"].Orders()) != 1 {
		t.Errorf("a dry run changed main or ordered for real: %d and %d orders", len(w.ca.Orders()), len(cas["staging-ca"].Orders()))
	}
	jobs, err := w.db.Jobs(t.Context(), "shop", "", 1)
	w.must(err)
	lines, err := w.db.JobLog(t.Context(), jobs[0].ID, 0, 100)
	w.must(err)
	if jobs[0].Kind != apiv1.JobDryRun || jobs[0].State != apiv1.JobDone || len(lines) == 0 || !strings.Contains(lines[len(lines)-1].Line, "threw it away") {
		t.Errorf("job %+v, log %+v", jobs[0], lines)
	}
	if latest := w.job("shop"); latest.Kind != apiv1.JobIssue {
		t.Error("a dry run counts as the certificate's newest job")
	}

	// One that fails says so at once, and does not keep the hub from anything.
	cas["staging-ca"].Answer = fails(issuer.Retryable)
	w.ask(hub.Job{Certificate: "shop", Kind: apiv1.JobDryRun, Actor: "ada"})
	w.once()
	jobs, err = w.db.Jobs(t.Context(), "shop", "", 1)
	w.must(err)
	if jobs[0].State != apiv1.JobFailed {
		t.Errorf("job: %+v", jobs[0])
	}
	w.clock.Advance(62 * day)
	w.once()
	if len(w.ca.Orders()) != 2 {
		t.Error("no renewal after a dry run that failed")
	}
}

func TestAnOrderWaitsForTheLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Ledger = w.db
	w.cfg.Limits = func(*manifest.Issuer) reconcile.Limits {
		return reconcile.Limits{Account: "ca", Limits: []issuer.Limit{
			{Name: "new orders", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 5, Per: 3 * time.Hour},
		}}
	}
	for i := range 6 {
		w.want(fmt.Sprintf("h%d.example", i), nil)
	}
	w.once()
	if n := len(w.ca.Orders()); n != 4 {
		t.Fatalf("%d orders, want the 4 that are 80 percent of 5", n)
	}
	waiting := 0
	for i := range 6 {
		job := w.job(fmt.Sprintf("h%d.example", i))
		if job.State == apiv1.JobWaiting {
			waiting++
			if job.Attempts != 0 || job.ErrorClass != string(issuer.RateLimited) || !job.NotBefore.After(w.clock.Now().Add(2*time.Hour)) || !strings.Contains(job.Error, "new orders") {
				t.Errorf("a job that waits for a limit: %+v", job)
			}
		}
	}
	if waiting != 2 {
		t.Errorf("%d jobs wait, want 2", waiting)
	}
	w.clock.Advance(4 * time.Hour)
	w.once()
	if n := len(w.ca.Orders()); n != 6 {
		t.Errorf("%d orders after the limit was free again, want 6", n)
	}
}

func TestCancelStopsAnOrderAndKeepsItStopped(t *testing.T) {
	t.Parallel()
	event := hub.AuditEvent{Actor: "ada", Action: "cancel-job", Object: "shop", Outcome: hub.OutcomeOK}
	begin := func(t *testing.T, answer func(context.Context, issuer.Request) error) (*world, *reconcile.Reconciler, hub.Job) {
		t.Helper()
		w := newWorld(t)
		begun := make(chan struct{}, 1)
		w.ca.Answer = func(ctx context.Context, req issuer.Request) error {
			begun <- struct{}{}
			return answer(ctx, req)
		}
		w.want("shop", nil)
		r, err := reconcile.New(w.cfg)
		w.must(err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		t.Cleanup(func() { stop(); w.must(<-done) })
		<-begun
		return w, r, w.job("shop")
	}
	t.Run("before the CA makes the certificate", func(t *testing.T) {
		t.Parallel()
		w, r, job := begin(t, func(ctx context.Context, req issuer.Request) error {
			req.Tell(issuer.Event{Phase: issuer.PhaseValidate, Line: "the CA looks"})
			<-ctx.Done()
			return &issuer.Error{Class: issuer.Retryable, Err: ctx.Err()}
		})
		got, err := r.Cancel(t.Context(), job.ID, event)
		if err != nil || got.State != apiv1.JobCancelled {
			t.Fatalf("cancel: %+v, %v", got, err)
		}
		w.ca.Answer = nil
		w.clock.Advance(time.Hour)
		w.once()
		if len(w.ca.Orders()) != 1 {
			t.Error("the hub took it up by itself")
		}
		w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
		r.Trigger()
		w.eventually("certificate", func() bool { return w.snapshot().Issued["shop"] != nil })
	})
	t.Run("too late", func(t *testing.T) {
		t.Parallel()
		goOn := make(chan struct{})
		reached := make(chan struct{})
		w, r, job := begin(t, func(_ context.Context, req issuer.Request) error {
			req.Tell(issuer.Event{Phase: issuer.PhaseFinalize})
			close(reached)
			<-goOn
			return nil
		})
		<-reached
		if _, err := r.Cancel(t.Context(), job.ID, event); !errors.Is(err, hub.ErrConflict) {
			t.Errorf("cancel: %v, want a conflict", err)
		}
		close(goOn)
		w.eventually("certificate", func() bool { return w.snapshot().Issued["shop"] != nil })
	})
	t.Run("while it waits", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.ca.Answer = fails(issuer.Retryable)
		w.want("shop", nil)
		w.once()
		r, err := reconcile.New(w.cfg)
		w.must(err)
		if got, err := r.Cancel(t.Context(), w.job("shop").ID, event); err != nil || got.State != apiv1.JobCancelled {
			t.Fatalf("cancel: %+v, %v", got, err)
		}
		w.clock.Advance(day)
		w.once()
		if len(w.ca.Orders()) != 1 {
			t.Error("the hub took it up by itself")
		}
		if _, err := r.Cancel(t.Context(), w.job("shop").ID, event); !errors.Is(err, hub.ErrConflict) {
			t.Errorf("cancel again: %v, want a conflict", err)
		}
		// A change of what is wished is a new wish.
		w.want("shop", func(c *manifest.Certificate) { c.KeyType = "ecdsa-p384" })
		w.ca.Answer = nil
		w.once()
		w.issued("shop")
	})
}

func TestASlowCADoesNotKeepTheOthersWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cas := w.cas("slow-ca")
	w.cfg.Workers, w.cfg.IssuerWorkers = 4, 2
	release := make(chan struct{})
	var mu sync.Mutex
	running, most := 0, 0
	cas["slow-ca"].Answer = func(context.Context, issuer.Request) error {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		<-release
		mu.Lock()
		running--
		mu.Unlock()
		return nil
	}
	for i := range 6 {
		w.want(fmt.Sprintf("slow%d.example", i), func(c *manifest.Certificate) { c.Issuer = "slow-ca" })
	}
	w.want("zz.example", nil)
	r, err := reconcile.New(w.cfg)
	w.must(err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.eventually("certificate of the other CA", func() bool { return w.snapshot().Issued["zz.example"] != nil })
	close(release)
	w.eventually("all certificates", func() bool { return len(w.snapshot().Issued) == 7 })
	stop()
	w.must(<-done)
	if most != 2 {
		t.Errorf("%d orders at once at the slow CA, want 2", most)
	}
}

func TestASecondKeyTypeMakesASecondCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("shop", func(c *manifest.Certificate) {
		c.SecondKeyType = "rsa-2048"
		c.Deployments = []manifest.Placement{{Server: "web-1", Deployer: "nginx", Target: "web", SecondTarget: "web-rsa"}}
	})
	w.once()
	for name, tc := range map[string]struct {
		algorithm x509.PublicKeyAlgorithm
		target    string
	}{"shop": {x509.ECDSA, "web"}, "shop.rsa": {x509.RSA, "web-rsa"}} {
		b := w.open("web-1", name)
		if b.Leaf.PublicKeyAlgorithm != tc.algorithm || w.issued(name).LeafSHA256 != b.LeafSHA256() {
			t.Errorf("%s is %s", name, b.Leaf.PublicKeyAlgorithm)
		}
		found := false
		for _, d := range w.tip("web-1").Manifest.Deployments {
			found = found || d.Certificate == name && d.Target == tc.target
		}
		if !found {
			t.Errorf("%s is not at %s", name, tc.target)
		}
	}
	// Without it, the second goes and the first stays.
	leaf := w.issued("shop").LeafSHA256
	w.want("shop", at("web-1"))
	w.once()
	if d := w.tip("web-1").Manifest.Deployments; len(d) != 1 || d[0].LeafSHA256 != leaf {
		t.Errorf("deployments: %+v", d)
	}
}

// informer is a CA that says when to renew.
type informer struct {
	*hubtest.CA

	mu    sync.Mutex
	info  issuer.RenewalInfo
	err   error
	asked []string
}

func (i *informer) RenewalInfo(_ context.Context, leaf, parent *x509.Certificate) (issuer.RenewalInfo, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, leaf.SerialNumber.Text(16)+" by "+parent.Subject.CommonName)
	return i.info, i.err
}

func TestRenewalGoesByTheWordOfTheCA(t *testing.T) {
	t.Parallel()
	setUp := func(t *testing.T) (*world, *informer) {
		t.Helper()
		w := newWorld(t)
		ca := &informer{CA: w.ca}
		w.cfg.Issuer = func(*manifest.Issuer) (issuer.Issuer, error) { return ca, nil }
		hubtest.Put(w, w.store, manifest.IssuerPath("acme"), &manifest.Issuer{
			Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/directory"},
		})
		w.want("shop", func(c *manifest.Certificate) {
			c.Issuer, c.Challenge = "acme", &manifest.Challenge{Type: "http-01", Method: "standalone"}
		})
		w.once()
		return w, ca
	}
	t.Run("sooner than by its lifetime", func(t *testing.T) {
		t.Parallel()
		w, ca := setUp(t)
		now := w.clock.Now()
		ca.info = issuer.RenewalInfo{Start: now.Add(10 * day), End: now.Add(12 * day), RetryAfter: 6 * time.Hour}
		w.clock.Advance(time.Hour)
		w.once()
		if len(ca.asked) != 1 || ca.asked[0] != strings.TrimLeft(w.issued("shop").Serial, "0")+" by Test CA" {
			t.Fatalf("asked %v", ca.asked)
		}
		w.once()
		if len(ca.asked) != 1 {
			t.Error("asked again at once")
		}
		w.clock.Advance(12 * time.Hour)
		w.once()
		if len(ca.asked) != 2 {
			t.Errorf("asked %d times in a day, want 2", len(ca.asked))
		}
		leaf := w.issued("shop").LeafSHA256
		w.clock.Advance(10*day + 9*time.Hour)
		w.once()
		if w.issued("shop").LeafSHA256 != leaf {
			t.Error("renewed before the window's middle, which the test chose")
		}
		w.clock.Advance(3 * time.Hour)
		w.once()
		if w.issued("shop").LeafSHA256 == leaf {
			t.Error("not renewed in the window")
		}
		if orders := ca.Orders(); len(orders[len(orders)-1].Previous) == 0 {
			t.Error("the renewal does not tell what it replaces")
		}
	})
	t.Run("where the window is over, once a day", func(t *testing.T) {
		t.Parallel()
		w, ca := setUp(t)
		now := w.clock.Now()
		ca.info = issuer.RenewalInfo{Start: now.Add(-2 * day), End: now.Add(-day), ExplanationURL: "https://ca.example/incident"}
		leaf := w.issued("shop").LeafSHA256
		w.clock.Advance(time.Hour)
		w.once()
		if w.issued("shop").LeafSHA256 != leaf {
			t.Error("renewed in its first day: such a CA would be asked for certificates without end")
		}
		w.clock.Advance(day)
		w.once()
		if w.issued("shop").LeafSHA256 == leaf {
			t.Error("not renewed although the CA wants it gone")
		}
	})
	t.Run("not later than the fixed days", func(t *testing.T) {
		t.Parallel()
		w, ca := setUp(t)
		ca.info = issuer.RenewalInfo{Start: w.clock.Now().Add(88 * day), End: w.clock.Now().Add(89 * day)}
		leaf := w.issued("shop").LeafSHA256
		w.clock.Advance(time.Hour)
		w.once()
		w.clock.Advance(66 * day)
		w.once()
		if w.issued("shop").LeafSHA256 != leaf {
			t.Error("renewed before 22.5 days were left, a quarter of its lifetime")
		}
		w.clock.Advance(2 * day)
		w.once()
		if w.issued("shop").LeafSHA256 == leaf {
			t.Error("a CA can put a renewal off")
		}
	})
	t.Run("by its lifetime where the CA is silent", func(t *testing.T) {
		t.Parallel()
		w, ca := setUp(t)
		ca.err = issuer.ErrUnsupported
		w.clock.Advance(time.Hour)
		w.once()
		leaf := w.issued("shop").LeafSHA256
		w.clock.Advance(61 * day)
		w.once()
		if w.issued("shop").LeafSHA256 == leaf {
			t.Error("not renewed at a third of its lifetime")
		}
	})
}

func TestWhatAKilledHubMayHaveSpentIsBooked(t *testing.T) {
	t.Parallel()
	for phase, spent := range map[issuer.Phase]int{
		issuer.PhaseAccount: 0, issuer.PhaseValidate: 0, issuer.PhaseFinalize: 1, issuer.PhaseDownload: 1, "": 1,
	} {
		t.Run("killed at "+string(phase), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.Ledger = w.db
			order := ledger.Order{ID: "job-1", Account: "ca", Names: []string{"shop.example"}}
			w.must(ledger.Reserve(t.Context(), w.db, order, w.clock.Now()))
			w.cfg.Leftovers = func(context.Context) ([]issuer.Leftover, error) {
				return []issuer.Leftover{{OrderID: "job-1", Phase: phase}}, errTest
			}
			w.once()
			booked, err := w.db.Spent(t.Context(), hub.SpendQuery{
				Account: "ca", Spending: issuer.SpendIssuance, Scope: issuer.ScopeRegisteredDomain, Object: "shop.example",
			}, 10)
			w.must(err)
			if len(booked) != spent {
				t.Errorf("%d issuances booked, want %d", len(booked), spent)
			}
		})
	}
}
