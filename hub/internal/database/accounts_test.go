package database_test

import (
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// TestUsers holds that accounts are read as they were written, and their names are taken once.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	want := user("alice", apiv1.RoleOperator)
	want.Disabled = true
	w.must(w.InsertUser(ctx, want, event("create-user", "alice")))
	if got, err := w.User(ctx, "alice"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	w.fails(w.InsertUser(ctx, user("alice", apiv1.RoleViewer), event("create-user", "alice")), hub.ErrConflict)
	if err := w.InsertUser(ctx, user("bob", "owner"), event("create-user", "bob")); err == nil {
		t.Error("an unknown role was kept")
	}
	_, err := w.User(ctx, "bob")
	w.fails(err, hub.ErrNotFound)
	w.must(w.InsertUser(ctx, user("carol", apiv1.RoleViewer), event("create-user", "carol")))
	all, err := w.Users(ctx, "alice", 10)
	if err != nil || len(all) != 1 || all[0].Name != "carol" {
		t.Errorf("got %+v, %v", all, err)
	}
	if n := w.auditLength(); n != 2 {
		t.Errorf("%d audit rows", n)
	}
}

// TestOneFirstAdmin lets many make the first administrator at once.
func TestOneFirstAdmin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.must(w.SetSetting(ctx, "code", "hash"))
	w.must(w.InsertUser(ctx, user("viewer", apiv1.RoleViewer), event("create-user", "viewer")))
	w.fails(w.InsertFirstAdmin(ctx, user("viewer", apiv1.RoleAdmin), "code", event("setup", "viewer")), hub.ErrConflict)
	if has, err := w.HasAdmin(ctx); err != nil || has {
		t.Fatalf("has an administrator: %t, %v", has, err)
	}
	if code, err := w.Setting(ctx, "code"); err != nil || code != "hash" {
		t.Errorf("the code is gone: %q, %v", code, err)
	}
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if w.InsertFirstAdmin(ctx, user("admin"+strconv.Itoa(i), apiv1.RoleAdmin), "code", event("setup", "")) == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d first administrators", won.Load())
	}
	if code, err := w.Setting(ctx, "code"); err != nil || code != "" {
		t.Errorf("the code still stands: %q, %v", code, err)
	}
	if has, err := w.HasAdmin(ctx); err != nil || !has {
		t.Errorf("has an administrator: %t, %v", has, err)
	}
}

// TestSettings holds that a setting is what it was set to last.
func TestSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, value := range []string{"one", "two", "", "it's \u2028 odd"} {
		w.must(w.SetSetting(t.Context(), "name", value))
		if got, err := w.Setting(t.Context(), "name"); err != nil || got != value {
			t.Errorf("got %q, %v, want %q", got, err, value)
		}
	}
	if err := w.SetSetting(t.Context(), "name", "a\x00b"); err == nil {
		t.Error("a NUL was kept")
	}
}

// TestSessions walks a session through rotations to its end.
func TestSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.must(w.InsertUser(ctx, user("alice", apiv1.RoleAdmin), event("create-user", "alice")))
	if err := w.InsertSession(ctx, session("s0", "nobody", "r0"), event("login", "nobody")); err == nil {
		t.Error("a session without an account was kept")
	}
	want := session("s1", "alice", "r1")
	w.must(w.InsertSession(ctx, want, event("login", "alice")))
	w.must(w.InsertSession(ctx, session("s2", "alice", "other"), event("login", "alice")))
	if got, err := w.Session(ctx, "s1"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	rotate := func(from, to string, want bool) {
		t.Helper()
		w.pass(time.Minute)
		if rotated, err := w.RotateSession(ctx, "s1", from, to, w.clock()); err != nil || rotated != want {
			t.Errorf("from %s to %s: %t, %v", from, to, rotated, err)
		}
	}
	rotate("r1", "r2", true)
	rotate("r1", "rX", false)
	rotate("r2", "r3", true)
	want.RefreshHash, want.PreviousHash, want.RotatedAt = "r3", "r2", start.Add(3*time.Minute)
	for _, hash := range []string{"r1", "r2", "r3"} { // any token that was ever good leads to its session
		if got, err := w.SessionByRefresh(ctx, hash); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("by %s: got %+v, %v, want %+v", hash, got, err, want)
		}
	}
	for _, hash := range []string{"", "rX"} {
		_, err := w.SessionByRefresh(ctx, hash)
		w.fails(err, hub.ErrNotFound)
	}
	w.must(w.DeleteSession(ctx, "s1", event("logout", "alice")))
	for _, hash := range []string{"r1", "r2", "r3"} {
		_, err := w.SessionByRefresh(ctx, hash)
		w.fails(err, hub.ErrNotFound)
	}
	if left := w.strings("SELECT COUNT(*) FROM retired_tokens"); left[0] != "0" {
		t.Errorf("%s retired tokens of no session", left[0])
	}
	if _, err := w.SessionByRefresh(ctx, "other"); err != nil {
		t.Errorf("another session ended too: %v", err)
	}
}

// TestRotateSessionOnce lets many rotate one session at once.
func TestRotateSessionOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.must(w.InsertUser(ctx, user("alice", apiv1.RoleAdmin), event("create-user", "alice")))
	w.must(w.InsertSession(ctx, session("s1", "alice", "r1"), event("login", "alice")))
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if rotated, err := w.RotateSession(ctx, "s1", "r1", "next"+strconv.Itoa(i), start); err != nil {
				t.Error(err)
			} else if rotated {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 20 rotated", won.Load())
	}
}

// TestSessionsEnd holds that a new password ends sessions, and that expired ones are forgotten.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for _, name := range []string{"alice", "bob"} {
		w.must(w.InsertUser(ctx, user(name, apiv1.RoleAdmin), event("create-user", name)))
		w.must(w.InsertSession(ctx, session("of-"+name, name, "r-"+name), event("login", name)))
	}
	at := start.Add(time.Minute)
	w.must(w.UpdatePassword(ctx, "alice", "new hash", at, event("set-password", "alice")))
	_, err := w.Session(ctx, "of-alice")
	w.fails(err, hub.ErrNotFound)
	if got, err := w.User(ctx, "alice"); err != nil || got.PasswordHash != "new hash" || !got.SessionsFrom.Equal(at) {
		t.Errorf("got %+v, %v", got, err)
	}
	w.fails(w.UpdatePassword(ctx, "nobody", "h", at, event("set-password", "nobody")), hub.ErrNotFound)
	if _, err := w.Session(ctx, "of-bob"); err != nil {
		t.Errorf("another account's session ended: %v", err)
	}
	w.pass(12 * time.Hour)
	fresh := session("fresh", "alice", "r-fresh")
	fresh.ExpiresAt = w.clock().Add(time.Hour)
	w.must(w.InsertSession(ctx, fresh, event("login", "alice")))
	if left := w.strings("SELECT id FROM sessions"); len(left) != 1 || left[0] != "fresh" {
		t.Errorf("sessions left: %v", left)
	}
}
