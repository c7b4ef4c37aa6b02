package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// TestPasswords holds which passwords an account takes.
func TestPasswords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ password, fault string }{
		{"twelve chars", ""},
		{"a ferry crosses the water", ""},
		{"十二个汉字的口令也是可以", ""},
		{strings.Repeat("abcdefgh", 32), ""},
		{"certferry-operates-here", ""},
		{"margarets-own-words", ""},
		{"", "at least 12"},
		{"eleven char", "at least 12"},
		{"十一个汉字的口令是不行", "at least 12"},
		{strings.Repeat("abcdefgh", 32) + "i", "at most 256"},
		{"aaaaaaaaaaaaaaaa", "same few characters"},
		{"abababababababab", "same few characters"},
		{"margaret-operates", ""},
		{"margaret12345", "account's name"},
		{"MargaretMargaret", "account's name"},
		{"margaret.margaret!", "account's name"},
		{"password12345", "tries first"},
		{"Password!2024", "tries first"},
		{"passwordpassword", "tries first"},
		{"correcthorsebatterystaple", "tries first"},
		{"123456789012", "tries first"},
		{"qwertyuiopasdf", "tries first"},
		{"certferry2026!", "tries first"},
		{"valid until a NUL\x00 comes", "must be text"},
		{"not text at all \xff\xfe", "must be text"},
	} {
		err := w.SetPassword(t.Context(), hub.Principal{Name: "root"}, "margaret", c.password)
		if c.fault == "" { // the rules are kept to; there is no such account
			if !errors.Is(err, hub.ErrNotFound) {
				t.Errorf("%q: %v", c.password, err)
			}
			continue
		}
		shown := w.shown(err, hub.ErrInvalid)
		if len(shown.Faults) != 1 || shown.Faults[0].Location != "body.password" || !strings.Contains(shown.Faults[0].Message, c.fault) {
			t.Errorf("%q: got %+v, want %q", c.password, shown.Faults, c.fault)
		}
		if text := fmt.Sprintf("%+v", *shown); c.password != "" && strings.Contains(text, c.password) {
			t.Errorf("%q: the error repeats it", c.password)
		}
	}
}

// TestCreateUser holds what an account may be, and that its making is recorded.
func TestCreateUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := hub.Principal{Kind: hub.Person, Name: "root"}
	for _, c := range []struct {
		name, password string
		role           apiv1.Role
		location       string
	}{
		{"", password, apiv1.RoleViewer, "body.name"},
		{"Alice", password, apiv1.RoleViewer, "body.name"},
		{"../alice", password, apiv1.RoleViewer, "body.name"},
		{"-alice", password, apiv1.RoleViewer, "body.name"},
		{"ali\nce", password, apiv1.RoleViewer, "body.name"},
		{"alice\n", password, apiv1.RoleViewer, "body.name"},
		{strings.Repeat("a", 65), password, apiv1.RoleViewer, "body.name"},
		{"alice", "short", apiv1.RoleViewer, "body.password"},
		{"alice", password, "", "body.role"},
		{"alice", password, "root", "body.role"},
	} {
		_, err := w.CreateUser(t.Context(), root, c.name, c.password, c.role)
		shown := w.shown(err, hub.ErrInvalid)
		if len(shown.Faults) != 1 || shown.Faults[0].Location != c.location {
			t.Errorf("%q: got %+v, want a fault at %s", c.name, shown.Faults, c.location)
		}
	}
	u, err := w.CreateUser(t.Context(), root, "alice", password, apiv1.RoleOperator)
	w.must(err)
	if u.Name != "alice" || u.Role != apiv1.RoleOperator || !strings.HasPrefix(u.PasswordHash, "$argon2id$") {
		t.Errorf("got %+v", u)
	}
	_, err = w.CreateUser(t.Context(), root, "alice", password, apiv1.RoleViewer)
	w.fails(err, hub.ErrConflict)
	w.must(w.SetPassword(t.Context(), root, "alice", "another ferry, another river"))
	events, err := w.db.AuditEvents(t.Context(), 0, 10)
	w.must(err)
	if len(events) != 2 || events[1].Action != "create-user" || events[0].Action != "set-password" ||
		events[0].Actor != "root" || events[0].Object != "alice" {
		t.Errorf("recorded %+v", events)
	}
}

// TestDefaultHash holds the strength of the hashes that New makes when nothing else is asked for.
func TestDefaultHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, err := auth.New(auth.Config{Store: w.db, SigningKey: key, Now: w.clock})
	w.must(err)
	u, err := a.CreateUser(t.Context(), hub.Principal{Name: "root"}, "alice", password, apiv1.RoleViewer)
	w.must(err)
	if !strings.HasPrefix(u.PasswordHash, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Errorf("got %s", u.PasswordHash)
	}
	if _, err := a.Login(t.Context(), "alice", password, address); err != nil {
		t.Error(err)
	}
}

