package intent_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
)

var ada = hub.Principal{Kind: hub.Person, Name: "ada", Role: apiv1.RoleOperator}

type fixture struct {
	*testing.T

	clock   *hubtest.Clock
	store   *gitstore.Store
	db      *database.DB
	ca      *hubtest.CA
	service *intent.Service
	changed int
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, clock: hubtest.NewClock()}
	f.store = hubtest.NewStore(t, f.clock.Now)
	f.ca = hubtest.NewCA(t, f.clock.Now)
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), f.clock.Now)
	f.must(err)
	t.Cleanup(func() { f.must(db.Close()) })
	f.db = db
	f.service, err = intent.New(f.config())
	f.must(err)
	return f
}

func (f *fixture) config() intent.Config {
	return intent.Config{
		Store: f.store, Files: f.store.Repo(), Jobs: f.db, Audit: f.db, Domain: "hub.example.com",
		Receiver: f.store, Alerts: f.db, Proposals: f.store, CheckIssuer: func(*manifest.Issuer) error { return nil }, Due: due,
		Changed: func() { f.changed++ }, Now: f.clock.Now,
	}
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) snapshot() *gitstore.Snapshot {
	f.Helper()
	s, err := f.store.Snapshot()
	f.must(err)
	return s
}

// head is the newest commit of main.
func (f *fixture) head() *gitrepo.Commit {
	f.Helper()
	h, _ := f.store.Repo().Ref(manifest.MainBranch)
	c, err := f.store.Repo().Commit(h)
	f.must(err)
	return c
}

// refused checks that err is of a class, says something, and that main did not move.
func (f *fixture) refused(err, class error, before *gitrepo.Commit, text string) {
	f.Helper()
	var e *hub.Error
	if !errors.As(err, &e) || !errors.Is(err, class) {
		f.Fatalf("got %v, want %v", err, class)
	}
	all := e.Message
	for _, fault := range e.Faults {
		all += "\n" + fault.Location + ": " + fault.Message
	}
	if !strings.Contains(all, text) {
		f.Errorf("error says %q, want %q", all, text)
	}
	if f.head().Hash != before.Hash {
		f.Error("main moved")
	}
}

// issue issues a certificate and returns the commit.
func (f *fixture) issue(name string) string {
	f.Helper()
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	f.must(err)
	csr, err := bundle.NewCSR(key, []string{name})
	f.must(err)
	answer, err := f.ca.Issue(f.Context(), issuer.Request{CSR: csr})
	f.must(err)
	commit, err := f.store.PutIssued(f.Context(), gitstore.Issue{
		Certificate: name, Bundle: &bundle.Bundle{Leaf: answer.Chain[0], Chain: answer.Chain[1:], Key: key},
		Issued: manifest.IssuedCertificate{Issuer: "private-ca", KeyType: "ecdsa-p256"},
	})
	f.must(err)
	return commit
}

func spec(name string, change func(*apiv1.CertificateSpec)) apiv1.CertificateSpec {
	s := apiv1.CertificateSpec{Name: name, Names: []string{name}, Issuer: "private-ca"}
	if change != nil {
		change(&s)
	}
	return s
}

func (f *fixture) create(name string, change func(*apiv1.CertificateSpec)) {
	f.Helper()
	f.must(f.service.CreateCertificate(f.Context(), ada, "request-1", spec(name, change)))
}

func TestCreateCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.must(f.service.EnsureServer(t.Context(), "web-1", map[string]string{"role": "edge"}))
	f.create("shop", func(s *apiv1.CertificateSpec) {
		s.Names = []string{"Shop.Example.com", "bücher.example", "*.bücher.example", "localhost"}
		s.KeyType, s.DaysBeforeExpiry, s.KeepKey = "rsa-2048", 20, true
		s.Challenge = &apiv1.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cloud"}
		s.Deployments = []apiv1.Placement{
			{Server: "web-1", Deployer: "nginx", Target: "web"},
			{Selector: "role=later", Deployer: "files", Target: "mail"},
		}
	})
	want := &manifest.Certificate{
		APIVersion: manifest.APIVersion, Kind: manifest.KindCertificate, Name: "shop",
		Names:   []string{"shop.example.com", "xn--bcher-kva.example", "*.xn--bcher-kva.example", "localhost"},
		KeyType: "rsa-2048", Issuer: "private-ca",
		Challenge: &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cloud"},
		Renewal:   manifest.Renewal{DaysBeforeExpiry: 20, Key: "keep"},
		Deployments: []manifest.Placement{
			{Server: "web-1", Deployer: "nginx", Target: "web"},
			{Selector: "role=later", Deployer: "files", Target: "mail"},
		},
	}
	if diff := cmp.Diff(want, f.snapshot().Certificates["shop"]); diff != "" {
		t.Error(diff)
	}
	head := f.head()
	if head.Author.Name != "ada" || head.Author.Email != "ada@hub.example.com" || head.Committer.Name != "Certferry hub" {
		t.Errorf("author %+v, committer %+v", head.Author, head.Committer)
	}
	for _, line := range []string{
		"add certificate shop: shop.example.com and 3 more\n", "\nCertificate: shop\n", "\nActor: ada\n", "\nRequest-Id: request-1\n",
	} {
		if !strings.Contains(head.Message, line) {
			t.Errorf("message lacks %q:\n%s", line, head.Message)
		}
	}
	events, err := f.db.AuditEvents(t.Context(), 0, 10)
	f.must(err)
	if len(events) != 1 || events[0].Action != "create-certificate" || events[0].Actor != "ada" ||
		events[0].RequestID != "request-1" || events[0].Detail != "commit "+head.Hash.String() {
		t.Errorf("audit: %+v", events)
	}
	if f.changed != 2 {
		t.Errorf("told %d times", f.changed)
	}

	f.refused(f.service.CreateCertificate(t.Context(), ada, "", spec("shop", nil)), hub.ErrConflict, head, "exists")
	f.create("next", nil)
	if !strings.Contains(f.head().Message, "Audit-Head: "+events[0].Hash) {
		t.Errorf("message lacks the head of the audit history:\n%s", f.head().Message)
	}
}

