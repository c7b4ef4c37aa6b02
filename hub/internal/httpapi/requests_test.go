package httpapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// canary stands for a secret at a wrong place: no answer and no log line may hold it.
const canary = "hunter2-canary"

// TestBadRequests: whatever is sent, the answer is a fitting 4xx that repeats nothing, and nothing changes.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w, _ := someFleet(t)
	admin := w.person("anna", apiv1.RoleAdmin)
	agent := w.agent("web-1", hub.ServerApproved)
	spec := func(change string) string {
		return strings.Replace(`{"name":"n.example","names":["n.example"],"issuer":"private"}`, `"issuer":"private"`, change, 1)
	}
	huge := `{"name":"` + strings.Repeat("a", 1<<20) + `"}`
	for _, tc := range []struct {
		name, method, path, token string
		body                      any
		status                    int
		location                  string
	}{
		{"no body", "POST", "/auth/login", "", "", 400, ""},
		{"not JSON", "POST", "/auth/login", "", canary, 400, ""},
		{"half JSON", "POST", "/auth/login", "", `{"name":"` + canary, 400, ""},
		{"two values", "POST", "/auth/login", "", `{} {"x":"` + canary + `"}`, 400, ""},
		{"deep", "POST", "/certificates", admin, strings.Repeat(`[`, 20000), 400, ""},
		{"not an object", "POST", "/auth/login", "", `"` + canary + `"`, 422, "body"},
		{"list", "POST", "/auth/login", "", `["` + canary + `"]`, 422, "body"},
		{"null", "POST", "/auth/login", "", `null`, 422, "body"},
		{"missing key", "POST", "/auth/login", "", `{"name":"` + canary + `"}`, 422, "body"},
		{"wrong type", "POST", "/auth/login", "", `{"name":5,"password":{"p":"` + canary + `"}}`, 422, "body.name"},
		{"null value", "POST", "/auth/login", "", `{"name":null,"password":"` + canary + `"}`, 422, "body.name"},
		{"too long", "POST", "/auth/login", "", `{"name":"` + strings.Repeat(canary, 30) + `","password":"x"}`, 422, "body.name"},
		{"unknown key", "POST", "/users", admin, `{"name":"a","password":"` + canary + `","role":"viewer","admin":"` + canary + `"}`, 422, "body.admin"},
		{"key that is a value", "POST", "/users", admin, `{"name":"a","password":"abcdefghijkl","role":"viewer","` + canary + ` x":1}`, 422, "body"},
		{"bad role", "POST", "/users", admin, `{"name":"a","password":"abcdefghijkl","role":"` + canary + `"}`, 422, "body.role"},
		{"short password", "POST", "/users", admin, `{"name":"a","password":"canary","role":"viewer"}`, 422, "body.password"},
		{"name of a path", "POST", "/users", admin, `{"name":"../` + canary + `","password":"abcdefghijkl","role":"viewer"}`, 422, "body.name"},
		{"form", "POST", "/users", admin, "name=" + canary, 415, ""},
		{"too large", "POST", "/certificates", admin, huge, 413, ""},
		{"too large, chunked", "POST", "/certificates", admin, io.MultiReader(strings.NewReader(huge), strings.NewReader(huge)), 413, ""},
		{"no names", "POST", "/certificates", admin, `{"name":"n","names":[],"issuer":"private"}`, 422, "body.names"},
		{"number too large", "POST", "/certificates", admin, spec(`"issuer":"private","days_before_expiry":99999999999999999999`), 422, "body.days_before_expiry"},
		{"fraction", "POST", "/certificates", admin, spec(`"issuer":"private","days_before_expiry":1.5`), 422, "body.days_before_expiry"},
		{"bad challenge", "POST", "/certificates", admin, spec(`"issuer":"private","challenge":{"type":"` + canary + `"}`), 422, "body.challenge.type"},
		{"bad key type", "POST", "/certificates", admin, spec(`"issuer":"private","key_type":"` + canary + `"`), 422, "body.key_type"},
		{"nested unknown", "POST", "/certificates", admin, spec(`"issuer":"private","deployments":[{"deployer":"d","target":"t","command":"` + canary + `"}]`), 422, "body.deployments[0].command"},
		{"join for a bad name", "POST", "/join-tokens", admin, `{"server":"../` + canary + `"}`, 422, "body.server"},
		{"bad label", "POST", "/join-tokens", admin, `{"server":"web-9","labels":{"a":"` + canary + ` !"}}`, 422, "body.labels"},
		{"label of a wrong type", "POST", "/join-tokens", admin, `{"server":"web-9","labels":{"a":{"b":"` + canary + `"}}}`, 422, "body.labels.a"},
		{"register a bad name", "POST", "/servers/register", "", `{"token":"` + canary + `","name":"UPPER","public_key":"k","facts":{}}`, 422, "body.name"},
		{"register a bad key", "POST", "/servers/register", "", `{"token":"t","name":"web-9","public_key":"` + canary + `","facts":{}}`, 422, "body.public_key"},
		{"bad status", "POST", "/servers/heartbeat", agent, `{"counter":1,"status":"` + canary + `"}`, 422, "body.status"},
		{"counter too large", "POST", "/servers/heartbeat", agent, `{"counter":18446744073709551615,"status":"ok"}`, 422, "body.counter"},
		{"negative counter", "POST", "/servers/heartbeat", agent, `{"counter":-1,"status":"ok"}`, 422, "body.counter"},
		{"heartbeat of no commit", "POST", "/servers/heartbeat", agent, `{"counter":1,"status":"ok","commit":"` + canary + `"}`, 422, "body.commit"},
		{"report of no time", "POST", "/certificates/sync", agent, `{"id":"1","at":"` + canary + `","commit":"","generation":1,"cause":"poll","deployments":[]}`, 422, "body.at"},
		{"report of no day", "POST", "/certificates/sync", agent, `{"id":"1","at":"2026-02-31T00:00:00Z","commit":"","generation":1,"cause":"poll","deployments":[]}`, 422, "body.at"},
		{"report of nothing", "POST", "/certificates/sync", agent, `{"id":"1","at":"2026-02-01T00:00:00Z","commit":"","generation":1,"cause":"poll","deployments":null}`, 422, "body.deployments"},
		{"report with a bad id", "POST", "/certificates/sync", agent, `{"id":"` + canary + ` /","at":"2026-02-01T00:00:00Z","commit":"","generation":1,"cause":"poll","deployments":[]}`, 422, "body.id"},
		{
			"report of bad names", "POST", "/certificates/sync", agent, `{"id":"1","at":"2026-02-01T00:00:00Z","commit":"zz` + canary + `","generation":1,"cause":"poll","deployments":[
			{"certificate":"../` + canary + `","target":"` + canary + `/","state":"failed","phase":"test","leaf_sha256":"` + canary + `","duration_ms":1}]}`, 422, "body.commit",
		},
		{"limit too large", "GET", "/servers?limit=100000", admin, nil, 422, "query.limit"},
		{"limit too small", "GET", "/servers?limit=0", admin, nil, 422, "query.limit"},
		{"limit no number", "GET", "/servers?limit=" + canary, admin, nil, 422, "query.limit"},
		{"after too long", "GET", "/servers?after=" + strings.Repeat(canary, 20), admin, nil, 422, "query.after"},
		{"unknown query", "GET", "/servers?token=" + canary, admin, nil, 422, "query.token"},
		{"path out of the tree", "GET", "/servers/..%2F" + canary, admin, nil, 422, "path.name"},
		{"upper case path", "GET", "/certificates/" + strings.ToUpper(canary), admin, nil, 422, "path.id"},
		{"control character", "GET", "/certificates/a%00" + canary, admin, nil, 422, "path.id"},
		{"name too long", "GET", "/servers/" + strings.Repeat("a", 300), admin, nil, 422, "path.name"},
		{"fingerprint too short", "POST", "/servers/web-1/approve", admin, `{"fingerprint":"` + canary + `"}`, 422, "body.fingerprint"},
		{"commit too long", "POST", "/servers/web-1/rollback", admin, `{"commit":"` + strings.Repeat("a", 41) + `"}`, 422, "body.commit"},
		{"unknown path", "GET", "/" + canary, admin, nil, 404, ""},
		{"unknown method", "DELETE", "/servers", admin, nil, 405, ""},
		{"made-up method", "CANARY", "/servers", admin, nil, 405, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			headers := []string{}
			if tc.status == http.StatusUnsupportedMediaType {
				headers = []string{"Content-Type", "application/x-www-form-urlencoded"}
			}
			r := w.send(tc.method, "/api/v1"+tc.path, tc.token, tc.body, headers...)
			if r.status != tc.status {
				t.Fatalf("%d, want %d: %s", r.status, tc.status, r.body)
			}
			if strings.Contains(string(r.body), "hunter2") || strings.Contains(fmt.Sprint(r.header), "hunter2") {
				t.Errorf("the answer repeats what was sent: %s", r.body)
			}
			p := r.problem(t)
			if tc.location != "" && (len(p.Errors) == 0 || p.Errors[0].Location != tc.location && !located(p, tc.location)) {
				t.Errorf("faults %+v, want one at %s", p.Errors, tc.location)
			}
			if tc.status == http.StatusMethodNotAllowed && strings.Join(r.header.Values("Allow"), " ") != "GET HEAD" {
				t.Errorf("Allow %v", r.header.Values("Allow"))
			}
		})
	}
	if strings.Contains(w.log.String(), "hunter2") {
		t.Error("the log repeats what was sent")
	}
	if got := w.intent.last(); got != "" {
		t.Errorf("something was changed: %s", got)
	}
}

