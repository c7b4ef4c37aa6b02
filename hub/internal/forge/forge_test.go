package forge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/hub/internal/forge"
)

const (
	token  = "tok-0123456789abcdef"
	commit = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
)

// asked is a request as a host got it.
type asked struct {
	method, path string
	header       http.Header
	body         map[string]string
}

// host stands in for a Git host; answer decides what each request gets.
type host struct {
	*httptest.Server

	mu   sync.Mutex
	got  []asked
	came chan struct{}
}

func newHost(t *testing.T, answer func(n int, w http.ResponseWriter)) *host {
	t.Helper()
	h := &host{came: make(chan struct{}, 1000)}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := asked{method: r.Method, path: r.URL.EscapedPath(), header: r.Header}
		data, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(data, &a.body) != nil {
			http.Error(w, "bad body", http.StatusBadRequest)
			return
		}
		h.mu.Lock()
		h.got = append(h.got, a)
		n := len(h.got)
		h.mu.Unlock()
		answer(n, w)
		h.came <- struct{}{}
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) requests() []asked {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]asked(nil), h.got...)
}

func created(_ int, w http.ResponseWriter) {
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, `{"id": 1}`)
}

func tokenFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func newClient(t *testing.T, kind forge.Kind, api string) *forge.Client {
	t.Helper()
	c, err := forge.New(forge.Config{Kind: kind, API: api, Repository: "ops/fleet", TokenFile: tokenFile(t, token+"\n", 0o600)})
	if err != nil {
		t.Fatal(err)
	}
	return c.Hurry()
}

