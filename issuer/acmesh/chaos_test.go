package acmesh_test

import (
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// chaosCase is a row of the class table: what a CA does, and what it means.
type chaosCase struct {
	at    string
	times int
	act   func(http.ResponseWriter, *http.Request, http.Handler)
	// class is empty where the order must go through.
	class    issuer.Class
	acmeType string
	// wait is the least time to wait, exactly where it is not 0.
	wait time.Duration
	// says is a part of the sentence.
	says string
	// spent says whether a certificate may exist at the CA.
	spent   bool
	timeout time.Duration
	// before orders other certificates first.
	before int
	// real is for what the stand-in does not do: it reads the chain and does not only pass it on.
	real bool
}

func chaosCases() map[string]chaosCase {
	const order, finalize, download = issuertest.AtNewOrder, issuertest.AtFinalize, issuertest.AtDownload
	problem, page, document := issuertest.Problem, issuertest.Page, issuertest.Document
	return map[string]chaosCase{
		"429 with Retry-After":        {at: order, act: problem(429, "rateLimited", "too many", 7200), class: issuer.RateLimited, acmeType: "rateLimited", wait: 2 * time.Hour, says: "too many"},
		"429 without Retry-After":     {at: order, act: problem(429, "rateLimited", "too many", 0), class: issuer.RateLimited, acmeType: "rateLimited", wait: time.Hour},
		"429 of a front end":          {at: order, act: page(429, 1800), class: issuer.RateLimited, acmeType: "rateLimited", wait: 30 * time.Minute},
		"429 at finalize":             {at: finalize, act: problem(429, "rateLimited", "too many", 3600), class: issuer.RateLimited, acmeType: "rateLimited", wait: time.Hour, spent: true},
		"503 for a moment":            {at: order, times: 1, act: problem(503, "serverInternal", "busy", 1)},
		"503 for a day":               {at: order, act: page(503, 86400), class: issuer.RateLimited, wait: 24 * time.Hour, acmeType: "serverInternal"},
		"500 with a problem":          {at: order, act: problem(500, "serverInternal", "oops", 0), class: issuer.Retryable, acmeType: "serverInternal", says: "oops"},
		"502 of a front end":          {at: order, act: page(502, 0), class: issuer.Retryable, acmeType: "serverInternal", says: "502"},
		"garbage for an order":        {at: order, act: page(200, 0), class: issuer.Retryable},
		"drop at the order":           {at: order, act: issuertest.Drop, class: issuer.Retryable},
		"drop at finalize":            {at: finalize, act: issuertest.Drop, class: issuer.Retryable, spent: true},
		"hang":                        {at: order, act: issuertest.Hang, class: issuer.Retryable, timeout: 8 * time.Second, says: "took too long"},
		"two bad nonces":              {at: order, times: 2, act: problem(400, "badNonce", "JWS has an invalid anti-replay nonce: x", 0)},
		"bad nonces without end":      {at: order, act: problem(400, "badNonce", "JWS has an invalid anti-replay nonce: x", 0), class: issuer.Retryable, acmeType: "badNonce"},
		"refused name":                {at: order, act: problem(400, "rejectedIdentifier", "policy forbids", 0), class: issuer.Permanent, acmeType: "rejectedIdentifier", says: "policy forbids"},
		"unknown profile":             {at: order, act: problem(400, "invalidProfile", "no such profile", 0), class: issuer.Permanent, acmeType: "invalidProfile"},
		"account unknown":             {at: order, act: problem(400, "accountDoesNotExist", "no such account", 0), class: issuer.Account, acmeType: "accountDoesNotExist"},
		"terms changed":               {at: order, act: problem(403, "userActionRequired", "agree to the terms", 0), class: issuer.Account, acmeType: "userActionRequired", says: "agree"},
		"account needs a binding":     {at: issuertest.AtNewAccount, act: problem(401, "externalAccountRequired", "bind it", 0), class: issuer.Account, acmeType: "externalAccountRequired"},
		"CAA at authorization":        {at: issuertest.AtAuthz, act: document(issuertest.InvalidAuthz("authz.chaos.test", "caa", "CAA record forbids")), class: issuer.Permanent, acmeType: "caa", says: "CAA record forbids"},
		"unauthorized authorization":  {at: issuertest.AtAuthz, act: document(issuertest.InvalidAuthz("authz.chaos.test", "unauthorized", "wrong TXT")), class: issuer.ValidationFailed, acmeType: "unauthorized"},
		"CAA at finalize":             {at: finalize, act: problem(403, "caa", "CAA record forbids", 0), class: issuer.Permanent, acmeType: "caa", spent: true},
		"bad CSR":                     {at: finalize, act: problem(400, "badCSR", "weak key", 0), class: issuer.Permanent, acmeType: "badCSR", says: "weak key", spent: true},
		"order not ready":             {at: finalize, act: problem(403, "orderNotReady", "wait", 0), class: issuer.Retryable, acmeType: "orderNotReady", spent: true},
		"order forgotten":             {at: issuertest.AtOrder, act: problem(404, "malformed", "no such order", 0), class: issuer.Retryable, acmeType: "malformed", spent: true},
		"CAA while signing":           {at: issuertest.AtOrder, act: document(issuertest.InvalidOrder("order.chaos.test", "caa", "CAA record forbids")), class: issuer.Permanent, acmeType: "caa", says: "CAA record forbids", spent: true},
		"unauthorized while signing":  {at: issuertest.AtOrder, act: document(issuertest.InvalidOrder("order.chaos.test", "unauthorized", "wrong TXT")), class: issuer.ValidationFailed, acmeType: "unauthorized", spent: true},
		"500 at download":             {at: download, act: page(500, 0), class: issuer.Retryable, acmeType: "serverInternal", spent: true},
		"truncated certificate":       {at: download, act: issuertest.Rewrite(func(b []byte) []byte { return b[:len(b)/3] }), class: issuer.Retryable, spent: true},
		"truncated chain":             {at: download, act: issuertest.Rewrite(func(b []byte) []byte { return b[:len(b)*3/4] }), class: issuer.Retryable, spent: true, says: "not what was ordered: read certificates", real: true},
		"another job's certificate":   {at: download, act: issuertest.FirstForAll(), class: issuer.Retryable, says: "not what was ordered: it is a certificate for another key", spent: true, before: 1},
		"garbage for the certificate": {at: download, act: page(200, 0), class: issuer.Retryable, spent: true},
	}
}

// TestClassTable holds what a CA may do to the class, the sentence and the next step that the hub acts on and shows.
func TestClassTable(t *testing.T) {
	t.Parallel()
	for name, tt := range chaosCases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.check(t)
		})
	}
}

