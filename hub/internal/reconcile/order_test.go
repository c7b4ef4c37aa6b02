package reconcile_test

import (
	"context"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

func TestFirstIssueReachesItsServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.once()

	issued := w.issued("example.com")
	job := w.wantJob("example.com", apiv1.JobDone, "")
	if job.Actor != "hub" || job.Reason != "not issued yet" || job.Commit != w.snapshot().Commit {
		t.Errorf("job: %+v", job)
	}
	b := w.open("web-1", "example.com")
	if b.LeafSHA256() != issued.LeafSHA256 {
		t.Error("the server got another leaf than main has")
	}
	if err := b.Check([]string{"example.com"}, w.clock.Now()); err != nil {
		t.Error(err)
	}
	tip := w.tip("web-1")
	if tip.Manifest.Generation != 1 || tip.Manifest.MainCommit != w.snapshot().Commit || tip.Manifest.Deployments[0].StepBack {
		t.Errorf("manifest: %+v", tip.Manifest)
	}
	history, err := w.store.CertificateHistory("example.com", 1)
	w.must(err)
	for _, line := range []string{"issue example.com: serial ", "Certificate: example.com", "Actor: hub", "Audit-Head: ", "not issued yet"} {
		if !strings.Contains(history[0].Message, line) {
			t.Errorf("the commit's message lacks %q:\n%s", line, history[0].Message)
		}
	}
	events, err := w.db.AuditEvents(t.Context(), 0, 1)
	w.must(err)
	if events[0].Action != "issue-certificate" || events[0].Object != "example.com" || events[0].Detail != "commit "+job.Commit {
		t.Errorf("audit: %+v", events[0])
	}

	w.once()
	if w.tip("web-1").Commit != tip.Commit || len(w.ca.Orders()) != 1 {
		t.Error("a second pass with nothing to do did something")
	}
}

func TestRenewalTakesANewKeyUnlessToldToKeepIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("new.example", nil)
	w.want("kept.example", func(c *manifest.Certificate) { c.Renewal.Key, c.KeyType = "keep", "ecdsa-p384" })
	w.once()
	fresh, kept := w.issued("new.example"), w.issued("kept.example")

	w.clock.Advance(57 * day)
	w.once()
	if len(w.ca.Orders()) != 2 {
		t.Fatal("renewed before its time")
	}
	w.clock.Advance(4 * day)
	w.once()
	if got := w.issued("new.example"); got.LeafSHA256 == fresh.LeafSHA256 || got.SPKISHA256 == fresh.SPKISHA256 {
		t.Error("no new certificate with a new key")
	}
	if got := w.issued("kept.example"); got.LeafSHA256 == kept.LeafSHA256 || got.SPKISHA256 != kept.SPKISHA256 {
		t.Error("no new certificate with the old key")
	}
	orders := w.ca.Orders()
	for _, o := range orders[2:] {
		if !strings.HasPrefix(string(o.Previous), "-----BEGIN CERTIFICATE-----") {
			t.Error("a renewal does not name what it replaces")
		}
	}
	if orders[0].ID == orders[2].ID || orders[0].Previous != nil {
		t.Error("orders are not told apart")
	}

	// Another key type cannot keep the key.
	w.want("kept.example", func(c *manifest.Certificate) { c.Renewal.Key = "keep" })
	w.clock.Advance(time.Hour)
	w.once()
	if got := w.issued("kept.example"); got.KeyType != "ecdsa-p256" {
		t.Errorf("key type is %s", got.KeyType)
	}
}

// TestACertificateThatIsOldWhenItIsIssued: a CA that hands out what is left of an older certificate's time is not
// asked again and again, and a person hears of it.
func TestACertificateThatIsOldWhenItIsIssued(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ca.Spoil = func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = w.clock.Now().Add(-85*day), w.clock.Now().Add(5*day)
	}
	w.want("old.example", nil)
	w.once()
	for range 6 {
		w.clock.Advance(time.Hour)
		w.once()
	}
	if n := len(w.ca.Orders()); n != 1 {
		t.Errorf("%d orders in six hours", n)
	}
	if all := w.alerts(); len(all) != 1 || all[0].Kind != hub.AlertIssueFailed || !strings.Contains(all[0].Message, "as soon as it was issued") {
		t.Errorf("alerts %+v", all)
	}
	w.clock.Advance(18 * time.Hour)
	w.once()
	if n := len(w.ca.Orders()); n != 2 {
		t.Errorf("%d orders in a day", n)
	}
	// What is wished anew does not wait.
	w.want("old.example", func(c *manifest.Certificate) { c.Names = []string{"old.example", "more.example"} })
	w.clock.Advance(2 * time.Minute)
	w.once()
	if n := len(w.ca.Orders()); n != 3 {
		t.Errorf("%d orders after a change", n)
	}
}

func TestRequestSaysWhatMainSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hubtest.Put(t, w.store, manifest.IssuerPath("acme"), &manifest.Issuer{
		Name: "acme", Type: "acmesh",
		ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir", Profile: "tlsserver", PreferredChain: "Root X1"},
	})
	w.want("example.com", func(c *manifest.Certificate) {
		c.Issuer = "acme"
		c.Challenge = &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cloud"}
	})
	w.once()
	got := w.ca.Orders()[0]
	if got.Profile != "tlsserver" || got.PreferredChain != "Root X1" || got.Challenge.Type != issuer.DNS01 ||
		got.Challenge.Hook != "dns_cf" || got.Challenge.Credentials["TOKEN"] != "t" {
		t.Errorf("request: %+v", got)
	}

	w.cfg.Credentials = func(string) (map[string]string, error) { return nil, errTest }
	w.want("other.example", func(c *manifest.Certificate) {
		c.Issuer = "acme"
		c.Challenge = &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cloud"}
	})
	w.once()
	w.wantJob("other.example", apiv1.JobWaiting, issuer.Local)
}

func TestFailedOrderIsTriedAgainLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("example.com", nil)
	w.ca.Answer = fails(issuer.ValidationFailed)
	w.once()
	job := w.wantJob("example.com", apiv1.JobWaiting, issuer.ValidationFailed)
	if wait := job.NotBefore.Sub(w.clock.Now()); wait < 20*time.Minute || wait > 22*time.Minute {
		t.Errorf("first try again in %s", wait)
	}
	w.once()
	if len(w.ca.Orders()) != 1 {
		t.Fatal("tried again at once")
	}
	w.clock.Advance(23 * time.Minute)
	w.once()
	job = w.wantJob("example.com", apiv1.JobWaiting, issuer.ValidationFailed)
	if wait := job.NotBefore.Sub(w.clock.Now()); wait < time.Hour || job.Attempts != 2 {
		t.Errorf("second try again in %s, attempts %d", wait, job.Attempts)
	}
	w.ca.Answer = nil
	w.clock.Advance(2 * time.Hour)
	w.once()
	w.wantJob("example.com", apiv1.JobDone, "")
	w.issued("example.com")
}

func TestPermanentFailureWaitsForAChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("example.com", nil)
	w.ca.Answer = fails(issuer.Permanent)
	w.once()
	w.wantJob("example.com", apiv1.JobFailed, issuer.Permanent)
	w.clock.Advance(30 * day)
	w.once()
	// Where it is deployed is no part of an order.
	w.want("example.com", func(c *manifest.Certificate) { c.Renewal.DaysBeforeExpiry = 20 })
	w.once()
	if n := len(w.ca.Orders()); n != 1 {
		t.Fatalf("%d orders of what can never succeed", n)
	}
	events, err := w.db.AuditEvents(t.Context(), 0, 1)
	w.must(err)
	if events[0].Outcome != hub.OutcomeFailed {
		t.Errorf("audit: %+v", events[0])
	}

	w.want("example.com", func(c *manifest.Certificate) { c.Names = append(c.Names, "www.example.com") })
	w.once()
	if n := len(w.ca.Orders()); n != 2 {
		t.Fatalf("%d orders after a change", n)
	}

	// A person may ask again without a change.
	w.ca.Answer = nil
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada", Reason: "mended the CA"})
	w.once()
	w.wantJob("example.com", apiv1.JobDone, "")
	history, err := w.store.CertificateHistory("example.com", 1)
	w.must(err)
	if history[0].Author.Name != "ada" || history[0].Author.Email != "ada@example.com" {
		t.Errorf("author: %+v", history[0].Author)
	}
}

func TestUnusableAccountStopsItsOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Workers = 1
	hubtest.Put(t, w.store, manifest.IssuerPath("acme"), &manifest.Issuer{
		Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"},
	})
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		w.want(name, func(c *manifest.Certificate) {
			c.Issuer, c.Challenge = "acme", &manifest.Challenge{Type: "http-01", Method: "stateless"}
		})
	}
	w.ca.Answer = fails(issuer.Account)
	r, err := reconcile.New(w.cfg)
	w.must(err)
	w.must(r.Once(t.Context()))
	if n := len(w.ca.Orders()); n != 1 {
		t.Errorf("%d orders with an account that was refused", n)
	}
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		w.wantJob(name, apiv1.JobFailed, issuer.Account)
	}
	w.clock.Advance(day - time.Hour)
	w.must(r.Once(t.Context()))
	if n := len(w.ca.Orders()); n != 1 {
		t.Errorf("%d orders on the same day", n)
	}
	w.clock.Advance(time.Hour)
	w.must(r.Once(t.Context()))
	if n := len(w.ca.Orders()); n != 2 {
		t.Errorf("%d orders a day later, want one try of all", n)
	}

	w.ca.Answer = nil
	hubtest.Put(t, w.store, manifest.IssuerPath("acme"), &manifest.Issuer{
		Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir", Email: "ops@example.com"},
	})
	w.must(r.Once(t.Context()))
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		w.wantJob(name, apiv1.JobDone, "")
	}
}

func TestWrongAnswersOfTheCAAreNotRecorded(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*x509.Certificate){
		"another name":      func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} },
		"a name too many":   func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "other.example") },
		"expired":           func(c *x509.Certificate) { c.NotAfter = c.NotBefore; c.NotBefore = c.NotBefore.Add(-day) },
		"not valid yet":     func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(day) },
		"not for servers":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
		"a CA":              func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
		"an address inside": func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.want("example.com", nil)
			before := w.snapshot().Commit
			w.ca.Spoil = spoil
			w.once()
			w.wantJob("example.com", apiv1.JobWaiting, issuer.Retryable)
			if w.snapshot().Commit != before {
				t.Error("main changed")
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("example.com", nil)
		w.cfg.Issuer = func(*manifest.Issuer) (issuer.Issuer, error) { return emptyCA{}, nil }
		w.once()
		w.wantJob("example.com", apiv1.JobWaiting, issuer.Retryable)
	})
}

type emptyCA struct{}

func (emptyCA) Issue(context.Context, issuer.Request) (*issuer.Certificate, error) {
	return &issuer.Certificate{}, nil
}

func TestJobsThatAreNotNeededEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ask(hub.Job{Certificate: "gone.example", Actor: "ada"})
	w.want("paused.example", func(c *manifest.Certificate) { c.Renewal.Paused = true })
	w.ask(hub.Job{Certificate: "paused.example", Actor: "ada"})
	w.want("lost.example", func(c *manifest.Certificate) { c.Issuer = "nobody" })
	w.once()
	w.wantJob("gone.example", apiv1.JobFailed, issuer.Permanent)
	w.wantJob("paused.example", apiv1.JobFailed, issuer.Permanent)
	if job := w.wantJob("lost.example", apiv1.JobFailed, issuer.Permanent); !strings.Contains(job.Error, "nobody does not exist") {
		t.Errorf("error: %s", job.Error)
	}
	if len(w.ca.Orders()) != 0 {
		t.Error("ordered all the same")
	}

	// A job of the hub's own is done when somebody else did its work.
	w.want("example.com", nil)
	w.once()
	w.ask(hub.Job{Certificate: "example.com", Actor: "hub", Reason: "stale"})
	w.once()
	w.wantJob("example.com", apiv1.JobDone, "")
	if len(w.ca.Orders()) != 1 {
		t.Error("ordered twice")
	}
}

func TestDriverThatCannotBeMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Issuer = func(*manifest.Issuer) (issuer.Issuer, error) {
		return nil, &issuer.Error{Class: issuer.Permanent, Detail: "not allowed here"}
	}
	w.want("example.com", nil)
	w.once()
	w.wantJob("example.com", apiv1.JobFailed, issuer.Permanent)
}

func TestCertificateChangedDuringTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("example.com", nil)
	w.once()
	first := w.issued("example.com")
	w.clock.Advance(61 * day)
	// While the CA works, somebody brings back another issue.
	w.ca.Answer = func(context.Context, issuer.Request) error {
		hubtest.Put(t, w.store, manifest.IssuedDir("example.com")+"/certificate.yaml", func() *manifest.IssuedCertificate {
			c := *first
			c.Serial = "abcdef"
			return &c
		}())
		return nil
	}
	w.once()
	w.wantJob("example.com", apiv1.JobWaiting, issuer.Retryable)
	if w.issued("example.com").Serial != "abcdef" {
		t.Error("the order wrote over what somebody did meanwhile")
	}
}

