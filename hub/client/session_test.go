package client_test

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// login is a hub with one session: access tokens a1, a2, … and refresh tokens r1, r2, …; only the newest count.
type login struct {
	mu        sync.Mutex
	access    string
	refresh   string
	refreshes int
	broken    bool
}

func (l *login) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.URL.Path {
	case "/api/v1/auth/login":
		l.start(w, "1")
	case "/api/v1/auth/refresh":
		ck, err := r.Cookie("rt")
		if l.broken || err != nil || ck.Value != l.refresh || r.Header.Get("Authorization") != "" {
			answer(w, http.StatusUnauthorized, apiv1.Problem{Detail: "log in"})
			return
		}
		l.refreshes++
		l.start(w, "2")
	case "/api/v1/auth/logout":
		w.WriteHeader(http.StatusNoContent)
	default:
		if _, err := r.Cookie("rt"); err == nil && !strings.HasPrefix(r.URL.Path, "/api/v1/auth/") {
			answer(w, http.StatusTeapot, apiv1.Problem{Detail: "the refresh token was sent to the wrong path"})
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+l.access {
			answer(w, http.StatusUnauthorized, apiv1.Problem{Detail: "expired"})
			return
		}
		answer(w, http.StatusOK, apiv1.User{Name: "ann"})
	}
}

func (l *login) start(w http.ResponseWriter, n string) {
	l.access, l.refresh = "a"+n, "r"+n
	http.SetCookie(w, &http.Cookie{Name: "rt", Value: l.refresh, Path: "/api/v1/auth", HttpOnly: true, MaxAge: 3600})
	answer(w, http.StatusOK, apiv1.Session{
		AccessToken: l.access, ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), User: apiv1.User{Name: "ann"},
	})
}

func TestSessionLives(t *testing.T) {
	t.Parallel()
	h := &login{}
	var stored client.Session
	c := newClient(t, h.ServeHTTP, func(cfg *client.Config) {
		cfg.Token = nil
		cfg.OnSession = func(s client.Session) error { stored = s; return nil }
	})
	if _, err := c.Me(t.Context()); client.StatusOf(err) != http.StatusUnauthorized {
		t.Fatalf("before login: %v", err)
	}
	if _, err := c.Login(t.Context(), "ann", "secret"); err != nil {
		t.Fatal(err)
	}
	want := client.Session{AccessToken: "a1", RefreshToken: "r1", User: "ann", ExpiresAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	if stored != want {
		t.Errorf("stored %+v, want %+v", stored, want)
	}
	if me, err := c.Me(t.Context()); err != nil || me.Name != "ann" {
		t.Fatal(me, err)
	}
	if _, err := c.Users(t.Context(), client.Page{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Refresh(t.Context()); err != nil || stored.AccessToken != "a2" || stored.RefreshToken != "r2" {
		t.Fatal(stored, err)
	}
	if err := c.Logout(t.Context()); err != nil || stored != (client.Session{}) {
		t.Errorf("after logout %+v, %v", stored, err)
	}
	if _, err := c.Refresh(t.Context()); client.StatusOf(err) != http.StatusUnauthorized {
		t.Errorf("refresh after logout: %v", err)
	}
}

// TestStoredSessionRefreshes: many requests meet an expired access token at once; one of them refreshes.
func TestStoredSessionRefreshes(t *testing.T) {
	t.Parallel()
	h := &login{access: "new", refresh: "r1"}
	c := newClient(t, h.ServeHTTP, func(cfg *client.Config) {
		cfg.Session = &client.Session{AccessToken: "old", RefreshToken: "r1"}
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Me(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if h.refreshes != 1 {
		t.Errorf("refreshed %d times", h.refreshes)
	}
}

func TestRefreshFails(t *testing.T) {
	t.Parallel()
	h := &login{access: "new", broken: true}
	c := newClient(t, h.ServeHTTP, func(cfg *client.Config) {
		cfg.Session = &client.Session{AccessToken: "old", RefreshToken: "r1"}
	})
	if _, err := c.Me(t.Context()); client.StatusOf(err) != http.StatusUnauthorized {
		t.Errorf("got %v", err)
	}
}

func TestSessionCannotBeStored(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	c := newClient(t, (&login{}).ServeHTTP, func(cfg *client.Config) {
		cfg.OnSession = func(client.Session) error { return full }
	})
	if _, err := c.Login(t.Context(), "ann", "secret"); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
}
