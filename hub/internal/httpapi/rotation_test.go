package httpapi_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// keyed enrols an approved server that has a real key.
func (w *world) keyed(t *testing.T, operator, name string) (credential string, key *seal.PrivateKey) {
	t.Helper()
	key, err := seal.Generate(name, start)
	w.must(err)
	public, err := key.Public().Armor()
	w.must(err)
	token := w.joinToken(operator, apiv1.JoinTokenRequest{Server: name, PreApproved: true})
	reg := decode[apiv1.Registration](t, w.send(http.MethodPost, "/api/v1/servers/register", "", apiv1.RegisterRequest{Token: token.Token, Name: name, PublicKey: string(public)}))
	return reg.Credential, key
}

// offer makes a new key that the present one signs for a server.
func (w *world) offer(t *testing.T, present *seal.PrivateKey, server string) (apiv1.OfferKeyRequest, *seal.PrivateKey) {
	t.Helper()
	next, err := seal.Generate(server, start)
	w.must(err)
	public, err := next.Public().Armor()
	w.must(err)
	sig, err := seal.Sign(manifest.ServerKeyDomain("repo-1", server), public, present, w.clock())
	w.must(err)
	return apiv1.OfferKeyRequest{PublicKey: string(public), Signature: string(sig)}, next
}

const (
	offerPath = "/api/v1/servers/rotate-key"
	askPath   = "/api/v1/servers/web-1/rotate-key"
)

func (w *world) wantsKey(t *testing.T, agent string, want bool) {
	t.Helper()
	beat := decode[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, apiv1.HeartbeatRequest{Counter: 1, Status: "ok"}))
	if beat.RotateKey != want {
		t.Errorf("the heartbeat's answer asks for a new key: %v, want %v", beat.RotateKey, want)
	}
}

func TestRotateServerKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	agent, key := w.keyed(t, operator, "web-1")
	w.wantsKey(t, agent, false)
	asked := decode[apiv1.KeyRotation](t, w.send(http.MethodPost, askPath, operator, nil))
	if asked.State != "asked" || asked.Until == nil || !asked.Until.Equal(start.Add(30*time.Minute)) || asked.JoinToken != nil {
		t.Errorf("asked %+v", asked)
	}
	if row := w.audit(); row.Action != "rotate-server-key" || row.Actor != "otto" || !strings.Contains(row.Detail, key.Fingerprint()) {
		t.Errorf("audit row %+v", row)
	}
	w.wantsKey(t, agent, true)
	offer, next := w.offer(t, key, "web-1")
	for range 2 { // the second time as if the answer was lost
		got := decode[apiv1.OfferedKey](t, w.send(http.MethodPost, offerPath, agent, offer))
		if got.State != "taken" || got.Fingerprint != next.Fingerprint() {
			t.Errorf("offered %+v", got)
		}
	}
	w.wantsKey(t, agent, false)
	// A key that nobody asked for waits, is shown, and is approved like an enrolment.
	offer, third := w.offer(t, next, "web-1")
	if got := decode[apiv1.OfferedKey](t, w.send(http.MethodPost, offerPath, agent, offer)); got.State != "pending" {
		t.Errorf("offered %+v", got)
	}
	s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", operator))
	if s.Fingerprint != next.Fingerprint() || s.NextFingerprint != third.Fingerprint() {
		t.Errorf("server %+v", s)
	}
	w.wantsKey(t, agent, false)
	s = decode[apiv1.Server](t, w.send(http.MethodPost, "/api/v1/servers/web-1/approve", operator, apiv1.ApproveRequest{Fingerprint: third.Fingerprint()}))
	if s.Fingerprint != third.Fingerprint() || s.NextFingerprint != "" || s.State != "approved" {
		t.Errorf("server %+v", s)
	}
}

func TestOfferedKeyMustBeSignedByThePresentOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	agent, key := w.keyed(t, operator, "web-1")
	stranger, err := seal.Generate("stranger", start)
	w.must(err)
	decode[apiv1.KeyRotation](t, w.send(http.MethodPost, askPath, operator, nil))
	good, _ := w.offer(t, key, "web-1")
	other, _ := w.offer(t, key, "web-1")
	forged, _ := w.offer(t, stranger, "web-1")
	foreign, _ := w.offer(t, key, "web-2")
	bare, err := seal.Sign("", []byte(good.PublicKey), key, start)
	w.must(err)
	for name, offer := range map[string]apiv1.OfferKeyRequest{
		"by a stranger":      forged,
		"for another server": foreign,
		"over another key":   {PublicKey: good.PublicKey, Signature: other.Signature},
		"over the key alone": {PublicKey: good.PublicKey, Signature: string(bare)},
		"that is none":       {PublicKey: good.PublicKey, Signature: "x"},
	} {
		if r := w.send(http.MethodPost, offerPath, agent, offer); r.status != http.StatusForbidden {
			t.Errorf("signature %s: %d %s", name, r.status, r.body)
		}
	}
	if r := w.send(http.MethodPost, offerPath, agent, apiv1.OfferKeyRequest{PublicKey: "x", Signature: "x"}); r.status != http.StatusUnprocessableEntity {
		t.Errorf("no key: %d %s", r.status, r.body)
	}
	if s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", operator)); s.Fingerprint != key.Fingerprint() || s.NextFingerprint != "" {
		t.Errorf("server %+v", s)
	}
	for _, path := range []string{"/api/v1/servers/web-9/rotate-key"} {
		if r := w.send(http.MethodPost, path, operator, nil); r.status != http.StatusNotFound {
			t.Errorf("unknown server: %d", r.status)
		}
	}
}