func TestInterruptedJobs(t *testing.T) {
	t.Parallel()
	t.Run("stopped while the CA works", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("example.com", nil)
		ctx, cancel := context.WithCancel(t.Context())
		w.ca.Answer = func(ctx context.Context, _ issuer.Request) error {
			cancel()
			<-ctx.Done()
			return ctx.Err()
		}
		r, err := reconcile.New(w.cfg)
		w.must(err)
		if err := r.Once(ctx); err == nil {
			t.Error("a stopped pass says that it is done")
		}
		if job := w.job("example.com"); job.State != apiv1.JobQueued {
			t.Errorf("job is %s", job.State)
		}
		w.ca.Answer = nil
		w.once()
		w.wantJob("example.com", apiv1.JobDone, "")
	})
	t.Run("killed after main moved", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("example.com", nil)
		w.once()
		// The same again, up to the instruction after main moved.
		w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
		job, found, err := w.db.ClaimJob(t.Context(), nil)
		if err != nil || !found {
			t.Fatal(found, err)
		}
		w.must(w.db.SetJobCommit(t.Context(), job.ID, w.snapshot().Commit))
		w.once()
		w.wantJob("example.com", apiv1.JobDone, "")
		if len(w.ca.Orders()) != 1 {
			t.Error("a certificate that stands on main was ordered again")
		}
	})
	t.Run("killed before main moved", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.want("example.com", nil)
		for _, commit := range []string{"", strings.Repeat("ab", 20)} {
			w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
			job, _, err := w.db.ClaimJob(t.Context(), nil)
			w.must(err)
			if commit != "" {
				w.must(w.db.SetJobCommit(t.Context(), job.ID, commit))
			}
			before := len(w.ca.Orders())
			w.once()
			w.wantJob("example.com", apiv1.JobDone, "")
			if len(w.ca.Orders()) != before+1 {
				t.Errorf("commit %q: the order was not placed again", commit)
			}
		}
	})
}

// complaining is a store whose main moves although it says that it failed, as when the disk's last fsync fails.
type complaining struct{ *gitstore.Store }

func (s complaining) PutIssued(ctx context.Context, issue gitstore.Issue) (string, error) {
	if _, err := s.Store.PutIssued(ctx, issue); err != nil {
		return "", err
	}
	return "", errTest
}

func TestCommitThatLandedInSpiteOfAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Store = complaining{w.store}
	w.want("example.com", nil)
	w.once()
	w.wantJob("example.com", apiv1.JobDone, "")
	if len(w.ca.Orders()) != 1 {
		t.Error("ordered twice")
	}
}

// deaf is a database whose audit history cannot be written.
type deaf struct{ reconcile.Data }

func (deaf) Audit(context.Context, hub.AuditEvent) error { return errTest }

func TestWhatCannotBeRecordedDoesNotHappen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Data = deaf{w.db}
	w.want("example.com", nil)
	before := w.snapshot().Commit
	w.once()
	job := w.wantJob("example.com", apiv1.JobWaiting, issuer.Local)
	if w.snapshot().Commit != before || job.Commit != "" {
		t.Error("main moved without a row in the audit history")
	}
}

func TestBundleThatCannotBeOpenedIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.once()
	tip := w.tip("web-1").Commit
	hubtest.Force(t, w.store, manifest.IssuedDir("example.com")+"/bundle.pgp", []byte("damaged"))
	w.clock.Advance(25 * time.Hour) // the manifest needs its daily refresh, which needs no bundle of a stock server
	w.enrol("web-2", hub.ServerApproved, nil)
	w.want("example.com", at("web-1", "web-2"))
	w.once()
	if _, ok := w.store.Repo().Ref(manifest.ServerBranch("web-2")); ok {
		t.Error("a server got a damaged bundle")
	}
	if w.tip("web-1").Commit != tip {
		t.Error("a damaged bundle changed another server")
	}
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
	w.once()
	w.open("web-1", "example.com")
	w.open("web-2", "example.com")
}

func TestLandedWalksFar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want("example.com", nil)
	w.once()
	landed := w.snapshot().Commit
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
	job, _, err := w.db.ClaimJob(t.Context(), nil)
	w.must(err)
	w.must(w.db.SetJobCommit(t.Context(), job.ID, landed))
	for i := range 100 {
		_, err := w.store.Apply(t.Context(), gitstore.Change{
			Subject: "noise", Edits: []gitrepo.Edit{{Path: "README.md", Data: big.NewInt(int64(i)).Append(nil, 10)}},
		})
		w.must(err)
	}
	w.once()
	w.wantJob("example.com", apiv1.JobDone, "")
	if len(w.ca.Orders()) != 1 {
		t.Error("ordered again")
	}
}