func located(p apiv1.Problem, location string) bool {
	for _, f := range p.Errors {
		if f.Location == location {
			return true
		}
	}
	return false
}

// TestAgentsMayBeNewer: what a newer agent adds is not in the way.
func TestAgentsMayBeNewer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent("web-1", hub.ServerApproved)
	for path, body := range map[string]string{
		"/servers/heartbeat": `{"counter":1,"status":"ok","new":{"a":[1]},"facts":{"hostname":"h","new":true}}`,
		"/certificates/sync": `{"id":"1","at":"2026-02-01T00:00:00Z","commit":"","generation":1,"cause":"poll","new":1,"deployments":[
			{"certificate":"a","target":"t","state":"failed","phase":"test","duration_ms":1,"new":"x"}]}`,
	} {
		if r := w.send(http.MethodPost, "/api/v1"+path, agent, body); r.status > 299 {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

func TestHeadersOfAllAnswers(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	for _, path := range []string{"/", "/login", "/assets/a.js", "/assets/none.js", "/healthz", "/readyz", "/api/v1/stats", "/api/v1/nothing", "/api", "/git/x", "/api/v1/openapi.json"} {
		r := w.get(path, viewer)
		h := r.header
		if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") ||
			strings.Contains(h.Get("Content-Security-Policy"), "unsafe") || h.Get("X-Request-Id") == "" || h.Get("Cache-Control") == "" ||
			h.Get("Strict-Transport-Security") != "" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
		if strings.HasPrefix(path, "/api") && strings.Contains(string(r.body), "console") {
			t.Errorf("%s: the console answers", path)
		}
	}
	if r := w.send(http.MethodGet, "/api/v1/stats", viewer, nil, "X-Request-Id", canary); r.header.Get("X-Request-Id") == canary {
		t.Error("a caller chooses the request id")
	}
	if r := w.send(http.MethodPost, "/", "", nil); r.status != http.StatusNotFound || r.problem(t).Status != 404 {
		t.Errorf("POST to the console: %d", r.status)
	}
}

func TestConditionalRequests(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	for _, path := range []string{"/api/v1/certificates/example.com", "/api/v1/openapi.json"} {
		first := w.get(path, viewer)
		tag := first.header.Get("ETag")
		if tag == "" || first.header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("%s: %v", path, first.header)
		}
		for _, header := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if r := w.send(http.MethodGet, path, viewer, nil, "If-None-Match", header); r.status != http.StatusNotModified || len(r.body) != 0 {
				t.Errorf("%s, %s: %d %s", path, header, r.status, r.body)
			}
		}
		if r := w.send(http.MethodGet, path, viewer, nil, "If-None-Match", `"other"`); r.status != http.StatusOK {
			t.Errorf("%s: %d", path, r.status)
		}
		if r := w.send(http.MethodHead, path, viewer, nil); r.status != http.StatusOK || len(r.body) != 0 || r.header.Get("ETag") != tag {
			t.Errorf("HEAD %s: %d %v", path, r.status, r.header)
		}
	}
	// An entity tag opens nothing.
	tag := w.get("/api/v1/certificates/example.com", viewer).header.Get("ETag")
	if r := w.send(http.MethodGet, "/api/v1/certificates/example.com", "", nil, "If-None-Match", tag); r.status != http.StatusUnauthorized {
		t.Errorf("without a credential: %d", r.status)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.get("/healthz", ""); r.status != http.StatusOK || string(r.body) != "{\"status\":\"ok\"}\n" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.get("/readyz", ""); r.status != http.StatusOK {
		t.Errorf("%d %s", r.status, r.body)
	}
	w.mu.Lock()
	w.ready = errors.New("canary: the repository is locked")
	w.mu.Unlock()
	if r := w.get("/readyz", ""); r.status != http.StatusServiceUnavailable || strings.Contains(string(r.body), "canary") || r.problem(t).Detail == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if !strings.Contains(w.log.String(), "repository is locked") {
		t.Error("the log does not say why")
	}
	if w.audit().Seq != 0 {
		t.Error("a health check is an act")
	}
}

// TestGitDoor: the handler sees paths below its own root, and takes GET and POST only.
func TestGitDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) {
		c.Git = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.Path, r.URL.RawQuery, body)
		})
	})
	if r := w.get("/git/certferry.git/info/refs?service=git-upload-pack", ""); string(r.body) != "GET /info/refs service=git-upload-pack " {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.send(http.MethodPost, "/git/certferry.git/git-upload-pack", "", "0000"); string(r.body) != "POST /git-upload-pack  0000" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.send(http.MethodPut, "/git/certferry.git/x", "", nil); r.status != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %d", r.status)
	}
	if r := w.get("/git/other.git/info/refs", ""); r.status != http.StatusNotFound || r.problem(t).Status != 404 {
		t.Errorf("another repository: %d", r.status)
	}
}

