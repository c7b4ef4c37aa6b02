package reconcile_test

import (
	"context"
	"crypto"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/issuer"
)

// onServer is at, with the key on the servers.
func onServer(servers ...string) func(*manifest.Certificate) {
	return func(c *manifest.Certificate) {
		at(servers...)(c)
		c.KeyCustody = manifest.CustodyServer
	}
}

// asked is the one request that a server is asked for.
func (w *world) asked(server string) hub.CertificateRequest {
	w.Helper()
	all, err := w.db.AskedCSRs(w.Context(), server)
	w.must(err)
	if len(all) != 1 {
		w.Fatalf("%s is asked for %d requests, want 1", server, len(all))
	}
	return all[0]
}

// answers sends the server's request of a key, a new one where it is nil, and returns the key.
func (w *world) answers(asked hub.CertificateRequest, key crypto.Signer) crypto.Signer {
	w.Helper()
	if key == nil {
		var err error
		key, err = bundle.GenerateKey(bundle.KeyType(asked.KeyType))
		w.must(err)
	}
	csr, err := bundle.NewCSR(key, asked.Names)
	w.must(err)
	asked.CSR = csr
	asked.SPKISHA256, err = bundle.KeySHA256(key.Public())
	w.must(err)
	w.must(w.db.AnswerCSR(w.Context(), asked, hub.AuditEvent{Action: "test", Object: asked.Certificate}))
	return key
}

// wantKeyOn wants main to have an issue for the key, and its server to be told to use its own.
func (w *world) wantKeyOn(server string, key crypto.Signer) {
	w.Helper()
	issued := w.issued("a.example")
	spki, err := bundle.KeySHA256(key.Public())
	w.must(err)
	if issued.SPKISHA256 != spki || issued.KeyCustody != manifest.CustodyServer || issued.KeyServer != server {
		w.Fatalf("issued %+v, want key %s on %s", issued, spki, server)
	}
	if d := w.tip(server).Manifest.Deployments; len(d) != 1 || d[0].Key != manifest.CustodyServer || d[0].SPKISHA256 != spki {
		w.Fatalf("%s is told %+v", server, d)
	}
	if b := w.open(server, "a.example"); b.Key != nil {
		w.Fatal("the server's bundle holds a key")
	}
}

// TestKeyOnServer has a job wait for its server's request, through renewals with a new and with the same key.
func TestKeyOnServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", onServer("web-1"))
	w.once()
	job := w.wantJob("a.example", apiv1.JobWaiting, "")
	if job.Error != "waits for web-1 to send its certificate request" || job.Attempts != 0 || len(w.ca.Orders()) != 0 {
		t.Errorf("job %+v, %d orders", job, len(w.ca.Orders()))
	}
	asked := w.asked("web-1")
	w.clock.Advance(day)
	w.once() // nobody answered: the same is asked for
	if again := w.asked("web-1"); again.ID != asked.ID || asked.Reuse != "" || asked.KeyType != "ecdsa-p256" {
		t.Errorf("asked for %+v, then for %+v", asked, again)
	}
	first := w.answers(asked, nil)
	w.once()
	w.wantJob("a.example", apiv1.JobDone, "")
	w.wantKeyOn("web-1", first)

	w.clock.Advance(61 * day)
	w.once()
	second := w.answers(w.asked("web-1"), nil)
	w.once()
	w.wantKeyOn("web-1", second)

	w.want("a.example", func(c *manifest.Certificate) { onServer("web-1")(c); c.Renewal.Key = "keep" })
	w.clock.Advance(61 * day)
	w.once()
	asked = w.asked("web-1")
	if asked.Reuse != w.issued("a.example").SPKISHA256 {
		t.Errorf("asked for %+v, want the present key", asked)
	}
	w.answers(asked, second)
	w.once()
	w.wantKeyOn("web-1", second)
	if orders := w.ca.Orders(); len(orders) != 3 {
		t.Errorf("%d orders, want 3", len(orders))
	}
}

// A new key that somebody asked for is never the old one, and what was asked before is forgotten.
func TestKeyOnServerIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", func(c *manifest.Certificate) { onServer("web-1")(c); c.Renewal.Key = "keep" })
	w.once()
	w.answers(w.asked("web-1"), nil)
	w.once()
	w.ask(hub.Job{Certificate: "a.example", Actor: "ada"})
	w.once()
	before := w.asked("web-1")
	w.ask(hub.Job{Certificate: "a.example", Actor: "ada", NewKey: true})
	w.once()
	asked := w.asked("web-1")
	if before.Reuse == "" || asked.Reuse != "" || asked.ID == before.ID || !asked.NewKey {
		t.Errorf("asked for %+v, before for %+v", asked, before)
	}
	key := w.answers(asked, nil)
	w.once()
	w.wantKeyOn("web-1", key)
}

