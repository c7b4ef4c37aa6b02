package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// permitted is the authorization table as it is meant; the code has its own.
var permitted = map[string]string{
	"get-setup": "*", "setup": "*", "login": "*", "refresh": "*", "register-server": "*",
	"logout": "viewer operator admin", "get-me": "viewer operator admin",
	"list-users": "admin", "create-user": "admin",
	"create-join-token": "operator admin",
	"heartbeat":         "agent", "report": "agent",
	"list-servers": "viewer operator admin", "get-server": "viewer operator admin", "list-server-history": "viewer operator admin",
	"approve-server": "operator admin", "rollback-server": "operator admin", "resume-server": "operator admin",
	"rotate-server-key": "operator admin", "offer-server-key": "agent", "send-certificate-request": "agent",
	"list-certificates": "viewer operator admin", "get-certificate": "viewer operator admin",
	"list-certificate-history": "viewer operator admin", "create-certificate": "operator admin",
	"renew-certificate": "operator admin", "rollback-certificate": "operator admin", "resume-certificate": "operator admin",
	"preflight-certificate": "operator admin", "preflight": "operator admin",
	"renew-all": "operator admin", "pause-certificate": "operator admin", "get-job-log": "viewer operator admin", "cancel-job": "operator admin", "revoke-certificate": "operator admin",
	"list-watches": "viewer operator admin", "list-endpoints": "viewer operator admin", "create-endpoint": "operator admin", "delete-endpoint": "operator admin",
	"get-certificate-stats": "viewer operator admin", "get-certificate-report": "viewer operator admin",
	"list-dns-providers": "viewer operator admin", "list-credentials": "viewer operator admin", "get-credential": "viewer operator admin",
	"create-credential": "admin", "replace-credential": "admin", "delete-credential": "admin",
	"test-credential": "operator admin", "get-credential-test": "viewer operator admin",
	"list-issuers": "viewer operator admin", "get-issuer": "viewer operator admin", "create-issuer": "admin", "replace-issuer": "admin",
	"delete-issuer": "admin", "get-issuer-account": "operator admin", "deactivate-account": "admin",
	"list-jobs": "viewer operator admin", "get-job": "viewer operator admin",
	"list-audit": "operator admin", "get-stats": "viewer operator admin",
	"list-commits": "viewer operator admin", "get-commit": "viewer operator admin", "compare-commits": "viewer operator admin",
	"get-plan-base": "viewer operator admin", "create-plan": "viewer operator admin",
	"list-alerts":   "viewer operator admin",
	"list-rollouts": "viewer operator admin", "get-rollout": "viewer operator admin", "pause-rollout": "operator admin",
	"resume-rollout": "operator admin", "promote-rollout": "operator admin", "abort-rollout": "operator admin",
	"list-proposals": "viewer operator admin", "get-proposal": "viewer operator admin",
	"approve-proposal": "operator admin", "reject-proposal": "operator admin",
	"rollback-fleet": "operator admin", "resume-fleet": "operator admin", "hold-server": "operator admin", "list-remotes": "viewer operator admin",
}

// TestWhoMayWhat walks all operations by all callers. The requests have no good body: who may call gets past the
// guard and is told so, nobody changes anything.
func TestWhoMayWhat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callers := []struct {
		name, token string
		// as is the word in permitted; a caller whose credential does not count has none.
		as string
	}{
		{"viewer", w.person("vera", apiv1.RoleViewer), "viewer"},
		{"operator", w.person("otto", apiv1.RoleOperator), "operator"},
		{"admin", w.person("anna", apiv1.RoleAdmin), "admin"},
		{"agent-own", w.agent("web-1", hub.ServerApproved), "agent"},
		{"agent-other", w.agent("web-2", hub.ServerPending), "agent"},
		{"agent-disabled", w.agent("web-3", hub.ServerDisabled), ""},
		{"logged out", loggedOut(w), ""},
		{"expired", expired(w), ""},
		{"password changed", outdated(w), ""},
		{"forged", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm5hIn0.", ""},
		{"anonymous", "", ""},
	}
	for _, op := range sortedOperations(t) {
		id, route, _ := strings.Cut(op, " ")
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{name}", "web-1", "{id}", "example.com", "{commit}", "0000000").Replace(path)
		want, known := permitted[id]
		if !known {
			t.Errorf("%s: nobody said who may call it", id)
		}
		for _, caller := range callers {
			before := w.audit().Seq
			var body any
			if method == http.MethodPost {
				body = `{"no_such_key":1}`
			}
			if id == "logout" {
				continue // it has no body to be wrong; see TestLogout
			}
			r := w.send(method, path, caller.token, body)
			switch {
			case want == "*":
				if r.status == http.StatusForbidden || id != "refresh" && r.status == http.StatusUnauthorized {
					t.Errorf("%s by %s: %d %s", id, caller.name, r.status, r.body)
				}
			case caller.as != "" && strings.Contains(" "+want+" ", " "+caller.as+" "):
				if r.status == http.StatusForbidden || r.status == http.StatusUnauthorized {
					t.Errorf("%s by %s is denied: %s", id, caller.name, r.body)
				}
			default:
				denied(t, w, r, id, caller.as, before)
			}
		}
		w.pass(10 * time.Second) // the bucket of denied strangers fills again
	}
	if got := w.intent.last(); got != "" && !strings.HasPrefix(got, "resume") && !strings.HasPrefix(got, "rollback") && !strings.HasPrefix(got, "renew") {
		t.Errorf("something was changed: %s", got)
	}
}