// TestShapes holds each request against what the host's documentation asks for.
func TestShapes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		kind    forge.Kind
		base    string
		state   forge.State
		path    string
		headers map[string]string
		body    map[string]string
	}{
		"github": {
			kind: forge.GitHub, state: forge.Failure,
			path: "/repos/ops/fleet/statuses/" + commit,
			headers: map[string]string{
				"Authorization": "Bearer " + token, "Accept": "application/vnd.github+json", "X-Github-Api-Version": "2022-11-28",
				"Content-Type": "application/json",
			},
			body: map[string]string{"state": "failure", "context": "certferry", "description": "refused", "target_url": "https://hub.example.com/x"},
		},
		"gitlab": {
			kind: forge.GitLab, base: "/api/v4", state: forge.Failure,
			path:    "/api/v4/projects/ops%2Ffleet/statuses/" + commit,
			headers: map[string]string{"Private-Token": token, "Content-Type": "application/json"},
			body:    map[string]string{"state": "failed", "name": "certferry", "description": "refused", "target_url": "https://hub.example.com/x"},
		},
		"gitea": {
			kind: forge.Gitea, base: "/api/v1/", state: forge.Success,
			path:    "/api/v1/repos/ops/fleet/statuses/" + commit,
			headers: map[string]string{"Authorization": "token " + token, "Content-Type": "application/json"},
			body:    map[string]string{"state": "success", "context": "certferry", "description": "refused", "target_url": "https://hub.example.com/x"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, created)
			err := newClient(t, tc.kind, h.URL+tc.base).Set(t.Context(), forge.Status{
				Commit: commit, State: tc.state, Description: "refused\nwith more below", TargetURL: "https://hub.example.com/x",
			})
			if err != nil {
				t.Fatal(err)
			}
			got := h.requests()
			if len(got) != 1 || got[0].method != http.MethodPost || got[0].path != tc.path {
				t.Fatalf("got %+v, want one POST %s", got, tc.path)
			}
			for key, want := range tc.headers {
				if value := got[0].header.Get(key); value != want {
					t.Errorf("header %s is %q, want %q", key, value, want)
				}
			}
			if diff := cmp.Diff(tc.body, got[0].body); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestLongDescription keeps within what GitHub takes, in whole characters.
func TestLongDescription(t *testing.T) {
	t.Parallel()
	h := newHost(t, created)
	err := newClient(t, forge.GitHub, h.URL).Set(t.Context(), forge.Status{Commit: commit, State: forge.Pending, Description: strings.Repeat("é", 500) + "\x07"})
	if err != nil {
		t.Fatal(err)
	}
	body := h.requests()[0].body
	if n := utf8.RuneCountInString(body["description"]); n != forge.MaxDescription || !strings.HasSuffix(body["description"], "é…") {
		t.Errorf("got %d characters: %q", n, body["description"])
	}
	if _, there := body["target_url"]; there {
		t.Error("an empty target_url was sent")
	}
}

// TestRetry tries again what may pass and nothing else, and never tells the token.
func TestRetry(t *testing.T) {
	t.Parallel()
	fail := func(status int, body string, header ...string) func(int, http.ResponseWriter) {
		return func(_ int, w http.ResponseWriter) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	after := func(failures int, f func(int, http.ResponseWriter)) func(int, http.ResponseWriter) {
		return func(n int, w http.ResponseWriter) {
			if n <= failures {
				f(n, w)
				return
			}
			created(n, w)
		}
	}
	const gone = `{"message": "Cannot transition status via :enqueue from :pending (Reason(s): Status cannot transition via \"enqueue\")"}`
	for name, tc := range map[string]struct {
		kind   forge.Kind
		state  forge.State
		answer func(int, http.ResponseWriter)
		tries  int
		want   string // part of the error; empty for none
	}{
		"a host that stumbles":     {forge.GitHub, forge.Success, after(2, fail(502, "<html>")), 3, ""},
		"a host that is down":      {forge.Gitea, forge.Success, fail(503, ""), 4, "the host answered 503"},
		"too many requests":        {forge.GitHub, forge.Success, after(1, fail(429, `{}`, "Retry-After", "0")), 2, ""},
		"secondary limit":          {forge.GitHub, forge.Success, after(1, fail(403, `{"message":"slow down"}`, "Retry-After", "1")), 2, ""},
		"no right":                 {forge.GitHub, forge.Success, fail(403, `{"message":"Resource not accessible"}`), 1, "Resource not accessible (the token may not"},
		"a token that ended":       {forge.Gitea, forge.Success, fail(401, `{"message":"bad token `+token+`"}`), 1, "bad token … (the token is not valid"},
		"no repository":            {forge.GitLab, forge.Success, fail(404, `{"message":"404 Project Not Found"}`), 1, "check api and repository"},
		"a redirect":               {forge.GitHub, forge.Success, fail(307, "", "Location", "http://127.0.0.1:1/"), 1, "it redirects"},
		"what it cannot take":      {forge.GitHub, forge.Success, fail(422, `{"message":"No commit found for SHA"}`), 1, "No commit found"},
		"a list for a message":     {forge.GitLab, forge.Success, fail(400, `{"message":{"name":["is too long"]}}`), 1, "is too long"},
		"set already":              {forge.GitLab, forge.Pending, fail(400, gone), 1, ""},
		"set to something else":    {forge.GitLab, forge.Failure, fail(400, gone), 1, "Cannot transition"},
		"set already, elsewhere":   {forge.Gitea, forge.Pending, fail(400, gone), 1, "Cannot transition"},
		"an answer without an end": {forge.Gitea, forge.Success, fail(400, strings.Repeat("x", 1<<20)), 1, "the host answered 400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, tc.answer)
			err := newClient(t, tc.kind, h.URL).Set(t.Context(), forge.Status{Commit: commit, State: tc.state, Description: "x"})
			if n := len(h.requests()); n != tc.tries {
				t.Errorf("asked %d times, want %d", n, tc.tries)
			}
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q", err, tc.want)
			case err != nil && strings.Contains(err.Error(), token):
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// TestEndsWithContext does not wait any longer than its caller.
func TestEndsWithContext(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(_ int, w http.ResponseWriter) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := newClient(t, forge.GitHub, h.URL).Set(ctx, forge.Status{Commit: commit, State: forge.Success})
	if err == nil || time.Since(start) > 10*time.Second {
		t.Errorf("got %v after %s", err, time.Since(start))
	}
}

// TestTokenFile reads the token for each status, and only where it is safe.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	h := newHost(t, created)
	for name, tc := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"readable by others": {token, 0o644, "chmod 600"},
		"empty":              {"\n", 0o600, "one token on one line"},
		"two lines":          {token + "\n" + token, 0o600, "one token on one line"},
		"large":              {strings.Repeat("x", 5000), 0o600, "too large"},
	} {
		path := tokenFile(t, tc.content, tc.mode)
		c, err := forge.New(forge.Config{Kind: forge.GitHub, API: h.URL, Repository: "ops/fleet", TokenFile: path})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), forge.Status{Commit: commit, State: forge.Success}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := c.Set(t.Context(), forge.Status{Commit: commit, State: forge.Success}); err == nil {
			t.Errorf("%s: a token that is gone was used", name)
		}
	}
	if n := len(h.requests()); n != 0 {
		t.Errorf("the host was asked %d times", n)
	}
}

// TestNew refuses configurations that cannot work or are not safe.
func TestNew(t *testing.T) {
	t.Parallel()
	good := forge.Config{Kind: forge.Gitea, API: "https://git.example.com/api/v1", Repository: "ops/fleet", TokenFile: "/etc/token"}
	for name, tc := range map[string]struct {
		change func(*forge.Config)
		want   string
	}{
		"good":               {func(*forge.Config) {}, ""},
		"public GitHub":      {func(c *forge.Config) { c.Kind, c.API = forge.GitHub, "" }, ""},
		"groups on GitLab":   {func(c *forge.Config) { c.Kind, c.Repository = forge.GitLab, "a/b/c" }, ""},
		"groups elsewhere":   {func(c *forge.Config) { c.Repository = "a/b/c" }, "owner/name"},
		"unknown kind":       {func(c *forge.Config) { c.Kind = "bitbucket" }, "github, gitlab or gitea"},
		"no API":             {func(c *forge.Config) { c.API = "" }, "api: must be"},
		"plain HTTP":         {func(c *forge.Config) { c.API = "http://git.example.com/api/v1" }, "https://"},
		"password in URL":    {func(c *forge.Config) { c.API = "https://a:b@git.example.com/api/v1" }, "api: must be"},
		"query in URL":       {func(c *forge.Config) { c.API += "?x=y" }, "api: must be"},
		"path in repository": {func(c *forge.Config) { c.Repository = "ops/.." }, "owner/name"},
		"no repository":      {func(c *forge.Config) { c.Repository = "" }, "owner/name"},
		"no token":           {func(c *forge.Config) { c.TokenFile = "" }, "token_file"},
		"no CA":              {func(c *forge.Config) { c.CAFile = "/nonexistent" }, "ca_file"},
	} {
		cfg := good
		tc.change(&cfg)
		_, err := forge.New(cfg)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

// TestOwnCA believes a host of an own CA, and only with its certificate.
func TestOwnCA(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, works := range map[string]bool{ca: true, "": false} {
		c, err := forge.New(forge.Config{
			Kind: forge.Gitea, API: server.URL, Repository: "ops/fleet", TokenFile: tokenFile(t, token, 0o600), CAFile: file,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Hurry().Set(t.Context(), forge.Status{Commit: commit, State: forge.Success}); (err == nil) != works {
			t.Errorf("with CA %q: got %v", file, err)
		}
	}
}

// TestReporter sends in order, goes on after a refusal, and leaves remotes alone that have no host.
func TestReporter(t *testing.T) {
	t.Parallel()
	h := newHost(t, func(n int, w http.ResponseWriter) {
		if n == 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		created(n, w)
	})
	var said bytes.Buffer
	r := forge.NewReporter(map[string]*forge.Client{"forge": newClient(t, forge.GitHub, h.URL)}, slog.New(slog.NewTextHandler(&said, nil)))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.Report("elsewhere", forge.Status{Commit: commit, State: forge.Success, Description: "nobody hears"})
	for _, text := range []string{"one", "two", "three"} {
		r.Report("forge", forge.Status{Commit: commit, State: forge.Success, Description: text})
	}
	for range 3 {
		select {
		case <-h.came:
		case <-time.After(20 * time.Second):
			t.Fatal("a status did not come")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	var got []string
	for _, a := range h.requests() {
		got = append(got, a.body["description"])
	}
	if diff := cmp.Diff([]string{"one", "two", "three"}, got); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(said.String(), "commit status not set") || strings.Contains(said.String(), token) {
		t.Errorf("the log says %q", said.String())
	}
}

// TestReporterForgetsTheOldest keeps a bound on what waits.
func TestReporterForgetsTheOldest(t *testing.T) {
	t.Parallel()
	h := newHost(t, created)
	r := forge.NewReporter(map[string]*forge.Client{"forge": newClient(t, forge.GitHub, h.URL)}, slog.New(slog.DiscardHandler))
	for range 150 {
		r.Report("forge", forge.Status{Commit: commit, State: forge.Success, Description: "old"})
	}
	r.Report("forge", forge.Status{Commit: commit, State: forge.Success, Description: "newest"})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for range 100 {
		select {
		case <-h.came:
		case <-time.After(20 * time.Second):
			t.Fatal("a status did not come")
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	got := h.requests()
	if len(got) != 100 || got[99].body["description"] != "newest" {
		t.Errorf("got %d requests, the last %+v", len(got), got[len(got)-1].body)
	}
}
