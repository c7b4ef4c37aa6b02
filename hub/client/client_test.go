package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// noPause does not wait between attempts and counts them.
func noPause(waits *[]time.Duration) func(context.Context, time.Duration) error {
	return func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return ctx.Err()
	}
}

func newClient(t *testing.T, h http.HandlerFunc, change func(*client.Config)) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	cfg := client.Config{BaseURL: srv.URL, Token: client.Static("cfa_secret"), Pause: noPause(new([]time.Duration))}
	if change != nil {
		change(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"", "hub.example.com", "ftp://hub", "https://", "https://user:hunter2@hub", "https://hub?x=hunter2", "https://hub#hunter2",
		"https://hub/prefix", "https://hunter2:hunter2:hunter2", "\x7fhunter2",
	} {
		_, err := client.New(client.Config{BaseURL: address})
		if err == nil {
			t.Errorf("%q was taken", address)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: the error repeats it: %v", address, err)
		}
	}
	if _, err := client.New(client.Config{BaseURL: "https://hub.example.com:8443/"}); err != nil {
		t.Error(err)
	}
}

// TestOperations calls each method once and compares what was sent.
func TestOperations(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		got = append(got, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
		mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer cfa_secret" {
			answer(w, http.StatusUnauthorized, apiv1.Problem{Title: "Unauthorized"})
			return
		}
		if strings.HasSuffix(r.URL.Path, "/sync") || strings.HasSuffix(r.URL.Path, "/logout") {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, http.StatusOK, map[string]any{})
	}, nil)
	ctx := t.Context()
	page := client.Page{After: "a b", Limit: 7, Query: "x"}
	for _, tc := range []struct {
		want string
		call func() error
	}{
		{"GET /api/v1/auth/setup", func() error { return second(c.SetupState(ctx)) }},
		{"POST /api/v1/auth/logout", func() error { return c.Logout(ctx) }},
		{"GET /api/v1/auth/me", func() error { return second(c.Me(ctx)) }},
		{"GET /api/v1/users?after=a+b&limit=7&q=x", func() error { return second(c.Users(ctx, page)) }},
		{`POST /api/v1/users {"name":"ann","password":"p","role":"viewer"}`, func() error {
			return second(c.CreateUser(ctx, apiv1.CreateUserRequest{Name: "ann", Password: "p", Role: apiv1.RoleViewer}))
		}},
		{`POST /api/v1/join-tokens {"server":"web-1"}`, func() error {
			return second(c.CreateJoinToken(ctx, apiv1.JoinTokenRequest{Server: "web-1"}))
		}},
		{`POST /api/v1/servers/register {"token":"t","name":"web-1","public_key":"k","facts":{}}`, func() error {
			return second(c.Register(ctx, apiv1.RegisterRequest{Token: "t", Name: "web-1", PublicKey: "k"}))
		}},
		{`POST /api/v1/servers/heartbeat {"counter":3,"status":"ok"}`, func() error {
			return second(c.Heartbeat(ctx, apiv1.HeartbeatRequest{Counter: 3, Status: "ok"}))
		}},
		{
			`POST /api/v1/certificates/sync {"id":"1","at":"0001-01-01T00:00:00Z","commit":"","generation":0,"cause":"poll","deployments":[]}`,
			func() error {
				return c.Report(ctx, apiv1.ReportRequest{ID: "1", Cause: "poll", Deployments: []apiv1.DeploymentReport{}})
			},
		},
		{"GET /api/v1/servers", func() error { return second(c.Servers(ctx, client.Page{})) }},
		{"GET /api/v1/servers/web-1", func() error { return second(c.Server(ctx, "web-1")) }},
		{"GET /api/v1/servers/..%2Fusers", func() error { return second(c.Server(ctx, "../users")) }},
		{"GET /api/v1/servers/web-1/history", func() error { return second(c.ServerHistory(ctx, "web-1", client.Page{})) }},
		{`POST /api/v1/servers/web-1/approve {"fingerprint":"F"}`, func() error { return second(c.ApproveServer(ctx, "web-1", "F")) }},
		{`POST /api/v1/servers/web-1/rollback {"reason":"r"}`, func() error {
			return second(c.RollbackServer(ctx, "web-1", apiv1.RollbackRequest{Reason: "r"}))
		}},
		{"POST /api/v1/servers/web-1/resume", func() error { return second(c.ResumeServer(ctx, "web-1")) }},
		{"GET /api/v1/certificates", func() error { return second(c.Certificates(ctx, client.Page{})) }},
		{"GET /api/v1/certificates/example.com", func() error { return second(c.Certificate(ctx, "example.com")) }},
		{`POST /api/v1/certificates {"name":"n","names":["a"],"issuer":"i"}`, func() error {
			return second(c.CreateCertificate(ctx, apiv1.CertificateSpec{Name: "n", Names: []string{"a"}, Issuer: "i"}))
		}},
		{"GET /api/v1/certificates/n/history", func() error { return second(c.CertificateHistory(ctx, "n", client.Page{})) }},
		{"POST /api/v1/certificates/n/renew {}", func() error { return second(c.RenewCertificate(ctx, "n", apiv1.RenewRequest{})) }},
		{`POST /api/v1/certificates/n/rollback {"commit":"c"}`, func() error {
			return second(c.RollbackCertificate(ctx, "n", apiv1.RollbackRequest{Commit: "c"}))
		}},
		{"POST /api/v1/certificates/n/resume", func() error { return second(c.ResumeCertificate(ctx, "n")) }},
		{"GET /api/v1/issuers", func() error { return second(c.Issuers(ctx, client.Page{})) }},
		{"GET /api/v1/jobs", func() error { return second(c.Jobs(ctx, client.Page{})) }},
		{"GET /api/v1/jobs/j1", func() error { return second(c.Job(ctx, "j1")) }},
		{"GET /api/v1/audit", func() error { return second(c.Audit(ctx, client.Page{})) }},
		{"GET /api/v1/stats", func() error { return second(c.Status(ctx)) }},
	} {
		got = nil
		if err := tc.call(); err != nil {
			t.Errorf("%s: %v", tc.want, err)
		}
		if len(got) != 1 || got[0] != tc.want {
			t.Errorf("sent %q, want %q", got, tc.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestErrorReads(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		err  client.Error
		want string
	}{
		{"full", client.Error{Status: 422, Problem: apiv1.Problem{
			Title: "Unprocessable Entity", Detail: "the request has faults", RequestID: "r1",
			Errors: []apiv1.ProblemFault{{Location: "body.names[0]", Message: "is no DNS name"}, {Message: "and more"}},
		}}, "the request has faults: body.names[0]: is no DNS name; and more (HTTP 422, request r1)"},
		{"title", client.Error{Status: 404, Problem: apiv1.Problem{Title: "Not Found"}}, "not found (HTTP 404)"},
		{"bare", client.Error{Status: 502}, "bad gateway (HTTP 502)"},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if client.StatusOf(fmt.Errorf("list: %w", &client.Error{Status: 404})) != 404 || client.StatusOf(io.EOF) != 0 {
		t.Error("StatusOf does not see the status")
	}
}

func TestProblemIsDecoded(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3")
		answer(w, http.StatusConflict, apiv1.Problem{Title: "Conflict", Detail: "it exists", RequestID: "r9"})
	}, nil)
	_, err := c.CreateUser(t.Context(), apiv1.CreateUserRequest{})
	var e *client.Error
	if !errors.As(err, &e) || e.Status != 409 || e.Problem.RequestID != "r9" || e.RetryAfter != 3*time.Second {
		t.Fatalf("got %#v", err)
	}
}

// TestRetries: what is idempotent is tried again, anything else is sent once.
func TestRetries(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		status int
		call   func(context.Context, *client.Client) error
		want   int
	}{
		{"get, 503", 503, func(ctx context.Context, c *client.Client) error { return second(c.Me(ctx)) }, 3},
		{"get, 429", 429, func(ctx context.Context, c *client.Client) error { return second(c.Me(ctx)) }, 3},
		{"get, 404", 404, func(ctx context.Context, c *client.Client) error { return second(c.Me(ctx)) }, 1},
		{"get, 500", 500, func(ctx context.Context, c *client.Client) error { return second(c.Me(ctx)) }, 1},
		{"report, 502", 502, func(ctx context.Context, c *client.Client) error { return c.Report(ctx, apiv1.ReportRequest{}) }, 3},
		{"post, 503", 503, func(ctx context.Context, c *client.Client) error { return second(c.ResumeServer(ctx, "a")) }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
				n.Add(1)
				answer(w, tc.status, apiv1.Problem{})
			}, nil)
			if err := tc.call(t.Context(), c); client.StatusOf(err) != tc.status {
				t.Errorf("got %v", err)
			}
			if int(n.Load()) != tc.want {
				t.Errorf("sent %d times, want %d", n.Load(), tc.want)
			}
		})
	}
}

