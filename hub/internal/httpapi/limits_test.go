package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
)

// TestLimiterForgets: many addresses cannot fill the memory.
func TestLimiterForgets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l := newLimiter(func() time.Time { return now })
	for i := range maxStrangers {
		l.allow(fmt.Sprint("old", i))
	}
	now = now.Add(time.Hour)
	l.allow("new")
	if len(l.buckets) != 1 {
		t.Errorf("%d buckets are kept, want the new one", len(l.buckets))
	}
	for i := range maxStrangers + 1 {
		l.allow(fmt.Sprint("busy", i))
	}
	if len(l.buckets) > maxStrangers {
		t.Errorf("%d buckets", len(l.buckets))
	}
}

// TestClasses: each class of error has its status, and only what is meant for callers is told.
func TestClasses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		status int
		detail string
		retry  string
	}{
		{&hub.Error{Class: hub.ErrInvalid, Message: "m"}, 422, "m", ""},
		{fmt.Errorf("do: %w", &hub.Error{Class: hub.ErrConflict, Message: "m"}), 409, "m", ""},
		{fmt.Errorf("read secret: %w", hub.ErrNotFound), 404, sentences[404], ""},
		{hub.ErrUnauthenticated, 401, sentences[401], ""},
		{hub.ErrForbidden, 403, sentences[403], ""},
		{&hub.Error{Class: hub.ErrThrottled, Message: "m", RetryAfter: 1500 * time.Millisecond}, 429, "m", "2"},
		{hub.ErrThrottled, 429, sentences[429], "1"},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), 503, sentences[503], "1"},
		{context.Canceled, 503, sentences[503], "1"},
		{errors.New("canary"), 500, sentences[500], ""},
		{&hub.Error{Class: errors.New("no class"), Message: "canary"}, 500, sentences[500], ""},
		{errors.Join(&hub.Error{Class: hub.ErrUnauthenticated, Message: "m"}, errors.New("canary")), 401, "m", ""},
	} {
		p := problemOf(tc.err, "r")
		if p.Status != tc.status || p.Detail != tc.detail || p.header.Get("Retry-After") != tc.retry || p.Error() != p.Detail {
			t.Errorf("%v: %+v %v", tc.err, p.Problem, p.header)
		}
	}
}

func TestCleanLocation(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"body": "body", "body.names[0]": "body.names[0]", "body.hunter2-x": "body", "body.a.B": "body.a", "body.a[x]": "body.a",
		"body.a[1].b c": "body.a[1]", "elsewhere.a": "", "": "", "query.q": "query.q", "body.a\nb": "body",
	} {
		if got := cleanLocation(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestRouteMissingFromTheTable: a route that nobody decided about stops the hub from starting.
func TestRouteMissingFromTheTable(t *testing.T) {
	t.Parallel()
	s := newServer(Config{Now: time.Now})
	s.mount(nil, nil)
	if err := s.checkRoutes(); err != nil {
		t.Fatal(err)
	}
	s.plain("undecided", http.MethodGet, "/undecided", s.healthz)
	if err := s.checkRoutes(); err == nil {
		t.Error("an undecided route was taken")
	}
	s = newServer(Config{Now: time.Now})
	s.mount(nil, nil)
	s.router.Get("/smuggled", s.healthz)
	if err := s.checkRoutes(); err == nil {
		t.Error("a route that was not declared was taken")
	}
	s = newServer(Config{Now: time.Now})
	if err := s.checkRoutes(); err == nil {
		t.Error("routes of the table are missing, and nobody noticed")
	}
}

// TestHeldWriter: what is held back still reaches the connection for its deadlines.
func TestHeldWriter(t *testing.T) {
	t.Parallel()
	held := &heldWriter{ResponseWriter: httptest.NewRecorder()}
	if _, ok := held.Unwrap().(*httptest.ResponseRecorder); !ok {
		t.Error("deadlines do not reach the connection")
	}
	held.release(httptest.NewRequest(http.MethodGet, "/", nil))
	if held.status != http.StatusOK {
		t.Errorf("status %d", held.status)
	}
}