func TestCreateCertificateRefuses(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.must(f.service.EnsureServer(t.Context(), "web-1", map[string]string{"role": "edge"}))
	hubtest.Put(t, f.store, manifest.IssuerPath("acme"), &manifest.Issuer{
		Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"},
	})
	f.create("taken", func(s *apiv1.CertificateSpec) {
		s.Deployments = []apiv1.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "web"}}
	})
	before := f.head()
	secret := "tell-nobody"
	for _, tc := range []struct {
		name   string
		change func(*apiv1.CertificateSpec)
		want   string
	}{
		{"name with a path", func(s *apiv1.CertificateSpec) { s.Name = "../" + secret }, "body.name: "},
		{"name too long", func(s *apiv1.CertificateSpec) { s.Name = strings.Repeat("x", 300) }, "body.name: the name has more than 100 characters"},
		{"control character in a name", func(s *apiv1.CertificateSpec) { s.Names = []string{"a\x1b[31m" + secret} }, "body.names[0]: "},
		{"no names", func(s *apiv1.CertificateSpec) { s.Names = nil }, "body.names: give at least one"},
		{"bad wildcard", func(s *apiv1.CertificateSpec) { s.Names = []string{"ok.example", "*"} }, "body.names[1]: "},
		{"wildcard in the middle", func(s *apiv1.CertificateSpec) { s.Names = []string{"a.*.example"} }, "body.names[0]: "},
		{"names twice", func(s *apiv1.CertificateSpec) { s.Names = []string{"a.example", "A.example"} }, "body.names[1]: stands there twice"},
		{"bad punycode", func(s *apiv1.CertificateSpec) { s.Names = []string{"ẞ\u200d.example"} }, "body.names[0]: "},
		{"address", func(s *apiv1.CertificateSpec) { s.Names = []string{"192.0.2.1"} }, "IP addresses"},
		{"unknown issuer", func(s *apiv1.CertificateSpec) { s.Issuer = secret }, "body.issuer: no such issuer; there are: acme, private-ca"},
		{"no challenge", func(s *apiv1.CertificateSpec) { s.Issuer = "acme" }, "body.challenge: "},
		{"unknown server", func(s *apiv1.CertificateSpec) {
			s.Deployments = []apiv1.Placement{{Server: "web-1", Deployer: "files", Target: "mail"}, {Server: "web-9", Deployer: "nginx", Target: "web"}}
		}, "body.deployments[1].server: no such server"},
		{"server and selector", func(s *apiv1.CertificateSpec) {
			s.Deployments = []apiv1.Placement{{Server: "web-1", Selector: "role", Deployer: "nginx", Target: "web"}}
		}, "body: deployments[0]: give either server or selector"},
		{"bad selector", func(s *apiv1.CertificateSpec) {
			s.Deployments = []apiv1.Placement{{Selector: "role in (" + secret, Deployer: "nginx", Target: "web"}}
		}, "the selector must read like"},
		{"target with a path", func(s *apiv1.CertificateSpec) {
			s.Deployments = []apiv1.Placement{{Server: "web-1", Deployer: "nginx", Target: "/etc/" + secret}}
		}, "body: deployments[0]: target"},
		{"taken target", func(s *apiv1.CertificateSpec) {
			s.Deployments = []apiv1.Placement{{Server: "web-1", Deployer: "nginx", Target: "web"}}
		}, "body.deployments[0].target: on server web-1 the certificate taken is at this target already"},
		{"key type", func(s *apiv1.CertificateSpec) { s.KeyType = "rsa-1024" }, "body: keyType: must be"},
		{"wildcard by HTTP", func(s *apiv1.CertificateSpec) {
			s.Issuer, s.Names = "acme", []string{"*.example.com"}
			s.Challenge = &apiv1.Challenge{Type: "http-01", Method: "stateless"}
		}, "a wildcard can be proven by dns-01 only"},
		{"days", func(s *apiv1.CertificateSpec) { s.DaysBeforeExpiry = 1000; s.KeyType = "x" }, "renewal.daysBeforeExpiry"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := f.service.CreateCertificate(t.Context(), ada, "", spec("new.example", tc.change))
			f.refused(err, hub.ErrInvalid, before, tc.want)
			var e *hub.Error
			errors.As(err, &e)
			if text := e.Message; strings.Contains(text, secret) {
				t.Error("the message repeats what was submitted")
			}
			for _, fault := range e.Faults {
				if strings.Contains(fault.Message, secret) || strings.Contains(fault.Message, "\x1b") {
					t.Errorf("fault %q repeats what was submitted", fault.Message)
				}
			}
		})
	}

	hubtest.Force(t, f.store, manifest.CertificatePath("broken"), []byte("what: ever\n"))
	f.refused(f.service.CreateCertificate(t.Context(), ada, "", spec("broken", nil)), hub.ErrConflict, f.head(), "cannot be read")
}

func TestRenewCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("example.com", nil)
	before := f.head()
	job, err := f.service.RenewCertificate(t.Context(), ada, "request-2", "example.com", apiv1.RenewRequest{Reason: "key leaked "})
	f.must(err)
	if job.Certificate != "example.com" || job.Actor != "ada" || job.Reason != "key leaked" || job.State != apiv1.JobQueued {
		t.Errorf("job: %+v", job)
	}
	if f.head().Hash != before.Hash {
		t.Error("a renewal wrote to main")
	}
	events, err := f.db.AuditEvents(t.Context(), 0, 1)
	f.must(err)
	if events[0].Action != "renew-certificate" || events[0].Detail != "key leaked" || events[0].RequestID != "request-2" {
		t.Errorf("audit: %+v", events[0])
	}

	// A job that waits is hurried instead of queued twice.
	f.must(f.db.WaitJob(t.Context(), job.ID, f.clock.Now().Add(time.Hour), "retryable", "later"))
	again, err := f.service.RenewCertificate(t.Context(), ada, "", "example.com", apiv1.RenewRequest{Reason: ""})
	f.must(err)
	if again.ID != job.ID || again.NotBefore.After(f.clock.Now()) || again.Reason != "asked for by hand" {
		t.Errorf("job asked for again: %+v", again)
	}

	_, err = f.service.RenewCertificate(t.Context(), ada, "", "other.example", apiv1.RenewRequest{Reason: ""})
	f.refused(err, hub.ErrNotFound, before, "no such certificate")
	_, err = f.service.RenewCertificate(t.Context(), ada, "", "example.com", apiv1.RenewRequest{Reason: "two\nlines"})
	f.refused(err, hub.ErrInvalid, before, "body.reason")
	hubtest.Put(t, f.store, manifest.CertificatePath("paused"), &manifest.Certificate{
		Name: "paused", Names: []string{"paused.example"}, Issuer: "private-ca", Renewal: manifest.Renewal{Paused: true},
	})
	_, err = f.service.RenewCertificate(t.Context(), ada, "", "paused", apiv1.RenewRequest{Reason: ""})
	f.refused(err, hub.ErrConflict, f.head(), "resume it first")
}

func TestRollbackCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("example.com", nil)
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", ""), hub.ErrConflict, f.head(), "never issued")
	firstCommit := f.issue("example.com")
	first := f.snapshot().Issued["example.com"]
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", ""), hub.ErrConflict, f.head(), "no earlier issue")
	f.clock.Advance(30 * 24 * time.Hour)
	f.create("noise.example", nil)
	secondCommit := f.issue("example.com")
	second := f.snapshot().Issued["example.com"]
	f.clock.Advance(30 * 24 * time.Hour)
	f.issue("example.com")

	f.must(f.service.RollbackCertificate(t.Context(), ada, "request-3", "example.com", "", "clients fail"))
	if got := f.snapshot().Issued["example.com"].LeafSHA256; got != second.LeafSHA256 {
		t.Error("not the issue before the present one")
	}
	b, err := f.store.OpenIssued(t.Context(), f.snapshot().Commit, "example.com")
	f.must(err)
	if b.LeafSHA256() != second.LeafSHA256 {
		t.Error("the sealed bundle was not brought back")
	}
	renewal := f.snapshot().Certificates["example.com"].Renewal
	if !renewal.Paused || renewal.PausedReason != "rolled back by ada: clients fail" {
		t.Errorf("renewal: %+v", renewal)
	}
	if message := f.head().Message; !strings.HasPrefix(message, "roll back example.com: leaf "+second.LeafSHA256[:6]) || !strings.Contains(message, "clients fail") {
		t.Errorf("message: %s", message)
	}

	// Again goes further back, not forth.
	f.must(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", ""))
	if got := f.snapshot().Issued["example.com"].LeafSHA256; got != first.LeafSHA256 {
		t.Error("the second rollback did not go further back")
	}
	before := f.head()
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", ""), hub.ErrConflict, before, "no earlier issue")

	// By commit, in any direction, by a few digits.
	f.must(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", secondCommit[:9], ""))
	if got := f.snapshot().Issued["example.com"].LeafSHA256; got != second.LeafSHA256 {
		t.Error("not the issue of the commit that was named")
	}
	before = f.head()
	for commit, want := range map[string]struct {
		class error
		text  string
	}{
		secondCommit:                {hub.ErrConflict, "in use now"},
		"123456":                    {hub.ErrInvalid, "at least 7 digits"},
		strings.Repeat("0", 40):     {hub.ErrNotFound, "no such commit"},
		f.creation("example.com"):   {hub.ErrConflict, "not issued yet"},
		f.creation("noise.example"): {hub.ErrNotFound, "no such commit"},
	} {
		f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", commit, ""), want.class, before, want.text)
	}
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "other.example", "", ""), hub.ErrNotFound, before, "no such certificate")
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", "\x00"), hub.ErrInvalid, before, "body.reason")
	f.clock.Advance(31 * 24 * time.Hour)
	f.refused(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", firstCommit, ""), hub.ErrConflict, before, "expired on")
}

// creation is the commit that added a certificate.
func (f *fixture) creation(name string) string {
	f.Helper()
	history, err := f.store.CertificateHistory(name, 0)
	f.must(err)
	return history[len(history)-1].Hash.String()
}

