package daemon_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

func (w *world) serveCSR(rw http.ResponseWriter, r *http.Request) {
	var in apiv1.CertificateRequest
	if !w.take(rw, r, &in) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.badRequests != 0 {
		problem(rw, w.badRequests, "no")
		return
	}
	w.requests = append(w.requests, in)
	rw.WriteHeader(http.StatusNoContent)
}

// want lets the answers to heartbeats ask for a certificate request, changed by change, and answers what came.
func (w *world) want(id string, change func(*apiv1.WantedRequest)) apiv1.CertificateRequest {
	w.t.Helper()
	wanted := apiv1.WantedRequest{
		ID: id, Certificate: site, Names: []string{site}, KeyType: "ecdsa-p256", NewKey: true,
		Targets: []apiv1.WantedTarget{{Deployer: "files", Target: "web"}},
	}
	if change != nil {
		change(&wanted)
	}
	w.mu.Lock()
	w.beatReply.CertificateRequests, w.requests = []apiv1.WantedRequest{wanted}, nil
	w.mu.Unlock()
	var got apiv1.CertificateRequest
	w.running(func(*daemon.Agent) {
		eventually(w.t, "the answer to "+id, func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.requests) == 0 {
				return false
			}
			got, w.beatReply.CertificateRequests = w.requests[0], nil
			return true
		})
	})
	if got.ID != id {
		w.t.Errorf("answer to %q, want %q", got.ID, id)
	}
	return got
}

// running runs the agent while do runs.
func (w *world) running(do func(*daemon.Agent)) {
	w.t.Helper()
	a := w.agent()
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	do(a)
	stop()
	w.must(<-done)
}

// requested is want for a request that must come, and answers its key's hash too.
func (w *world) requested(id string, change func(*apiv1.WantedRequest)) (csr []byte, spki string) {
	w.t.Helper()
	got := w.want(id, change)
	spki, err := bundle.CheckCSR(got.CSR, []string{site}, bundle.ECDSAP256)
	if err != nil || got.Refusal != "" {
		w.t.Fatalf("%v, refusal %q", err, got.Refusal)
	}
	return got.CSR, spki
}

// certify makes a certificate of a request, a second younger than the one before.
func (w *world) certify(csr []byte) *bundle.Bundle {
	w.t.Helper()
	request, err := x509.ParseCertificateRequest(csr)
	w.must(err)
	issued := w.issue() // for its dates and its CA
	template := &x509.Certificate{
		SerialNumber: new(big.Int).Add(issued.Leaf.SerialNumber, big.NewInt(1)), DNSNames: request.DNSNames,
		NotBefore: issued.Leaf.NotBefore, NotAfter: issued.Leaf.NotAfter, ExtKeyUsage: issued.Leaf.ExtKeyUsage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.caOf(), request.PublicKey, w.caKey)
	w.must(err)
	leaf, err := x509.ParseCertificate(der)
	w.must(err)
	return &bundle.Bundle{Leaf: leaf, Chain: []*x509.Certificate{w.caOf()}}
}

// caOf makes the CA that signs requests, once.
func (w *world) caOf() *x509.Certificate {
	w.t.Helper()
	if w.caCert == nil {
		key, err := bundle.GenerateKey(bundle.ECDSAP256)
		w.must(err)
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: w.now().AddDate(-1, 0, 0), NotAfter: w.now().AddDate(20, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		w.must(err)
		w.caCert, err = x509.ParseCertificate(der)
		w.must(err)
		w.caKey = key
	}
	return w.caCert
}

// publishKeyless makes b what web-1 shall serve with a key of its own.
func (w *world) publishKeyless(b *bundle.Bundle, stepBack bool) string {
	w.t.Helper()
	snapshot, err := w.store.Snapshot()
	w.must(err)
	got, err := w.store.Publish(w.t.Context(), snapshot.Commit, []gitstore.ServerState{{
		Server: "web-1", Key: w.agentKey,
		Deployments: []gitstore.Wanted{{Certificate: site, Deployer: "files", Target: "web", Bundle: b, KeyOnServer: true, StepBack: stepBack}},
	}})
	w.must(err)
	w.must(got[0].Err)
	return got[0].Commit
}

// keyFiles lists the hashes of the keys that the agent keeps.
func (w *world) keyFiles() map[string]bool {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.cfg.StateDir, "keys"))
	w.must(err)
	all := map[string]bool{}
	for _, e := range entries {
		all[strings.TrimSuffix(e.Name(), ".json")] = true
	}
	return all
}

