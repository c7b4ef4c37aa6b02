package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
)

// hubOf is a hub whose answers to GET and POST are given by path, the last of each for good.
func hubOf(t *testing.T, answers map[string][]any) string {
	t.Helper()
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + " " + r.URL.Path
		list := answers[key]
		if len(list) == 0 {
			http.NotFound(w, r)
			return
		}
		if len(list) > 1 {
			answers[key] = list[1:]
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(list[0]); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// certferry runs a command line against a hub, in this process. The library keeps its help flag in a variable of its
// package, so that such tests run one by one.
func certferry(t *testing.T, hub, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("CERTFERRY_TOKEN", "token")
	var out, errs bytes.Buffer
	args = append([]string{"certferry", "--hub", hub, "--session", filepath.Join(t.TempDir(), "session.json")}, args...)
	if err := newApp(strings.NewReader(stdin), &out, &errs).RunContext(t.Context(), args); err != nil {
		return exitCode(err), out.String(), errs.String() + err.Error()
	}
	return 0, out.String(), errs.String()
}

// TestWaitTellsOfFailures: somebody who waits is told at once what keeps the order, and in words when he gave up.
func TestWaitTellsOfFailures(t *testing.T) {
	again := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	order := func(state apiv1.JobState, attempts int, message string) apiv1.Certificate {
		j := &apiv1.Job{ID: "j1", Kind: apiv1.JobIssue, Certificate: "www", State: state, Attempts: attempts, Error: message}
		if message != "" {
			j.ErrorClass, j.NextStep = "validation_failed", "Run the preflight."
		}
		if state == apiv1.JobWaiting {
			j.RetryAt = &again
		}
		return apiv1.Certificate{CertificateSpec: apiv1.CertificateSpec{Name: "www"}, Job: j}
	}
	proposed := order(apiv1.JobDone, 1, "")
	proposed.Proposal = "0a"
	issued := order(apiv1.JobDone, 1, "")
	issued.Issued = &apiv1.Issued{LeafSHA256: "new"}
	issued.Placed = []apiv1.Deployment{{Server: "web-1", WantLeafSHA256: "new", State: apiv1.DeploymentPending}, {Server: "web-2"}}
	const refused = "validation_failed www.test: no TXT record"
	for name, tc := range map[string]struct {
		shown []any
		want  []string
	}{
		"waiting": {
			[]any{order(apiv1.JobRunning, 1, ""), order(apiv1.JobWaiting, 1, refused), order(apiv1.JobWaiting, 1, refused)},
			[]string{
				"waiting      attempt 1: " + refused + "\nnext step    Run the preflight.\nagain at     2030-01-02T03:04:05Z\n",
				"it did not come within 3s: " + refused + "; again at 2030-01-02T03:04:05Z; it goes on without you: certferry cert show www",
			},
		},
		"failed":    {[]any{order(apiv1.JobFailed, 2, refused)}, []string{"issue certificate www: " + refused + "; Run the preflight."}},
		"cancelled": {[]any{order(apiv1.JobCancelled, 2, "")}, []string{"somebody cancelled job j1"}},
		"queued":    {[]any{order(apiv1.JobQueued, 0, "")}, []string{"3s: its order is queued (certferry job log j1); it goes on"}},
		"no order":  {[]any{apiv1.Certificate{CertificateSpec: apiv1.CertificateSpec{Name: "www"}}}, []string{"3s: no order has begun; it goes on"}},
		"review":    {[]any{proposed}, []string{"3s: its issue waits for review (certferry proposal show www); it goes on"}},
		"servers":   {[]any{issued}, []string{"3s: it is issued, and web-1 has not reported on it, nor 1 other server; it goes on"}},
	} {
		hub := hubOf(t, map[string][]any{"POST /api/v1/certificates": {order(apiv1.JobQueued, 0, "")}, "GET /api/v1/certificates/www": tc.shown})
		code, _, stderr := certferry(t, hub, "", "cert", "create", "--issuer", "ca", "--wait", "--timeout", "3s", "www")
		for _, part := range tc.want {
			if code != exitFailed || strings.Count(stderr, part) != 1 || strings.Contains(stderr, "context deadline") {
				t.Errorf("%s: exit code %d\n%s", name, code, stderr)
			}
		}
	}
}

// TestJobsSayWhatHelps: the class stands once, a waiting order says when it is tried again, and what helps suits its kind.
func TestJobsSayWhatHelps(t *testing.T) {
	again := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	job := apiv1.Job{
		ID: "j1", Kind: apiv1.JobIssue, Certificate: "www", State: apiv1.JobWaiting, Attempts: 1, RetryAt: &again,
		Error: "permanent (rejectedIdentifier) www.test: no", ErrorClass: "permanent", NextStep: "Change the certificate, then renew.",
	}
	dry := job
	dry.ID, dry.Kind, dry.State, dry.RetryAt = "j2", apiv1.JobDryRun, apiv1.JobFailed, nil
	plain := job
	plain.ID, plain.Error, plain.ErrorClass, plain.NextStep = "j3", "the hub was killed", "retryable", "Nothing to do."
	hub := hubOf(t, map[string][]any{
		"GET /api/v1/jobs/j1": {job}, "GET /api/v1/jobs/j2": {dry}, "GET /api/v1/jobs/j3": {plain},
		"GET /api/v1/certificates/www":         {apiv1.Certificate{CertificateSpec: apiv1.CertificateSpec{Name: "www"}, Job: &job}},
		"GET /api/v1/certificates/www/history": {apiv1.List[apiv1.Commit]{Items: []apiv1.Commit{}}},
	})
	for _, tc := range []struct {
		args string
		want []string
		not  string
	}{
		{"job show j1", []string{"error        permanent (rejectedIdentifier)", "then renew. The certificate is the file certificates/www.yaml of the hub's repository"}, "permanent: permanent"},
		{"job show j2", []string{"This was a dry run, and the certificate is as it was: certferry cert preflight www"}, "then renew"},
		{"job show j3", []string{"error        retryable: the hub was killed"}, "certificates/www.yaml"},
		{"cert show www", []string{"again at     2030-01-02T03:04:05Z", "next step    Change the certificate"}, "permanent: permanent"},
	} {
		code, stdout, stderr := certferry(t, hub, "", strings.Fields(tc.args)...)
		for _, part := range tc.want {
			if code != 0 || !strings.Contains(stdout, part) || strings.Contains(stdout, tc.not) {
				t.Errorf("certferry %s: exit code %d, want %q\n%s%s", tc.args, code, part, stdout, stderr)
			}
		}
	}
}

// TestRevokeAsks: a revocation cannot be taken back, so that it is told first what it would be.
func TestRevokeAsks(t *testing.T) {
	x := apiv1.Certificate{
		CertificateSpec: apiv1.CertificateSpec{Name: "www", Names: []string{"www.test"}},
		Issued:          &apiv1.Issued{Serial: "0a1b"}, Placed: []apiv1.Deployment{{Server: "web-1"}},
	}
	hub := hubOf(t, map[string][]any{"GET /api/v1/certificates/www": {x}, "POST /api/v1/certificates/www/revoke": {x}})
	code, stdout, stderr := certferry(t, hub, "", "cert", "revoke", "--reason", "superseded", "www")
	if code != exitUsage || !strings.Contains(stderr, "this would revoke serial 0a1b for www.test, on 1 server, and cannot be taken back: say --yes") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr = certferry(t, hub, "", "cert", "revoke", "--reason", "superseded", "--yes", "www"); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestRenewAllCounts: one certificate is one.
func TestRenewAllCounts(t *testing.T) {
	hub := hubOf(t, map[string][]any{"POST /api/v1/certificates/renew-all": {apiv1.RenewAllReply{Certificates: []string{"www"}}}})
	code, stdout, stderr := certferry(t, hub, "", "cert", "renew-all", "--issuer", "ca")
	if code != 0 || !strings.Contains(stdout, "1 certificate would be renewed: give --yes") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCredentialTestSaysThatItSucceeded: the last step of the test is no result.
func TestCredentialTestSaysThatItSucceeded(t *testing.T) {
	result := apiv1.CredentialTestResult{Domain: "example.com", OK: true, Lines: []string{"removing it"}}
	hub := hubOf(t, map[string][]any{"POST /api/v1/credentials/cf/test": {result}})
	code, stdout, stderr := certferry(t, hub, "", "credential", "test", "--domain", "example.com", "cf")
	if code != 0 || !strings.HasSuffix(stdout, "removing it\nthe test succeeded: credential cf can change example.com, and the record is gone again\n") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// TestCredentialAsks: what belongs together is asked for together, and the rest only where that is not complete.
func TestCredentialAsks(t *testing.T) {
	provider := apiv1.DNSProvider{
		Hook: "dns_cf", Options: []apiv1.ProviderOption{{Name: "CF_Key", Secret: true}, {Name: "CF_Email"}},
		Alternative: []apiv1.ProviderOption{{Name: "CF_Token", Secret: true}, {Name: "CF_Zone_ID", Optional: true}},
	}
	if got, want := introduction(provider), "dns_cf takes CF_Key CF_Email, or instead CF_Token [CF_Zone_ID].\nPress Enter to leave a variable out; those in brackets need not be given."; got != want {
		t.Errorf("%q", got)
	}
	hub := hubOf(t, map[string][]any{
		"GET /api/v1/dns-providers": {apiv1.List[apiv1.DNSProvider]{Items: []apiv1.DNSProvider{provider}}},
		"POST /api/v1/credentials":  {apiv1.Credential{Name: "cf"}},
	})
	for stdin, want := range map[string]int{"key\nme@example.com\n": 0, "\n\ntoken\n\n": 0, "key\n": exitUsage} {
		code, stdout, stderr := certferry(t, hub, stdin, "credential", "add", "--provider", "dns_cf", "cf")
		if code != want {
			t.Errorf("%q: exit code %d\n%s%s", stdin, code, stdout, stderr)
		}
		if want != 0 && !strings.Contains(stderr, "read CF_Email: give it on standard input") {
			t.Errorf("%q: %s", stdin, stderr)
		}
	}
}