func TestRetryHelpsAndWaits(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	var waits []time.Duration
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) {
		case 1:
			w.Header().Set("Retry-After", "2")
			answer(w, http.StatusServiceUnavailable, apiv1.Problem{})
		case 2:
			w.Header().Set("Retry-After", "3600")
			answer(w, http.StatusServiceUnavailable, apiv1.Problem{})
		case 3:
			w.Header().Set("Retry-After", "soon")
			answer(w, http.StatusServiceUnavailable, apiv1.Problem{})
		default:
			answer(w, http.StatusOK, apiv1.User{Name: "ann"})
		}
	}, func(cfg *client.Config) { cfg.Pause, cfg.Attempts = noPause(&waits), 5 })
	me, err := c.Me(t.Context())
	if err != nil || me.Name != "ann" {
		t.Fatal(me, err)
	}
	if want := []time.Duration{2 * time.Second, 10 * time.Second, 4 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("waited %v, want %v", waits, want)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	var waits []time.Duration
	c, err := client.New(client.Config{BaseURL: srv.URL, Pause: noPause(&waits)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrUnreachable) || len(waits) != 2 {
		t.Errorf("got %v after %v", err, waits)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) || len(waits) != 2 {
		t.Errorf("got %v after %v", err, waits)
	}
}

func TestPauseEnds(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		answer(w, http.StatusServiceUnavailable, apiv1.Problem{})
	}, func(cfg *client.Config) { cfg.Pause = nil })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Me(ctx); client.StatusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("got %v, want the last answer", err)
	}
}

