package auth_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// guess fails to log in n times.
func (w *world) guess(n int, name, from string) {
	w.t.Helper()
	for range n {
		_, err := w.Login(w.t.Context(), name, "wrong", from)
		w.fails(err, hub.ErrUnauthenticated)
	}
}

// throttled holds that even the right password has to wait, and returns how long.
func (w *world) throttled(name, from string) time.Duration {
	w.t.Helper()
	_, err := w.Login(w.t.Context(), name, password, from)
	return w.shown(err, hub.ErrThrottled).RetryAfter
}

// TestThrottleByAccount holds that an account is guarded from all addresses together, for a while only.
func TestThrottleByAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("alice", apiv1.RoleViewer)
	w.person("bob", apiv1.RoleViewer)
	for i := range 5 {
		w.guess(1, "alice", fmt.Sprintf("198.51.100.%d", i))
		w.pass(time.Minute)
	}
	// The first failure was five minutes ago.
	w.guess(1, "alice", "198.51.100.9")
	wait := w.throttled("alice", address)
	if wait < time.Minute || wait > time.Minute+2*time.Second {
		t.Errorf("try again in %v", wait)
	}
	if n := len(w.denied()); n != 6 {
		t.Errorf("%d denied attempts recorded: throttled ones are not checked at all", n)
	}
	w.login("bob")
	w.pass(wait)
	w.login("alice")
	w.guess(4, "alice", "198.51.100.10") // success forgave what was before
	w.login("alice")
}

// TestThrottleByAddress holds that an address cannot go through the accounts.
func TestThrottleByAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		from  func(i int) string
		same  string
		other string
	}{
		{"IPv4", func(int) string { return "203.0.113.5" }, "203.0.113.5", "203.0.113.6"},
		{"IPv4 in IPv6", func(int) string { return "::ffff:203.0.113.5" }, "203.0.113.5", "::ffff:203.0.113.6"},
		{"IPv6 network", func(i int) string { return fmt.Sprintf("2001:db8::%d", i) }, "2001:db8::ffff:1", "2001:db8:0:1::1"},
		{"unknown", func(int) string { return "" }, "", "203.0.113.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.person("alice", apiv1.RoleViewer)
			for i := range 5 {
				w.guess(1, fmt.Sprintf("account-%d", i), c.from(i))
			}
			w.throttled("alice", c.same)
			if _, err := w.Login(t.Context(), "alice", password, c.other); err != nil {
				t.Errorf("another address is throttled too: %v", err)
			}
			w.pass(5 * time.Minute)
			if _, err := w.Login(t.Context(), "alice", password, c.same); err != nil {
				t.Errorf("after the wait: %v", err)
			}
		})
	}
}

// TestOwnAccountDoesNotForgiveAddress holds that somebody with an account cannot use it to go on guessing.
func TestOwnAccountDoesNotForgiveAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("mallory", apiv1.RoleViewer)
	w.guess(4, "alice", address)
	w.login("mallory")
	w.guess(1, "bob", address)
	w.throttled("mallory", address)
}

// TestThrottleAtOnce holds that guesses sent all together are not all checked before the first has failed.
func TestThrottleAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("alice", apiv1.RoleViewer)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := w.Login(t.Context(), "alice", "wrong", fmt.Sprintf("198.51.100.%d", i))
			if err == nil {
				t.Error("a wrong password logs in")
			}
		})
	}
	wg.Wait()
	if n := len(w.denied()); n != 5 {
		t.Errorf("%d of 50 guesses were checked", n)
	}
}

// TestLoginsAtOnce holds that people who are right only wait for each other.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("alice", apiv1.RoleViewer)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := w.Login(t.Context(), "alice", password, address); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestLoginCancelled holds that who goes away is counted neither as a failure nor as under way for ever.
func TestLoginCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("alice", apiv1.RoleViewer)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		if _, err := w.Login(ctx, "alice", password, address); err == nil {
			t.Error("logged in")
		}
	}
	w.login("alice")
}