// TestPanic: a fault of ours ends one request, not the hub.
func TestPanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) {
		c.Git = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "half") {
				_, _ = io.WriteString(w, "half")
			}
			if strings.HasSuffix(r.URL.Path, "abort") {
				panic(http.ErrAbortHandler)
			}
			panic("canary")
		})
	})
	if r := w.get("/git/certferry.git/x", ""); r.status != http.StatusInternalServerError || strings.Contains(string(r.body), "canary") || r.problem(t).RequestID == "" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, path := range []string{"half", "abort"} {
		req := httptest.NewRequest(http.MethodGet, "/git/certferry.git/"+path, nil)
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler { //nolint:errorlint // a panic's value
					t.Errorf("%s: the connection is not cut: %v", path, v)
				}
			}()
			w.srv.Config.Handler.ServeHTTP(httptest.NewRecorder(), req)
		}()
	}
	if !strings.Contains(w.log.String(), "request panicked") {
		t.Error("the log does not tell")
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	viewer := w.person("vera", apiv1.RoleViewer)
	w.get("/api/v1/servers?q="+canary, viewer)
	var line map[string]any
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	w.must(json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	for key, want := range map[string]any{
		"msg": "request", "method": "GET", "route": "/api/v1/servers", "operation": "list-servers", "status": 200.0,
		"address": "127.0.0.1", "actor": "vera",
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	for _, secret := range []string{canary, viewer} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// TestForwardedForIsNotBelieved: an address is that of the connection.
func TestForwardedForIsNotBelieved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.send(http.MethodGet, "/api/v1/stats", "", nil, "X-Forwarded-For", "192.0.2.1", "X-Real-Ip", "192.0.2.1", "Forwarded", "for=192.0.2.1")
	if row := w.audit(); row.Address != "127.0.0.1" {
		t.Errorf("address %s", row.Address)
	}
	req := httptest.NewRequest(http.MethodGet, "/api/v1/stats", nil)
	req.RemoteAddr = "[::ffff:192.0.2.7]:1234"
	w.srv.Config.Handler.ServeHTTP(httptest.NewRecorder(), req)
	if row := w.audit(); row.Address != "192.0.2.7" {
		t.Errorf("address %s", row.Address)
	}
	req.RemoteAddr = "@"
	w.srv.Config.Handler.ServeHTTP(httptest.NewRecorder(), req)
	if row := w.audit(); row.Address != "" {
		t.Errorf("address %s", row.Address)
	}
}

// TestFailClosed: what cannot be recorded is not answered as if it were.
func TestFailClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	w.must(w.db.Close())
	if r := w.send(http.MethodPost, "/api/v1/join-tokens", operator, apiv1.JoinTokenRequest{Server: "web-1"}); r.status != http.StatusInternalServerError {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.get("/api/v1/users", ""); r.status != http.StatusInternalServerError || r.problem(t).RequestID == "" {
		t.Errorf("a denied attempt: %d %s", r.status, r.body)
	}
	if r := w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil); r.status != http.StatusInternalServerError {
		t.Errorf("a denied refresh: %d %s", r.status, r.body)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := newWorld(t).cfg
	for name, change := range map[string]func(*httpapi.Config){
		"no data":            func(c *httpapi.Config) { c.Data = nil },
		"no auth":            func(c *httpapi.Config) { c.Auth = nil },
		"no intent":          func(c *httpapi.Config) { c.Intent = nil },
		"no fleet":           func(c *httpapi.Config) { c.Fleet = nil },
		"no clock":           func(c *httpapi.Config) { c.Now = nil },
		"no log":             func(c *httpapi.Config) { c.Logger = nil },
		"no address":         func(c *httpapi.Config) { c.PublicURL = "" },
		"odd address":        func(c *httpapi.Config) { c.PublicURL = "ftp://hub" },
		"short interval":     func(c *httpapi.Config) { c.HeartbeatInterval = time.Millisecond },
		"console of nothing": func(c *httpapi.Config) { c.Console = fstest.MapFS{} },
	} {
		bad := good
		change(&bad)
		if _, err := httpapi.New(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	lean := good
	lean.Console, lean.Ready, lean.RenewAt, lean.Changed = nil, nil, nil, nil
	h, err := httpapi.New(lean)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/": 404, "/readyz": 200, "/git/certferry.git/info/refs": 404} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		if rec.Code != want {
			t.Errorf("%s: %d, want %d", path, rec.Code, want)
		}
	}
}

// FuzzRequests sends anything to the operations that need no credential or that of an agent.
func FuzzRequests(f *testing.F) {
	paths := []string{"/auth/login", "/auth/setup", "/servers/register", "/servers/heartbeat", "/certificates/sync"}
	for i := range paths {
		for _, body := range []string{
			`{}`, `null`, `[]`, `{"name":"a","password":"b"}`, `{"counter":1,"status":"ok","facts":{"addresses":["\u0000"]}}`,
			`{"id":"1","at":"2026-02-01T00:00:00Z","commit":"","generation":1,"cause":"poll","deployments":[{"certificate":"a","target":"t","state":"failed","phase":"test","duration_ms":1}]}`,
			`{"token":"t","name":"web-9","public_key":"k","facts":{}}`, "\xff", `{"counter":1e400}`, `{"at":"2026-02-30T00:00:00Z"}`,
		} {
			f.Add(i, []byte(body))
		}
	}
	w := newWorld(f)
	agent := w.agent("web-1", hub.ServerApproved)
	f.Fuzz(func(t *testing.T, i int, body []byte) {
		path := paths[uint(i)%uint(len(paths))]
		req := httptest.NewRequest(http.MethodPost, "/api/v1"+path, bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+agent)
		rec := httptest.NewRecorder()
		w.srv.Config.Handler.ServeHTTP(rec, req)
		if rec.Code >= http.StatusInternalServerError {
			t.Errorf("%s: %d %s\n%s", path, rec.Code, rec.Body, w.log)
		}
		if rec.Code >= 400 && rec.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d is no problem document", path, rec.Code)
		}
	})
}