// TestKeyOnServer makes a key, deploys its certificate, renews with a new and with the same key, and goes back: by the
// hub and by the server's own administrator.
func TestKeyOnServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PollInterval = time.Hour
	a := w.agent()
	csr, first := w.requested("one", nil)
	if _, again := w.requested("one", nil); again != first {
		t.Error("the same asking got a request of another key")
	}
	one := w.certify(csr)
	w.deployed(a, w.publishKeyless(one, false), one)
	csr, second := w.requested("two", nil)
	if second == first {
		t.Error("a new key was asked for, and the old one came")
	}
	two := w.certify(csr)
	commit := w.publishKeyless(two, false)
	w.deployed(a, commit, two)
	csr, kept := w.requested("three", func(r *apiv1.WantedRequest) { r.NewKey, r.SPKISHA256 = false, second })
	if kept != second {
		t.Error("the key was to be kept, and another one came")
	}
	three := w.certify(csr)
	w.deployed(a, w.publishKeyless(three, false), three)

	// By the hub, to an issue that it still has; and by the administrator, from the local history.
	w.deployed(a, w.publishKeyless(one, true), one)
	result, err := a.Rollback(t.Context(), commit)
	if err != nil || result.Outcomes[0].LeafSHA256 != two.LeafSHA256() {
		t.Fatalf("%+v, %v", result, err)
	}
	w.site.wantServed(two)
	w.must(a.Resume(t.Context()))
	w.deployed(a, w.publishKeyless(three, true), three)

	// Keys stay until their certificates have expired and no state on disk names them.
	if have := w.keyFiles(); len(have) != 2 || !have[first] || !have[second] {
		t.Errorf("keys %v, want %s and %s", have, first, second)
	}
	w.pass(365 * 24 * time.Hour)
	w.ca.Now = w.now()
	for i := range 12 {
		csr, second = w.requested("later-"+string(rune('a'+i)), nil)
		w.caCert = nil
		b := w.certify(csr)
		w.deployed(a, w.publishKeyless(b, false), b)
	}
	if have := w.keyFiles(); have[first] || !have[second] {
		t.Errorf("keys %v, want those of the history without %s", have, first)
	}
	// What went to the hub is public.
	w.mu.Lock()
	defer w.mu.Unlock()
	sent, err := json.Marshal([]any{w.requests, w.reports, w.heartbeats})
	if err != nil || strings.Contains(string(sent), "PRIVATE") {
		t.Errorf("sent to the hub: %v, %s", err, sent)
	}
}

func TestKeyThatIsNotHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PollInterval = time.Hour
	a := w.agent()
	csr, spki := w.requested("one", nil)
	good := w.certify(csr)
	w.deployed(a, w.publishKeyless(good, false), good)

	// A certificate of a key that this server does not have, such as after its disk was replaced.
	foreign, err := bundle.GenerateKey(bundle.ECDSAP256)
	w.must(err)
	csr, err = bundle.NewCSR(foreign, []string{site})
	w.must(err)
	w.publishKeyless(w.certify(csr), false)
	w.onceSays(a, daemon.ErrDeployment, "should be on this server and is not")
	w.site.wantServed(good)

	// A damaged file is no key.
	w.must(os.WriteFile(filepath.Join(w.cfg.StateDir, "keys", spki+".json"), []byte("{"), 0o600))
	w.publishKeyless(good, true)
	w.onceSays(a, daemon.ErrDeployment, "should be on this server and is not")
	w.site.wantServed(good)

	// The hub asks for the key that is gone, and gets a new one.
	csr, fresh := w.requested("two", func(r *apiv1.WantedRequest) { r.NewKey, r.SPKISHA256 = false, spki })
	if fresh == spki {
		t.Error("a damaged key was used")
	}
	b := w.certify(csr)
	w.deployed(a, w.publishKeyless(b, false), b)
}

func TestRequestsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.PollInterval = time.Hour
	w.agent()
	for name, tc := range map[string]struct {
		change func(*apiv1.WantedRequest)
		says   string
	}{
		"another target":   {func(r *apiv1.WantedRequest) { r.Targets[0].Target = "mail" }, "not allowed by this server's policy"},
		"another deployer": {func(r *apiv1.WantedRequest) { r.Targets[0].Deployer = "nginx" }, "not allowed by this server's policy"},
		"one bad target": {func(r *apiv1.WantedRequest) {
			r.Targets = append(r.Targets, apiv1.WantedTarget{Deployer: "files", Target: "mail"})
		}, "not allowed by this server's policy"},
		"another name":     {func(r *apiv1.WantedRequest) { r.Names = append(r.Names, "bank.test") }, "not allowed by this server's policy"},
		"no target":        {func(r *apiv1.WantedRequest) { r.Targets = nil }, "without"},
		"no names":         {func(r *apiv1.WantedRequest) { r.Names = nil }, "without"},
		"no DNS name":      {func(r *apiv1.WantedRequest) { r.Names = []string{"a b"} }, "check name"},
		"no key type":      {func(r *apiv1.WantedRequest) { r.KeyType = "dsa" }, "key type"},
		"path as a name":   {func(r *apiv1.WantedRequest) { r.Certificate = "../../etc" }, "check certificate's name"},
		"too long an id":   {nil, "without"},
		"policy not there": {nil, "policy"},
	} {
		id := strings.ReplaceAll(name, " ", "-")
		switch name {
		case "too long an id":
			id = strings.Repeat("x", 65)
		case "policy not there":
			w.must(os.Rename(w.cfg.Policy, w.cfg.Policy+".away"))
		}
		got := w.want(id, tc.change)
		if len(got.CSR) > 0 || !strings.Contains(got.Refusal, tc.says) {
			t.Errorf("%s: %d bytes, %q, want %q", name, len(got.CSR), got.Refusal, tc.says)
		}
		if name == "policy not there" {
			w.must(os.Rename(w.cfg.Policy+".away", w.cfg.Policy))
		}
	}
	if have := w.keyFiles(); len(have) > 0 {
		t.Errorf("keys were made: %v", have)
	}
}

// A hub that asks for nothing any more, or is down, gets no request, and the agent goes on.
func TestRequestIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusConflict, http.StatusInternalServerError} {
		w := newWorld(t)
		w.cfg.PollInterval = time.Hour
		w.badRequests = status
		w.mu.Lock()
		w.beatReply.CertificateRequests = []apiv1.WantedRequest{{
			ID: "one", Certificate: site, Names: []string{site}, KeyType: "ecdsa-p256", NewKey: true,
			Targets: []apiv1.WantedTarget{{Deployer: "files", Target: "web"}},
		}}
		w.mu.Unlock()
		w.running(func(*daemon.Agent) {
			eventually(t, "another heartbeat", func() bool { return len(w.beats()) >= 2 })
		})
		if have := w.keyFiles(); len(have) != 1 {
			t.Errorf("%d: keys %v", status, have)
		}
		w.mu.Lock()
		w.badRequests = 0
		w.mu.Unlock()
		if _, spki := w.requested("one", nil); !w.keyFiles()[spki] || len(w.keyFiles()) != 1 {
			t.Errorf("%d: another key was made", status)
		}
	}
}

// A bundle that holds a key where the manifest says that it is the server's own was not made by an honest hub.
func TestKeyInABundleThatShouldHaveNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	snapshot, err := w.store.Snapshot()
	w.must(err)
	got, err := w.store.Publish(t.Context(), snapshot.Commit, []gitstore.ServerState{{
		Server: "web-1", Key: w.agentKey,
		Deployments: []gitstore.Wanted{{Certificate: site, Deployer: "files", Target: "web", Bundle: w.issue(), KeyOnServer: true}},
	}})
	w.must(err)
	if got[0].Err == nil {
		t.Error("a key that should be on its server was published")
	}
	w.once(a, daemon.ErrNothingToDo)
}