// TestHostileAnswers: whatever answers, the client says so and neither hangs nor leaks.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat(" ", 1<<20)
	for _, tc := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"name": canary`)
		}, "versions that fit"},
		{"wrong type", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusOK, map[string]any{"name": 5, "role": "canary"})
		}, "versions that fit"},
		{"a web page", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>canary") }, "not of a Certferry hub"},
		{"too long", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 33 {
				_, _ = io.WriteString(w, huge)
			}
		}, "more than"},
		{"half an answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "{")
		}, "read answer"},
		{"a page as error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "canary", http.StatusTeapot) }, "HTTP 418"},
		{"another host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.2:1/canary", http.StatusTemporaryRedirect)
		}, "another host"},
		{"circles", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, "in circles"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, tc.serve, nil).Me(t.Context())
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			for _, secret := range []string{"cfa_secret", "canary"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds %s: %v", secret, err)
				}
			}
		})
	}
}

func TestTokenFails(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(http.ResponseWriter, *http.Request) { t.Error("sent without a token") }, func(cfg *client.Config) {
		cfg.Token = func(context.Context) (string, error) { return "", io.ErrUnexpectedEOF }
	})
	if _, err := c.Me(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func TestAllPages(t *testing.T) {
	t.Parallel()
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("after") {
		case "":
			answer(w, http.StatusOK, apiv1.List[apiv1.Issuer]{Items: []apiv1.Issuer{{Name: "a"}, {Name: "b"}}, Next: "b"})
		case "b":
			answer(w, http.StatusOK, apiv1.List[apiv1.Issuer]{Items: []apiv1.Issuer{{Name: "c"}}, Next: "c"})
		default:
			answer(w, http.StatusForbidden, apiv1.Problem{})
		}
	}, nil)
	var names []string
	var last error
	for i, err := range client.All(t.Context(), c.Issuers, client.Page{}) {
		if last = err; err == nil {
			names = append(names, i.Name)
		}
	}
	if strings.Join(names, "") != "abc" || client.StatusOf(last) != http.StatusForbidden {
		t.Errorf("got %v, %v", names, last)
	}
	for _, err := range client.All(t.Context(), c.Issuers, client.Page{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}
