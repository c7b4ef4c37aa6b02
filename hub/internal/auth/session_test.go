package auth_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// TestLogin holds what a login gives, and that its end ends all of it.
func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	l := w.person("alice", apiv1.RoleOperator)
	if !strings.HasPrefix(l.Refresh, "cfr_") || len(l.Refresh) != 47 || !l.ExpiresAt.Equal(start.Add(time.Hour)) ||
		!l.RefreshExpiresAt.Equal(start.Add(12*time.Hour)) || l.User.Name != "alice" {
		t.Errorf("got %+v", l)
	}
	p, err := w.Authenticate(ctx, l.Access)
	w.must(err)
	if p.Kind != hub.Person || p.Name != "alice" || p.Role != apiv1.RoleOperator || p.SessionID == "" {
		t.Errorf("got %+v", p)
	}
	other := w.login("alice")
	w.must(w.Logout(ctx, p.SessionID))
	if w.live(l.Access) || !w.live(other.Access) {
		t.Error("logging out ended the wrong session, or none")
	}
	_, err = w.Refresh(ctx, l.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
	w.must(w.Logout(ctx, p.SessionID)) // twice is once
}

// TestLoginRefused holds that a refusal does not tell what was wrong, and that what was typed is not recorded.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.person("alice", apiv1.RoleViewer)
	gone := hub.User{Name: "gone", Role: apiv1.RoleViewer, Disabled: true}
	alice, err := w.db.User(ctx, "alice")
	w.must(err)
	gone.PasswordHash = alice.PasswordHash
	w.must(w.db.InsertUser(ctx, gone, hub.AuditEvent{Action: "create-user"}))
	messages := map[string]bool{}
	for i, c := range []struct{ name, password, actor string }{
		{"alice", password + "!", "alice"},
		{"alice", "", "alice"},
		{"alice", strings.Repeat("x", 100_000), "alice"},
		{"nobody", password, "anonymous"},
		{"", "", "anonymous"},
		{"Alice", password, "anonymous"},
		{"al\x00ice", password, "anonymous"},
		{"my secret typed in the wrong field", "alice", "anonymous"},
		{"gone", password, "gone"},
	} {
		w.pass(10 * time.Minute)
		_, err := w.Login(ctx, c.name, c.password, address)
		messages[w.shown(err, hub.ErrUnauthenticated).Message] = true
		denied := w.denied()
		if len(denied) != i+1 || denied[0].Actor != c.actor || denied[0].Address != address || denied[0].Action != "login" {
			t.Errorf("%q: recorded %+v", c.name, denied)
		}
	}
	if len(messages) != 1 {
		t.Errorf("the messages tell accounts apart: %v", messages)
	}
}

// TestAccessEnds holds each way in which a good access token ends.
func TestAccessEnds(t *testing.T) {
	t.Parallel()
	t.Run("by time", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		l := w.person("alice", apiv1.RoleViewer)
		w.pass(time.Hour - time.Second)
		if !w.live(l.Access) {
			t.Error("ended before its hour")
		}
		w.pass(time.Minute)
		if w.live(l.Access) {
			t.Error("lives after its hour")
		}
	})
	t.Run("with its session's last hour", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		l := w.person("alice", apiv1.RoleViewer)
		w.pass(11*time.Hour + 50*time.Minute)
		l, err := w.Refresh(t.Context(), l.Refresh)
		w.must(err)
		if !l.ExpiresAt.Equal(start.Add(12 * time.Hour)) {
			t.Errorf("expires at %v, after its session", l.ExpiresAt)
		}
		if !w.live(l.Access) {
			t.Error("ended before its session")
		}
		w.pass(10 * time.Minute)
		if w.live(l.Access) {
			t.Error("lives after its session")
		}
		_, err = w.Refresh(t.Context(), l.Refresh)
		w.fails(err, hub.ErrUnauthenticated)
	})
	t.Run("by a new password", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		l := w.person("alice", apiv1.RoleViewer)
		w.must(w.SetPassword(t.Context(), hub.Principal{Name: "alice"}, "alice", "another ferry, another river"))
		if w.live(l.Access) {
			t.Error("lives")
		}
		_, err := w.Refresh(t.Context(), l.Refresh)
		w.fails(err, hub.ErrUnauthenticated)
		_, err = w.Login(t.Context(), "alice", password, address)
		w.fails(err, hub.ErrUnauthenticated)
		again, err := w.Login(t.Context(), "alice", "another ferry, another river", address)
		w.must(err)
		if !w.live(again.Access) {
			t.Error("a login in the second of the change does not work")
		}
	})
	for name, change := range map[string]func(u *hub.User){
		"by disabling":         func(u *hub.User) { u.Disabled = true },
		"by ending all before": func(u *hub.User) { u.SessionsFrom = start.Add(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			l := w.person("alice", apiv1.RoleViewer)
			changed, err := auth.New(auth.Config{Store: &altered{Store: w.db, user: change}, SigningKey: key, Now: w.clock, Argon2: cheap})
			w.must(err)
			_, err = changed.Authenticate(t.Context(), l.Access)
			w.fails(err, hub.ErrUnauthenticated)
		})
	}
	t.Run("refresh by disabling", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		l := w.person("alice", apiv1.RoleViewer)
		changed, err := auth.New(auth.Config{
			Store: &altered{Store: w.db, user: func(u *hub.User) { u.Disabled = true }}, SigningKey: key, Now: w.clock, Argon2: cheap,
		})
		w.must(err)
		_, err = changed.Refresh(t.Context(), l.Refresh)
		w.fails(err, hub.ErrUnauthenticated)
	})
}