// denied checks the answer and the audit row of an attempt.
func denied(t *testing.T, w *world, r reply, id, as string, before int64) {
	t.Helper()
	want := http.StatusForbidden
	if as == "" {
		want = http.StatusUnauthorized
	}
	if r.status != want {
		t.Errorf("%s by %q: %d, want %d: %s", id, as, r.status, want, r.body)
		return
	}
	p := r.problem(t)
	row := w.audit()
	if row.Seq != before+1 || row.Outcome != hub.OutcomeDenied || row.Action != id || row.RequestID != p.RequestID || row.Address != "127.0.0.1" {
		t.Errorf("%s by %q: the audit row is %+v", id, as, row)
	}
	if want == http.StatusUnauthorized && r.header.Get("WWW-Authenticate") == "" {
		t.Errorf("%s: 401 without WWW-Authenticate", id)
	}
}

func loggedOut(w *world) string {
	token := w.person("lars", apiv1.RoleAdmin)
	if r := w.send(http.MethodPost, "/api/v1/auth/logout", token, nil); r.status != http.StatusNoContent {
		w.tb.Fatalf("log out: %d %s", r.status, r.body)
	}
	return token
}

func expired(w *world) string {
	w.pass(-2 * time.Hour)
	defer w.pass(2 * time.Hour)
	return w.person("erik", apiv1.RoleAdmin)
}

func outdated(w *world) string {
	token := w.person("olaf", apiv1.RoleAdmin)
	w.must(w.auth.SetPassword(w.tb.Context(), hub.Principal{Kind: hub.Person, Name: "anna"}, "olaf", password+"!"))
	return token
}

// TestAgentsActOnTheirOwn: what one agent sends never touches another's server.
func TestAgentsActOnTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.agent("web-1", hub.ServerApproved)
	w.agent("web-2", hub.ServerApproved)
	r := w.send(http.MethodPost, "/api/v1/servers/heartbeat", one, `{"counter":1,"status":"ok","name":"web-2","server":"web-2"}`)
	if r.status != http.StatusOK {
		t.Fatalf("%d %s", r.status, r.body)
	}
	r = w.send(http.MethodPost, "/api/v1/certificates/sync", one, `{"id":"r1","server":"web-2","at":"2026-11-23T12:00:00Z",
		"commit":"","generation":1,"cause":"poll","deployments":[{"certificate":"example.com","target":"site","server":"web-2",
		"state":"failed","phase":"test","duration_ms":1}]}`)
	if r.status != http.StatusNoContent {
		t.Fatalf("%d %s", r.status, r.body)
	}
	other, err := w.db.Server(t.Context(), "web-2")
	w.must(err)
	seen, err := w.db.ServerObservations(t.Context(), "web-2")
	w.must(err)
	if !other.LastSeenAt.IsZero() || len(seen) != 0 {
		t.Errorf("another server was touched: %+v %+v", other, seen)
	}
}

func TestMalformedCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, header := range []string{"Bearer", "Bearer ", "Basic YTpi", "hunter2", "Bearer hunter2 and-hunter2", "Bearer cfa_hunter2", "bearer cfr_hunter2"} {
		r := w.send(http.MethodGet, "/api/v1/stats", "", nil, "Authorization", header)
		if r.status != http.StatusUnauthorized || strings.Contains(string(r.body), "hunter2") {
			t.Errorf("%q: %d %s", header, r.status, r.body)
		}
	}
	if strings.Contains(w.log.String(), "hunter2") {
		t.Error("the log holds a credential")
	}
}

// TestStrangersAreBounded: who has no credential fills the audit history slowly only.
func TestStrangersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	throttled := 0
	for range 100 {
		r := w.get("/api/v1/stats", "")
		if r.status == http.StatusTooManyRequests {
			throttled++
			if r.header.Get("Retry-After") == "" || r.problem(t).Detail == "" {
				t.Fatalf("%v %s", r.header, r.body)
			}
		}
	}
	if rows := w.audit().Seq; throttled != 40 || rows != 60 {
		t.Errorf("throttled %d, recorded %d", throttled, rows)
	}
	token := w.person("vera", apiv1.RoleViewer)
	if r := w.get("/api/v1/stats", token); r.status != http.StatusOK {
		t.Errorf("a caller with a credential is throttled too: %d", r.status)
	}
	w.pass(10 * time.Second)
	if r := w.get("/api/v1/stats", ""); r.status != http.StatusUnauthorized {
		t.Errorf("the bucket does not fill again: %d", r.status)
	}
}

// TestCrossOrigin: a page of another site cannot make a browser act.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, headers := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
	} {
		r := w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, headers...)
		if r.status != http.StatusForbidden || r.problem(t).Detail == "" {
			t.Errorf("%v: %d %s", headers, r.status, r.body)
		}
		if row := w.audit(); row.Action != "cross-origin" || row.Outcome != hub.OutcomeDenied {
			t.Errorf("%v: the audit row is %+v", headers, row)
		}
	}
	if r := w.send(http.MethodGet, "/healthz", "", nil, "Sec-Fetch-Site", "cross-site"); r.status != http.StatusOK {
		t.Errorf("reading: %d", r.status)
	}
	if r := w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Sec-Fetch-Site", "same-origin"); r.status != http.StatusUnauthorized {
		t.Errorf("same origin: %d", r.status)
	}
}