// TestKeyMoves takes a certificate from the hub's key to one on a server, to another server, and back.
func TestKeyMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.enrol("web-2", hub.ServerApproved, nil)
	w.want("a.example", at("web-1"))
	w.once()
	old := w.issued("a.example").LeafSHA256

	w.want("a.example", onServer("web-1"))
	w.clock.Advance(day)
	w.once()
	if d := w.tip("web-1").Manifest.Deployments; len(d) != 1 || d[0].LeafSHA256 != old {
		t.Errorf("while the server's request is waited for, web-1 is told %+v", d)
	}
	w.wantKeyOn1(w.answers(w.asked("web-1"), nil), "web-1")

	// Another server has no use for a bundle of a key that it does not have.
	w.want("a.example", onServer("web-2"))
	w.clock.Advance(day)
	w.once()
	if job := w.wantJob("a.example", apiv1.JobWaiting, ""); job.Reason != "its key is to be kept on another server" {
		t.Errorf("job %+v", job)
	}
	if tip, err := w.store.ServerTip("web-2"); err == nil && len(tip.Manifest.Deployments) > 0 {
		t.Errorf("web-2 is told %+v", tip.Manifest.Deployments)
	}
	w.wantKeyOn1(w.answers(w.asked("web-2"), nil), "web-2")

	w.want("a.example", at("web-1", "web-2"))
	w.clock.Advance(day)
	w.once()
	if issued := w.issued("a.example"); issued.KeyCustody != "" || issued.KeyServer != "" {
		t.Errorf("issued %+v", issued)
	}
	for _, server := range []string{"web-1", "web-2"} {
		if w.open(server, "a.example").Key == nil {
			t.Errorf("%s got no key", server)
		}
	}
}

func (w *world) wantKeyOn1(key crypto.Signer, server string) {
	w.Helper()
	w.once()
	w.wantKeyOn(server, key)
}

// A server that refuses is named with its reason; it may change its mind.
func TestServerRefusesItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", onServer("web-1"))
	w.once()
	asked := w.asked("web-1")
	w.must(w.db.RefuseCSR(t.Context(), asked.ID, "web-1", "not allowed by this server's policy", hub.AuditEvent{Action: "test"}))
	w.once()
	job := w.wantJob("a.example", apiv1.JobWaiting, "")
	if job.Error != "web-1 refuses to send its certificate request: not allowed by this server's policy" {
		t.Errorf("job says %q", job.Error)
	}
	w.wantKeyOn1(w.answers(w.asked("web-1"), nil), "web-1")
}

// Both certificates of a dual pair have keys of their own on the server.
func TestTwoKeysOnServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", func(c *manifest.Certificate) {
		onServer("web-1")(c)
		c.SecondKeyType, c.Deployments[0].SecondTarget = "rsa-2048", "web-rsa"
	})
	w.once()
	all, err := w.db.AskedCSRs(t.Context(), "web-1")
	w.must(err)
	if len(all) != 2 || all[0].KeyType != "ecdsa-p256" || all[1].KeyType != "rsa-2048" || all[1].Certificate != "a.example.rsa" {
		t.Fatalf("asked for %+v", all)
	}
	for _, asked := range all {
		w.answers(asked, nil)
	}
	w.once()
	d := w.tip("web-1").Manifest.Deployments
	if len(d) != 2 || d[0].Key != manifest.CustodyServer || d[1].Key != manifest.CustodyServer || d[1].Target != "web-rsa" || d[0].SPKISHA256 == d[1].SPKISHA256 {
		t.Errorf("web-1 is told %+v", d)
	}
}

// A dry run asks the server for nothing.
func TestDryRunNeedsNoServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Staging = func(i *manifest.Issuer) *manifest.Issuer { return i }
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", onServer("web-1"))
	w.once()
	asked := w.asked("web-1")
	w.ask(hub.Job{Certificate: "a.example", Kind: apiv1.JobDryRun, Actor: "ada"})
	w.once()
	jobs, err := w.db.Jobs(t.Context(), "a.example", "", 10)
	w.must(err)
	if len(jobs) != 2 || jobs[0].Kind != apiv1.JobDryRun || jobs[0].State != apiv1.JobDone || len(w.ca.Orders()) != 1 {
		t.Errorf("jobs %+v, %d orders", jobs, len(w.ca.Orders()))
	}
	if again := w.asked("web-1"); again.ID != asked.ID {
		t.Error("the dry run asked the server")
	}
}

// A CA that certifies another key than the request's is not believed.
func TestAnotherKeyIsCertified(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("a.example", onServer("web-1"))
	w.once()
	w.answers(w.asked("web-1"), nil)
	foreign, err := bundle.NewCSR(must(bundle.GenerateKey(bundle.ECDSAP256)), []string{"a.example"})
	w.must(err)
	w.cfg.Issuer = func(*manifest.Issuer) (issuer.Issuer, error) { return swapped{w.ca, foreign}, nil }
	w.once()
	if job := w.wantJob("a.example", apiv1.JobWaiting, issuer.Retryable); !strings.Contains(job.Error, "another key") {
		t.Errorf("job says %q", job.Error)
	}
	if w.snapshot().Issued["a.example"] != nil {
		t.Error("a certificate of another key was taken")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// swapped orders with another request than it is given.
type swapped struct {
	*hubtest.CA

	csr []byte
}

func (s swapped) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	req.CSR = s.csr
	return s.CA.Issue(ctx, req)
}