// TestSetup walks a new hub to its first administrator.
func TestSetup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.Setup(ctx, "", "admin", password)
	w.fails(err, hub.ErrUnauthenticated) // before there is a code, the empty one is not it
	old, needed, err := w.EnsureSetupCode(ctx)
	if err != nil || !needed || !strings.HasPrefix(old, "cfs_") || len(old) != 47 {
		t.Fatalf("got %q, %t, %v", old, needed, err)
	}
	code, _, err := w.EnsureSetupCode(ctx)
	w.must(err)
	for _, wrong := range []string{"", old, auth.HashToken(code), code[:46]} {
		w.pass(10 * time.Minute)
		_, err := w.Setup(ctx, wrong, "admin", password)
		w.fails(err, hub.ErrUnauthenticated)
	}
	_, err = w.Setup(ctx, code, "admin", "too short")
	w.fails(err, hub.ErrInvalid)
	_, err = w.Setup(ctx, code, "not a name", password)
	w.fails(err, hub.ErrInvalid)
	if needed, err := w.SetupNeeded(ctx); err != nil || !needed {
		t.Fatalf("needed %t, %v", needed, err)
	}
	l, err := w.Setup(ctx, " "+code+"\n", "admin", password)
	w.must(err)
	p, err := w.Authenticate(ctx, l.Access)
	if err != nil || p.Name != "admin" || p.Role != apiv1.RoleAdmin {
		t.Errorf("got %+v, %v", p, err)
	}
	_, err = w.Setup(ctx, code, "second", password)
	w.fails(err, hub.ErrUnauthenticated)
	if code, needed, err := w.EnsureSetupCode(ctx); err != nil || needed || code != "" {
		t.Errorf("after setup: %q, %t, %v", code, needed, err)
	}
	if len(w.denied()) != 6 {
		t.Errorf("recorded %+v", w.denied())
	}
}

// TestSetupAtOnce holds that one code makes one administrator.
func TestSetupAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, _, err := w.EnsureSetupCode(t.Context())
	w.must(err)
	var won atomic.Int32
	var wg sync.WaitGroup
	for _, name := range []string{"anna", "bert", "cleo", "dora"} {
		wg.Go(func() {
			if _, err := w.Setup(t.Context(), code, name, password); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d administrators", won.Load())
	}
}

// TestSetupThrottle holds that strangers neither fill the audit history nor keep the administrator out.
func TestSetupThrottle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, _, err := w.EnsureSetupCode(t.Context())
	w.must(err)
	for range 5 {
		_, err := w.Setup(t.Context(), "wrong", "admin", password)
		w.fails(err, hub.ErrUnauthenticated)
	}
	_, err = w.Setup(t.Context(), "wrong", "admin", password)
	w.fails(err, hub.ErrThrottled)
	if n := len(w.denied()); n != 5 {
		t.Errorf("%d denied attempts recorded", n)
	}
	if _, err := w.Setup(t.Context(), code, "admin", password); err != nil {
		t.Errorf("the right code: %v", err)
	}
}

// TestSetupAfterAnotherWay holds that a code ends when an administrator was made otherwise.
func TestSetupAfterAnotherWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, _, err := w.EnsureSetupCode(t.Context())
	w.must(err)
	w.person("admin", apiv1.RoleAdmin)
	_, err = w.Setup(t.Context(), code, "second", password)
	w.fails(err, hub.ErrConflict)
}

// TestNothingSecretIsRecorded searches the audit history for what must not be in it.
func TestNothingSecretIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	code, _, err := w.EnsureSetupCode(ctx)
	w.must(err)
	l, err := w.Setup(ctx, code, "admin", password)
	w.must(err)
	_, _ = w.Setup(ctx, code, "admin", password)
	_, _ = w.Login(ctx, "admin", password+"x", address)
	_, _ = w.Login(ctx, password, "admin", address)
	next, err := w.Refresh(ctx, l.Refresh)
	w.must(err)
	w.pass(time.Minute)
	_, err = w.Refresh(ctx, l.Refresh)
	w.fails(err, hub.ErrUnauthenticated)
	events, err := w.db.AuditEvents(ctx, 0, 100)
	w.must(err)
	text := fmt.Sprintf("%+v", events)
	for _, secret := range []string{code, password, l.Access, l.Refresh, next.Refresh, auth.HashToken(code), auth.HashToken(l.Refresh)} {
		if strings.Contains(text, secret) {
			t.Errorf("%.8s… is in %s", secret, text)
		}
	}
}
