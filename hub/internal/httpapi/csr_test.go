package httpapi_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

const csrPath = "/api/v1/servers/csr"

// keyWish puts a certificate with its key on web-1 on main, and asks for its request.
func (w *world) keyWish(reuse string) hub.CertificateRequest {
	w.tb.Helper()
	w.fleet.edit(func(f *fleet) {
		f.snap.Certificates["www"] = &manifest.Certificate{
			Name: "www", Names: []string{"www.test"}, Issuer: "private", KeyCustody: manifest.CustodyServer,
			Deployments: []manifest.Placement{{Server: "web-1", Deployer: "nginx", Target: "site"}, {Server: "web-1", Deployer: "files", Target: "mail"}},
		}
	})
	job, _, err := w.db.EnqueueJob(w.tb.Context(), hub.Job{Certificate: "www", Actor: "hub"})
	w.must(err)
	asked, err := w.db.AskCSR(w.tb.Context(), hub.CertificateRequest{
		Certificate: "www", Server: "web-1", JobID: job.ID, Names: []string{"www.test"}, KeyType: "ecdsa-p256", Reuse: reuse,
	})
	w.must(err)
	return asked
}

func (w *world) beat(t *testing.T, agent string) []apiv1.WantedRequest {
	t.Helper()
	return decode[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, apiv1.HeartbeatRequest{Counter: 1, Status: "ok"})).CertificateRequests
}

// newCSR makes a request of a new key, and answers the key's hash too.
func (w *world) newCSR(kind bundle.KeyType, names ...string) (csr []byte, spki string) {
	w.tb.Helper()
	key, err := bundle.GenerateKey(kind)
	w.must(err)
	csr, err = bundle.NewCSR(key, names)
	w.must(err)
	spki, err = bundle.KeySHA256(key.Public())
	w.must(err)
	return csr, spki
}

func TestCertificateRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, other := w.agent("web-1", hub.ServerApproved), w.agent("web-2", hub.ServerApproved)
	asked := w.keyWish("")
	want := []apiv1.WantedRequest{{
		ID: asked.ID, Certificate: "www", Names: []string{"www.test"}, KeyType: "ecdsa-p256", NewKey: true,
		Targets: []apiv1.WantedTarget{{Deployer: "nginx", Target: "site"}, {Deployer: "files", Target: "mail"}},
	}}
	if diff := cmp.Diff(want, w.beat(t, agent)); diff != "" {
		t.Errorf("web-1 is asked: %s", diff)
	}
	if got := w.beat(t, other); got != nil {
		t.Errorf("web-2 is asked for %+v", got)
	}
	csr, spki := w.newCSR(bundle.ECDSAP256, "www.test")
	for range 2 { // the second time as if the answer was lost
		if r := w.send(http.MethodPost, csrPath, agent, apiv1.CertificateRequest{ID: asked.ID, CSR: csr}); r.status != http.StatusNoContent {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	if row := w.audit(); row.Action != "send-certificate-request" || row.Object != "www" || row.Outcome != hub.OutcomeOK || !strings.Contains(row.Detail, spki) {
		t.Errorf("audit row %+v", row)
	}
	got, err := w.db.CSR(t.Context(), asked.ID)
	if err != nil || got.SPKISHA256 != spki || string(got.CSR) != string(csr) {
		t.Errorf("kept %+v, %v", got, err)
	}
	if got := w.beat(t, agent); got != nil {
		t.Errorf("still asked for %+v", got)
	}
}

func TestCertificateRequestIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent, other, pending := w.agent("web-1", hub.ServerApproved), w.agent("web-2", hub.ServerApproved), w.agent("web-3", hub.ServerPending)
	asked := w.keyWish("")
	good, spki := w.newCSR(bundle.ECDSAP256, "www.test")
	wrongNames, _ := w.newCSR(bundle.ECDSAP256, "www.test", "bank.test")
	wrongType, _ := w.newCSR(bundle.ECDSAP384, "www.test")
	w.fleet.edit(func(f *fleet) {
		f.snap.Issued["other"] = &manifest.IssuedCertificate{Name: "other", SPKISHA256: spki}
	})
	for _, tc := range []struct {
		name, agent string
		body        apiv1.CertificateRequest
		status      int
		says        string
	}{
		{"another server", other, apiv1.CertificateRequest{ID: asked.ID, CSR: good}, http.StatusForbidden, "another server was asked"},
		{"pending server", pending, apiv1.CertificateRequest{ID: asked.ID, CSR: good}, http.StatusForbidden, "another server was asked"},
		{"not asked", agent, apiv1.CertificateRequest{ID: "x", CSR: good}, http.StatusConflict, "not asked for any more"},
		{"nothing", agent, apiv1.CertificateRequest{ID: asked.ID}, http.StatusUnprocessableEntity, "is missing"},
		{"no request", agent, apiv1.CertificateRequest{ID: asked.ID, CSR: []byte("hello")}, http.StatusUnprocessableEntity, "cannot be read"},
		{"other names", agent, apiv1.CertificateRequest{ID: asked.ID, CSR: wrongNames}, http.StatusUnprocessableEntity, "other names"},
		{"other type", agent, apiv1.CertificateRequest{ID: asked.ID, CSR: wrongType}, http.StatusUnprocessableEntity, "not of the type"},
		{"key in use", agent, apiv1.CertificateRequest{ID: asked.ID, CSR: good}, http.StatusUnprocessableEntity, "this one is in use"},
	} {
		r := w.send(http.MethodPost, csrPath, tc.agent, tc.body)
		if r.status != tc.status || !strings.Contains(string(r.body), tc.says) {
			t.Errorf("%s: %d %s, want %d with %q", tc.name, r.status, r.body, tc.status, tc.says)
		}
		if row := w.audit(); tc.status == http.StatusForbidden && (row.Outcome != hub.OutcomeDenied || row.Action != "send-certificate-request") {
			t.Errorf("%s: audit row %+v", tc.name, row)
		}
	}
	if got, err := w.db.CSR(t.Context(), asked.ID); err != nil || got.Answered() {
		t.Errorf("kept %+v, %v", got, err)
	}

	// The server's own refusal is for people.
	r := w.send(http.MethodPost, csrPath, agent, apiv1.CertificateRequest{ID: asked.ID, Refusal: "not allowed\nby this server's policy"})
	if got, err := w.db.CSR(t.Context(), asked.ID); err != nil || r.status != http.StatusNoContent || got.Refusal != "not allowed by this server's policy" {
		t.Errorf("%d, kept %+v, %v", r.status, got, err)
	}
	if row := w.audit(); row.Outcome != hub.OutcomeFailed || !strings.Contains(row.Detail, "policy") {
		t.Errorf("audit row %+v", row)
	}

	// A key that is to be used again may be in use.
	again := w.keyWish(spki)
	if wanted := w.beat(t, agent); len(wanted) != 1 || wanted[0].NewKey || wanted[0].SPKISHA256 != spki {
		t.Errorf("asked for %+v", wanted)
	}
	if r := w.send(http.MethodPost, csrPath, agent, apiv1.CertificateRequest{ID: again.ID, CSR: good}); r.status != http.StatusNoContent {
		t.Errorf("%d %s", r.status, r.body)
	}
}

// What main does not wish for any more is not asked for, nor taken.
func TestCertificateRequestThatNobodyWishesFor(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*gitstore.Snapshot){
		"no certificate": func(s *gitstore.Snapshot) { delete(s.Certificates, "www") },
		"hub's key":      func(s *gitstore.Snapshot) { s.Certificates["www"].KeyCustody = "" },
		"another server": func(s *gitstore.Snapshot) { s.Certificates["www"].Deployments[0].Server = "web-2" },
		"other names":    func(s *gitstore.Snapshot) { s.Certificates["www"].Names = []string{"api.test"} },
		"no deployment":  func(s *gitstore.Snapshot) { s.Certificates["www"].Deployments = nil },
	} {
		w := newWorld(t)
		agent := w.agent("web-1", hub.ServerApproved)
		asked := w.keyWish("")
		w.fleet.edit(func(f *fleet) { change(&f.snap) })
		if got := w.beat(t, agent); got != nil {
			t.Errorf("%s: asked for %+v", name, got)
		}
		csr, _ := w.newCSR(bundle.ECDSAP256, "www.test")
		if r := w.send(http.MethodPost, csrPath, agent, apiv1.CertificateRequest{ID: asked.ID, CSR: csr}); r.status != http.StatusConflict {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
}
