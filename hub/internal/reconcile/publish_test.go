package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/reconcile"
)

func (w *world) hasBranch(server string) bool {
	_, ok := w.store.Repo().Ref(manifest.ServerBranch(server))
	return ok
}

// holds lists what a server's manifest says, as certificate@target.
func (w *world) holds(server string) []string {
	w.Helper()
	var all []string
	for _, d := range w.tip(server).Manifest.Deployments {
		all = append(all, d.Certificate+"@"+d.Deployer+"/"+d.Target)
	}
	return all
}

func TestOnlyApprovedServersGetCertificates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("pending", hub.ServerPending, nil)
	w.enrol("disabled", hub.ServerDisabled, nil)
	w.enrol("approved", hub.ServerApproved, nil)
	w.want("example.com", at("pending", "disabled", "approved"))
	w.once()
	if w.hasBranch("pending") || w.hasBranch("disabled") || !w.hasBranch("approved") {
		t.Error("branches were made for the wrong servers")
	}
	server, err := w.db.Server(t.Context(), "pending")
	w.must(err)
	w.must(w.db.ApproveServer(t.Context(), "pending", server.Fingerprint, hub.AuditEvent{Action: "test"}))
	w.once()
	w.open("pending", "example.com")
}

func TestSelectorsAndTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("eu-1", hub.ServerApproved, map[string]string{"role": "edge", "region": "eu"})
	w.enrol("us-1", hub.ServerApproved, map[string]string{"role": "edge", "region": "us"})
	w.enrol("db-1", hub.ServerApproved, map[string]string{"role": "db"})
	w.want("edge.example", func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{
			{Selector: "role=edge", Deployer: "nginx", Target: "web"},
			{Selector: "role=edge,region in (eu)", Deployer: "files", Target: "mail"},
			{Server: "db-1", Deployer: "files", Target: "pg"},
			{Server: "eu-1", Deployer: "nginx", Target: "web"}, // the selector says so already
		}
	})
	// The second certificate at one target is left out.
	w.want("zzz.example", at("us-1"))
	w.once()
	for server, want := range map[string][]string{
		"eu-1": {"edge.example@files/mail", "edge.example@nginx/web"},
		"us-1": {"edge.example@nginx/web"},
		"db-1": {"edge.example@files/pg"},
	} {
		if got := w.holds(server); !slices.Equal(got, want) {
			t.Errorf("%s holds %v, want %v", server, got, want)
		}
	}
	// A placement that goes away takes the certificate away.
	w.want("edge.example", func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{{Selector: "region=eu", Deployer: "files", Target: "mail"}}
	})
	w.once()
	if got := w.holds("db-1"); len(got) != 0 {
		t.Errorf("db-1 still holds %v", got)
	}
	if got := w.holds("us-1"); !slices.Equal(got, []string{"zzz.example@nginx/web"}) {
		t.Errorf("us-1 holds %v", got)
	}
}

// counting counts how often a bundle is opened.
type counting struct {
	*gitstore.Store

	opened atomic.Int32
}

func (c *counting) OpenIssued(ctx context.Context, commit, name string) (*bundle.Bundle, error) {
	c.opened.Add(1)
	return c.Store.OpenIssued(ctx, commit, name)
}

func TestBundleIsOpenedOnceForManyServers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 5 {
		w.enrol(fmt.Sprintf("web-%d", i), hub.ServerApproved, map[string]string{"role": "edge"})
	}
	w.want("example.com", func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{{Selector: "role", Deployer: "nginx", Target: "web"}}
	})
	store := &counting{Store: w.store}
	w.cfg.Store = store
	w.once()
	if n := store.opened.Load(); n != 1 {
		t.Errorf("opened %d times for one batch", n)
	}
	for i := range 5 {
		w.open(fmt.Sprintf("web-%d", i), "example.com")
	}
	w.once()
	if n := store.opened.Load(); n != 1 {
		t.Errorf("opened %d times for nothing", n-1)
	}
}

func TestManifestIsRefreshedDaily(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.once()
	first := w.tip("web-1").Manifest
	w.clock.Advance(23 * time.Hour)
	w.once()
	if w.tip("web-1").Manifest.Generation != 1 {
		t.Error("refreshed too early")
	}
	w.clock.Advance(2 * time.Hour)
	w.once()
	now := w.tip("web-1").Manifest
	if now.Generation != 2 || !now.FreshUntil.After(first.FreshUntil) || now.Deployments[0].BundleSHA256 != first.Deployments[0].BundleSHA256 {
		t.Errorf("manifest after a day: %+v", now)
	}
}

// bringBack writes an issue of before to main again, as a rollback does.
func (w *world) bringBack(certificate, commit string) {
	w.Helper()
	h, err := gitrepo.ParseHash(commit)
	w.must(err)
	var edits []gitrepo.Edit
	for _, file := range []string{"certificate.yaml", "chain.pem", "bundle.pgp"} {
		path := manifest.IssuedDir(certificate) + "/" + file
		data, err := w.store.Repo().ReadFile(h, path)
		w.must(err)
		edits = append(edits, gitrepo.Edit{Path: path, Data: data})
	}
	_, err = w.store.Apply(w.Context(), gitstore.Change{Subject: "roll back", Edits: edits})
	w.must(err)
}