// TestCompromisedServerKey: the server is shut out, and what it could open and is in force is issued again.
func TestCompromisedServerKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	agent, key := w.keyed(t, operator, "web-1")
	w.fleet.addServer("web-1", map[string]string{"role": "edge"})
	issued := func(name, spki, leaf string, until time.Time) {
		w.fleet.addCertificate(&manifest.Certificate{Name: name}, &manifest.IssuedCertificate{Name: name, SPKISHA256: spki, LeafSHA256: leaf, NotAfter: until})
	}
	later := start.Add(24 * time.Hour)
	issued("now", "key-1", "leaf-1", later)
	issued("kept-key", "key-2", "leaf-2b", later)
	issued("renewed", "key-3b", "leaf-3b", later)
	issued("expired", "key-4", "leaf-4", start)
	issued("elsewhere", "key-5", "leaf-5", later)
	issued("pruned", "key-6", webLeaf, later)
	w.fleet.edit(func(f *fleet) {
		deployed := func(spki, leaf string) manifest.Deployment {
			return manifest.Deployment{SPKISHA256: spki, LeafSHA256: leaf}
		}
		f.snap.Issued["not-wished"] = &manifest.IssuedCertificate{Name: "not-wished", SPKISHA256: "key-1", NotAfter: later}
		f.histories["web-1"] = []gitstore.ServerCommit{
			{Manifest: &manifest.Manifest{Deployments: []manifest.Deployment{deployed("key-1", "leaf-1"), deployed("key-4", "leaf-4")}}},
			{},
			{Manifest: &manifest.Manifest{Deployments: []manifest.Deployment{deployed("key-2", "leaf-2a"), deployed("key-3a", "leaf-3a")}}},
		}
	})
	_, err := w.db.RecordReport(t.Context(), "web-1", "r1", []hub.Observation{{Server: "web-1", Certificate: "pruned", Target: "web", LeafSHA256: webLeaf, State: apiv1.DeploymentDeployed, ReportedAt: start}})
	w.must(err)
	want := []string{"kept-key", "now", "pruned"}
	got := decode[apiv1.KeyRotation](t, w.send(http.MethodPost, askPath, operator, apiv1.RotateKeyRequest{Compromised: true, Reason: "laptop stolen"}))
	if got.State != "blocked" || got.JoinToken == nil || !strings.HasPrefix(got.JoinToken.Token, "cfj_") || !slices.Equal(got.Certificates, want) {
		t.Fatalf("blocked %+v", got)
	}
	for _, name := range want {
		job, err := w.db.LatestJob(t.Context(), name)
		w.must(err)
		if !job.NewKey || job.Actor != "otto" || job.Reason != "key of server web-1 replaced: laptop stolen" {
			t.Errorf("job of %s: %+v", name, job)
		}
	}
	if row := w.audit(); row.Action != "rotate-server-key" || !strings.Contains(row.Detail, key.Fingerprint()+" is compromised, 3 certificates") {
		t.Errorf("audit row %+v", row)
	}
	if r := w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, apiv1.HeartbeatRequest{Counter: 1, Status: "ok"}); r.status != http.StatusUnauthorized {
		t.Errorf("the old credential: %d", r.status)
	}
	offer, _ := w.offer(t, key, "web-1")
	if r := w.send(http.MethodPost, offerPath, agent, offer); r.status != http.StatusUnauthorized {
		t.Errorf("a new key by the old credential: %d", r.status)
	}
	if r := w.send(http.MethodPost, askPath, operator, nil); r.status != http.StatusConflict {
		t.Errorf("asking a blocked server: %d", r.status)
	}
	reg := decode[apiv1.Registration](t, w.send(http.MethodPost, "/api/v1/servers/register", "", apiv1.RegisterRequest{Token: got.JoinToken.Token, Name: "web-1", PublicKey: publicKey(t)}))
	if reg.State != "pending" || reg.Fingerprint == key.Fingerprint() {
		t.Errorf("enrolled anew: %+v", reg)
	}
}