// TestRefresh walks a session through rotations, the grace and a theft.
func TestRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	first := w.person("alice", apiv1.RoleViewer)
	w.pass(30 * time.Minute)
	second, err := w.Refresh(ctx, first.Refresh)
	w.must(err)
	if second.Refresh == "" || second.Refresh == first.Refresh || !second.ExpiresAt.Equal(start.Add(90*time.Minute)) ||
		!second.RefreshExpiresAt.Equal(first.RefreshExpiresAt) || second.User.Name != "alice" {
		t.Errorf("got %+v", second)
	}
	w.pass(10 * time.Second)
	late, err := w.Refresh(ctx, first.Refresh)
	w.must(err)
	if late.Refresh != "" || !late.RefreshExpiresAt.IsZero() || !w.live(late.Access) {
		t.Errorf("in the grace: %+v", late)
	}
	w.pass(time.Millisecond)
	_, err = w.Refresh(ctx, first.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
	if w.live(second.Access) || w.live(late.Access) {
		t.Error("reuse after the grace did not end the session")
	}
	_, err = w.Refresh(ctx, second.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
	if denied := w.denied(); len(denied) != 1 || denied[0].Actor != "alice" || denied[0].Action != "refresh" {
		t.Errorf("recorded %+v", denied)
	}
}

// TestStolenRefreshToken holds that the owner's next use ends a thief's session, however often the thief rotated.
func TestStolenRefreshToken(t *testing.T) {
	t.Parallel()
	for _, rotations := range []int{1, 2, 5} {
		w := newWorld(t)
		owner := w.person("alice", apiv1.RoleViewer)
		thief := owner
		var err error
		for range rotations {
			w.pass(time.Second)
			thief, err = w.Refresh(t.Context(), thief.Refresh)
			w.must(err)
		}
		w.pass(time.Minute)
		_, err = w.Refresh(t.Context(), owner.Refresh)
		w.fails(err, hub.ErrUnauthenticated)
		if w.live(thief.Access) {
			t.Errorf("after %d rotations the thief is still in", rotations)
		}
		_, err = w.Refresh(t.Context(), thief.Refresh)
		w.fails(err, hub.ErrUnauthenticated)
	}
}

// TestGraceIsForTheLastTokenOnly holds that a token replaced two rotations ago is no tab that was late.
func TestGraceIsForTheLastTokenOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.person("alice", apiv1.RoleViewer)
	second, err := w.Refresh(t.Context(), first.Refresh)
	w.must(err)
	_, err = w.Refresh(t.Context(), second.Refresh)
	w.must(err)
	_, err = w.Refresh(t.Context(), first.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
	_, err = w.Refresh(t.Context(), second.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
}

// TestTabsRefreshAtOnce holds that five tabs of one browser all go on, with one new refresh token between them.
func TestTabsRefreshAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.person("alice", apiv1.RoleViewer)
	w.pass(time.Hour)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var next []string
	for range 5 {
		wg.Go(func() {
			got, err := w.Refresh(t.Context(), l.Refresh)
			mu.Lock()
			defer mu.Unlock()
			if err != nil || !w.live(got.Access) {
				t.Errorf("a tab was thrown out: %v", err)
			}
			if got.Refresh != "" {
				next = append(next, got.Refresh)
			}
		})
	}
	wg.Wait()
	if len(next) != 1 {
		t.Fatalf("%d new refresh tokens", len(next))
	}
	if _, err := w.Refresh(t.Context(), next[0]); err != nil {
		t.Error(err)
	}
}

// TestRefreshRefused holds that nothing but a refresh token refreshes.
func TestRefreshRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.person("alice", apiv1.RoleViewer)
	for _, token := range []string{"", "cfr_", l.Access, strings.ToUpper(l.Refresh), l.Refresh + "A", auth.HashToken(l.Refresh)} {
		_, err := w.Refresh(t.Context(), token)
		w.fails(err, hub.ErrUnauthenticated)
	}
	if _, err := w.Refresh(t.Context(), l.Refresh); err != nil {
		t.Errorf("the session suffered: %v", err)
	}
}