func TestStepBackIsMarkedForAsLongAsItMayMatter(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.once()
	before, old := w.snapshot().Commit, w.issued("example.com").LeafSHA256
	w.clock.Advance(61 * day)
	w.once()
	if w.issued("example.com").LeafSHA256 == old || w.tip("web-1").Manifest.Deployments[0].StepBack {
		t.Fatal("renewal is not a plain step forward")
	}

	w.want("example.com", func(c *manifest.Certificate) { at("web-1")(c); c.Renewal.Paused = true })
	w.bringBack("example.com", before)
	w.once()
	d := w.tip("web-1").Manifest.Deployments[0]
	if d.LeafSHA256 != old || !d.StepBack {
		t.Fatalf("after a rollback: %+v", d)
	}
	commit := w.tip("web-1").Commit
	w.once()
	if w.tip("web-1").Commit != commit {
		t.Error("a pass after the rollback made a commit")
	}
	w.clock.Advance(2 * day)
	w.once()
	if d := w.tip("web-1").Manifest.Deployments[0]; !d.StepBack {
		t.Error("a refresh forgot that the step back is meant")
	}
	if w.open("web-1", "example.com").LeafSHA256() != old {
		t.Error("the server got another leaf")
	}
}

func TestHoldAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("example.com", at("web-1"))
	w.once()
	first := w.tip("web-1")
	w.clock.Advance(61 * day)
	w.once()

	hold := &manifest.Hold{Commit: first.Commit, By: "ada", Since: w.clock.Now()}
	hubtest.Put(t, w.store, manifest.ServerPath("web-1"), &manifest.Server{Name: "web-1", Hold: hold})
	w.once()
	held := w.tip("web-1").Manifest
	if held.Generation <= first.Manifest.Generation || held.Deployments[0].LeafSHA256 != first.Manifest.Deployments[0].LeafSHA256 || !held.Deployments[0].StepBack {
		t.Fatalf("held: %+v", held)
	}
	// Renewals go on, the server does not.
	w.ask(hub.Job{Certificate: "example.com", Actor: "ada"})
	w.once()
	if got := w.tip("web-1").Manifest; got.Generation != held.Generation {
		t.Error("a held server moved")
	}
	hubtest.Put(t, w.store, manifest.ServerPath("web-1"), &manifest.Server{Name: "web-1"})
	w.once()
	if got := w.tip("web-1").Manifest.Deployments[0]; got.LeafSHA256 != w.issued("example.com").LeafSHA256 || got.StepBack {
		t.Errorf("resumed: %+v", got)
	}

	// A commit that is not on the branch holds nothing and hurts nobody else.
	w.enrol("web-2", hub.ServerApproved, nil)
	w.want("example.com", at("web-1", "web-2"))
	commit := w.tip("web-1").Commit
	hold.Commit = w.snapshot().Commit
	hubtest.Put(t, w.store, manifest.ServerPath("web-1"), &manifest.Server{Name: "web-1", Hold: hold})
	w.once()
	if w.tip("web-1").Commit != commit || !w.hasBranch("web-2") {
		t.Error("a bad hold did damage")
	}
}

func TestUnreadableIntentTakesNothingAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.enrol("web-2", hub.ServerApproved, nil)
	w.want("example.com", at("web-1", "web-2"))
	w.want("other.example", func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{{Server: "web-1", Deployer: "files", Target: "mail"}}
	})
	w.once()
	commit := w.tip("web-2").Commit
	hubtest.Force(t, w.store, manifest.CertificatePath("example.com"), []byte("names: [\n"))
	hubtest.Force(t, w.store, manifest.ServerPath("web-2"), []byte("labels: ?\n"))
	w.want("other.example", at()) // placed nowhere now
	w.once()
	if got := w.holds("web-1"); !slices.Equal(got, []string{"example.com@nginx/web"}) {
		t.Errorf("web-1 holds %v", got)
	}
	if w.tip("web-2").Commit != commit {
		t.Error("a server whose intent cannot be read was changed")
	}
}

func TestServerWithAnotherKeyThanItsFingerprint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("good", hub.ServerApproved, nil)
	w.enrol("bad", hub.ServerApproved, nil)
	w.enrol("worse", hub.ServerApproved, nil)
	w.want("example.com", at("good", "bad", "worse"))
	public, err := w.keys["good"].Public().Armor()
	w.must(err)
	w.cfg.Data = altered{w.db, map[string]string{"bad": string(public), "worse": "no key"}}
	w.once()
	if w.hasBranch("bad") || w.hasBranch("worse") || !w.hasBranch("good") {
		t.Error("sealed to a key that nobody approved")
	}
}

// altered is a database with other public keys.
type altered struct {
	reconcile.Data

	keys map[string]string
}

func (a altered) Servers(ctx context.Context, after string, limit int) ([]hub.Server, error) {
	all, err := a.Data.Servers(ctx, after, limit)
	for i := range all {
		if key, ok := a.keys[all[i].Name]; ok {
			all[i].PublicKey = key
		}
	}
	return all, err
}
