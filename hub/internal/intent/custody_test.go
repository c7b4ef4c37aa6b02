package intent_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

// TestRollbackAcrossCustodies goes back from a key on the server to one of the hub, and forth, with the files of each.
func TestRollbackAcrossCustodies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("example.com", nil)
	hubCommit := f.issue("example.com")
	f.clock.Advance(24 * time.Hour)
	b := hubtest.Bundle(t, f.ca, "example.com")
	b.Key = nil
	serverCommit, err := f.store.PutIssued(t.Context(), gitstore.Issue{
		Certificate: "example.com", Bundle: b,
		Issued: manifest.IssuedCertificate{Issuer: "private-ca", KeyType: "ecdsa-p256", KeyCustody: manifest.CustodyServer, KeyServer: "web-1"},
	})
	f.must(err)
	for _, step := range []struct {
		to, custody, file, gone string
	}{
		{hubCommit, "", "bundle.pgp", "leaf.pem"},
		{serverCommit, manifest.CustodyServer, "leaf.pem", "bundle.pgp"},
		{hubCommit, "", "bundle.pgp", "leaf.pem"},
	} {
		f.must(f.service.RollbackCertificate(t.Context(), ada, "", "example.com", step.to, ""))
		if got := f.snapshot().Issued["example.com"].KeyCustody; got != step.custody {
			t.Errorf("custody %q, want %q", got, step.custody)
		}
		opened, err := f.store.OpenIssued(t.Context(), f.snapshot().Commit, "example.com")
		f.must(err)
		if (opened.Key == nil) != (step.custody == manifest.CustodyServer) {
			t.Errorf("the issue of %s has a key: %v", step.to, opened.Key != nil)
		}
		dir := manifest.IssuedDir("example.com")
		if _, err := f.store.Repo().ReadFile(f.head().Hash, dir+"/"+step.file); err != nil {
			t.Error(err)
		}
		if _, err := f.store.Repo().ReadFile(f.head().Hash, dir+"/"+step.gone); err == nil {
			t.Errorf("%s of the other custody is still there", step.gone)
		}
	}
}

// A key on a server takes one server, by its name.
func TestKeyCustodyIsChecked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, placements := range map[string][]apiv1.Placement{
		"no server":   nil,
		"a selector":  {{Selector: "role=edge", Deployer: "nginx", Target: "web"}},
		"two servers": {{Server: "web-1", Deployer: "nginx", Target: "web"}, {Server: "web-2", Deployer: "nginx", Target: "web"}},
	} {
		before := f.head()
		err := f.service.CreateCertificate(t.Context(), ada, "", spec("example.com", func(s *apiv1.CertificateSpec) {
			s.KeyCustody, s.Deployments = manifest.CustodyServer, placements
		}))
		t.Log(name)
		f.refused(err, hub.ErrInvalid, before, "server")
	}
}
