package reconcile_test

import (
	"context"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/privateca"
)

// twoYears is a fleet whose clock a test turns: two servers, certificates of 90 days, 47 days and 160 hours.
type twoYears struct {
	*world

	wishes *intent.Service
	orders map[string]int
	// away says whether the CA is.
	away bool
	// generations are the last seen of each server.
	generations map[string]uint64
}

// Issue implements issuer.Issuer in front of the private CA.
type outage struct {
	*twoYears

	ca issuer.Issuer
}

func (o outage) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	if o.away {
		return nil, &issuer.Error{Class: issuer.Retryable, Detail: "the CA does not answer"}
	}
	o.orders[req.Names[0]]++
	return o.ca.Issue(ctx, req)
}

func newTwoYears(t *testing.T) *twoYears {
	t.Helper()
	y := &twoYears{world: newWorld(t), orders: map[string]int{}, generations: map[string]uint64{}}
	dir := t.TempDir()
	y.must(privateca.Init(dir, "Two Years", y.clock.Now()))
	y.cfg.Workers = 1 // the counters above are plain maps
	y.cfg.Issuer = func(i *manifest.Issuer) (issuer.Issuer, error) {
		cfg := privateca.Config{Dir: dir, Now: y.clock.Now}
		if i.PrivateCA != nil {
			var err error
			if cfg.Lifetime, err = time.ParseDuration(i.PrivateCA.Lifetime); err != nil {
				return nil, err
			}
		}
		ca, err := privateca.New(cfg)
		return outage{y, ca}, err
	}
	for name, lifetime := range map[string]string{"days-47": "1128h", "hours-160": "160h"} {
		hubtest.Put(t, y.store, manifest.IssuerPath(name), &manifest.Issuer{
			Name: name, Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: lifetime},
		})
	}
	var err error
	y.wishes, err = intent.New(intent.Config{
		Store: y.store, Files: y.store.Repo(), Jobs: y.db, Audit: y.db, Domain: "example.com", Changed: func() {}, Now: y.clock.Now,
		Receiver: y.store, Alerts: y.db, Proposals: y.store, CheckIssuer: func(*manifest.Issuer) error { return nil }, Due: due,
	})
	y.must(err)
	for _, server := range []string{"web-1", "web-2"} {
		y.enrol(server, hub.ServerApproved, map[string]string{"role": "edge"})
	}
	for name, spec := range map[string]apiv1.CertificateSpec{
		"long.example":  {Issuer: "private-ca", Deployments: []apiv1.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "long"}}},
		"kept.example":  {Issuer: "days-47", KeepKey: true, Deployments: []apiv1.Placement{{Server: "web-1", Deployer: "files", Target: "kept"}}},
		"short.example": {Issuer: "hours-160", KeyType: "ecdsa-p384", Deployments: []apiv1.Placement{{Server: "web-2", Deployer: "nginx", Target: "short"}}},
	} {
		spec.Name, spec.Names = name, []string{name}
		y.must(y.wishes.CreateCertificate(t.Context(), operator, "", spec))
	}
	return y
}

var operator = hub.Principal{Kind: hub.Person, Name: "ada", Role: apiv1.RoleOperator}

// check holds at any moment of the two years.
func (y *twoYears) check() {
	y.Helper()
	snapshot := y.snapshot()
	now := y.clock.Now()
	for _, server := range []string{"web-1", "web-2"} {
		m := y.tip(server).Manifest
		if m.Generation < y.generations[server] {
			y.Fatalf("%s: generation of %s fell from %d to %d", now, server, y.generations[server], m.Generation)
		}
		y.generations[server] = m.Generation
		if !m.FreshUntil.After(now) {
			y.Fatalf("%s: the manifest of %s is stale", now, server)
		}
		if snapshot.Servers[server].Hold != nil {
			continue // what somebody holds is theirs to watch
		}
		for _, d := range m.Deployments {
			if !d.NotAfter.After(now) {
				y.Fatalf("%s: %s on %s expired", now, d.Certificate, server)
			}
			if d.LeafSHA256 != snapshot.Issued[d.Certificate].LeafSHA256 {
				y.Fatalf("%s: %s on %s is not what main has", now, d.Certificate, server)
			}
		}
	}
}

// pass lets time go by in half days, with a restart before each.
func (y *twoYears) pass(days int) {
	y.Helper()
	for range days * 2 {
		y.clock.Advance(12 * time.Hour)
		y.once()
		y.check()
	}
}

func TestTwoYearsOfRenewals(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	y := newTwoYears(t)
	y.once()
	y.check()
	key := y.issued("kept.example").SPKISHA256
	y.pass(200)

	// The CA is away for three days.
	y.away = true
	y.pass(3)
	y.away = false
	y.pass(50)

	// Somebody rolls a certificate back: it stays, and its renewal waits, until it is resumed.
	renewed := y.issued("long.example").LeafSHA256
	y.ask(hub.Job{Certificate: "long.example", Actor: "ada", Reason: "test"})
	y.once()
	y.must(y.wishes.RollbackCertificate(t.Context(), operator, "", "long.example", "", "clients fail"))
	y.once()
	if y.issued("long.example").LeafSHA256 != renewed || !y.tip("web-1").Manifest.Deployments[1].StepBack {
		t.Fatal("the rollback did not reach the server as one that is meant")
	}
	y.pass(10)
	if y.issued("long.example").LeafSHA256 != renewed {
		t.Fatal("a paused certificate was renewed")
	}
	y.must(y.wishes.ResumeCertificate(t.Context(), operator, "", "long.example"))
	y.pass(100)

	// A server is held for two days.
	y.must(y.wishes.RollbackServer(t.Context(), operator, "", "web-2", "", "test"))
	y.pass(2)
	y.must(y.wishes.ResumeServer(t.Context(), operator, "", "web-2"))
	y.pass(2*365 - 200 - 3 - 50 - 10 - 100 - 2)

	// 90 days are renewed every 60, 47 every 31 and a third, 160 hours every 80, each up to a twentieth earlier.
	for name, want := range map[string]struct{ least, most int }{
		"long.example": {730 / 61, 730/58 + 3}, "kept.example": {730 / 32, 730/30 + 2}, "short.example": {730 * 24 / 86, 730*24/76 + 3},
	} {
		if n := y.orders[name]; n < want.least || n > want.most {
			t.Errorf("%s was ordered %d times in two years, want %d to %d", name, n, want.least, want.most)
		}
	}
	if y.issued("kept.example").SPKISHA256 != key {
		t.Error("the key that was to be kept changed")
	}
	y.open("web-1", "kept.example")
	y.must(y.db.VerifyAudit(t.Context()))
	y.must(y.store.Repo().Verify(t.Context()))
	t.Logf("orders: %v, generations: %v", y.orders, y.generations)
}