func (tt *chaosCase) check(t *testing.T) {
	t.Helper()
	if tt.real && os.Getenv("ACME_SH") == "" {
		t.Skip("skipped: ACME_SH does not name the real acme.sh")
	}
	// Pebbles share a DNS server, so that each case needs names of its own.
	name := strings.ToLower(rand.Text()[:10]) + ".chaos.test"
	w := newWorld(t, issuertest.PebbleConfig{Wrap: issuertest.Inject(issuertest.Fault{At: tt.at, Times: tt.times, Act: tt.act})})
	for range tt.before {
		w.issue(t, "before."+name, nil)
	}
	if tt.timeout > 0 {
		w.cfg.Timeout = tt.timeout
		w.open(t)
	}
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, name)
	req.Challenge = w.dns("canary-chaos")
	told := &events{}
	req.Progress = told.tell
	_, err := w.issuer.Issue(t.Context(), req)
	w.leavesNothing(t, "canary-chaos")
	if left := w.pebble.DNS.GetDNSTXTRecords("_acme-challenge." + name); len(left) > 0 {
		t.Errorf("records are left: %q", left)
	}
	if tt.class == "" {
		if err != nil {
			t.Fatalf("the order must go through: %v\n%s", err, told.text())
		}
		return
	}
	got := new(issuer.Error)
	if !errors.As(err, &got) {
		t.Fatalf("%v, want an *issuer.Error", err)
	}
	if got.Class != tt.class || got.ACMEType != tt.acmeType || got.RetryAfter != tt.wait || got.Phase.Spent() != tt.spent {
		t.Errorf("class %q type %q wait %s phase %q (%v), want class %q type %q wait %s spent %t\n%s",
			got.Class, got.ACMEType, got.RetryAfter, got.Phase, err, tt.class, tt.acmeType, tt.wait, tt.spent, told.text())
	}
	if strings.Contains(got.Error(), w.cfg.WorkDir) {
		t.Errorf("%q tells a path of this machine", got)
	}
	if got.Detail == "" || !strings.Contains(got.Error(), tt.says) || issuer.NextStep(got.Class) == "" {
		t.Errorf("%q says too little, want %q; next: %q", got, tt.says, issuer.NextStep(got.Class))
	}
}

// TestPebblesOwnChaos runs the conformance suite once more with what Pebble does by default: it refuses one nonce in
// twenty and sleeps before it looks. Pebble reads that from its environment, hence the process of its own.
func TestPebblesOwnChaos(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestWebrootConforms$", "-test.v")
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=0", "PEBBLE_WFE_NONCEREJECT=5", "PEBBLE_VA_SLEEPTIME=3")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestWebrootConforms ") {
		t.Errorf("%v\n%s", err, out)
	}
}