func TestResumeCertificate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("example.com", nil)
	f.refused(f.service.ResumeCertificate(t.Context(), ada, "", "example.com"), hub.ErrConflict, f.head(), "not paused")
	f.refused(f.service.ResumeCertificate(t.Context(), ada, "", "other"), hub.ErrNotFound, f.head(), "no such certificate")
	f.issue("example.com")
	f.clock.Advance(time.Hour)
	f.issue("example.com")
	f.must(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", "", ""))
	if got := f.snapshot().Certificates["example.com"].Renewal.PausedReason; got != "rolled back by ada" {
		t.Errorf("reason %q", got)
	}
	f.must(f.service.ResumeCertificate(t.Context(), ada, "", "example.com"))
	if got := f.snapshot().Certificates["example.com"].Renewal; got != (manifest.Renewal{}) {
		t.Errorf("renewal: %+v", got)
	}
}

// busy is a store in which somebody else is always faster.
type busy struct {
	intent.Store

	conflicts int
	calls     int
}

func (b *busy) Apply(ctx context.Context, c gitstore.Change) (string, error) {
	if b.calls++; b.calls <= b.conflicts {
		return "", gitstore.ErrConflict
	}
	return b.Store.Apply(ctx, c)
}

func TestConflictsAreTriedAgainAFewTimes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, tc := range []struct {
		conflicts int
		ok        bool
	}{{2, true}, {100, false}} {
		store := &busy{Store: f.store, conflicts: tc.conflicts}
		cfg := f.config()
		cfg.Store = store
		service, err := intent.New(cfg)
		f.must(err)
		err = service.CreateCertificate(t.Context(), ada, "", spec("example.com", nil))
		if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, hub.ErrConflict) {
			t.Errorf("%d conflicts: %v", tc.conflicts, err)
		}
	}
}

// deaf cannot record.
type deaf struct{ db *database.DB }

func (d deaf) AuditHead(ctx context.Context) (string, error) { return d.db.AuditHead(ctx) }

func (deaf) Audit(context.Context, hub.AuditEvent) error { return errors.New("disk full") }

func TestWhatCannotBeRecordedDoesNotHappen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("example.com", nil)
	before := f.head()
	cfg := f.config()
	cfg.Audit = deaf{f.db}
	service, err := intent.New(cfg)
	f.must(err)
	if err := service.CreateCertificate(t.Context(), ada, "", spec("other.example", nil)); err == nil {
		t.Error("made without a record")
	}
	if _, err := service.RenewCertificate(t.Context(), ada, "", "example.com", apiv1.RenewRequest{Reason: ""}); err == nil {
		t.Error("queued without a record")
	}
	if f.head().Hash != before.Hash {
		t.Error("main moved")
	}
	if _, err := f.db.LatestJob(t.Context(), "example.com"); !errors.Is(err, hub.ErrNotFound) {
		t.Errorf("a job: %v", err)
	}
}

func TestNewChecksItsConfig(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, spoil := range []func(*intent.Config){
		func(c *intent.Config) { c.Store = nil },
		func(c *intent.Config) { c.Domain = "" },
		func(c *intent.Config) { c.Changed = nil },
	} {
		cfg := f.config()
		spoil(&cfg)
		if _, err := intent.New(cfg); err == nil {
			t.Error("no error")
		}
	}
}

func TestActorsOtherThanPeople(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	agent := hub.Principal{Kind: hub.Agent, Name: "web-1"}
	f.must(f.service.CreateCertificate(t.Context(), agent, "", spec("example.com", nil)))
	if head := f.head(); head.Author.Name != "Certferry hub" || !strings.Contains(head.Message, "Actor: agent:web-1") {
		t.Errorf("commit: %+v", head)
	}
	if names := f.snapshot().Certificates["example.com"].Names; !slices.Equal(names, []string{"example.com"}) {
		t.Errorf("names %v", names)
	}
}

func due(want *manifest.Certificate, have *manifest.IssuedCertificate, now time.Time) (reason string, due bool) {
	return reconcile.Due(want, have, nil, now)
}
