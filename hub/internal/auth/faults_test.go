package auth_test

import (
	"errors"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// TestBrokenStore holds that a fault of the database is never taken for an answer: nobody gets in, nobody is told
// that a credential is wrong, and the caller sees no inner error shown as its own fault.
func TestBrokenStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	code, _, err := w.EnsureSetupCode(ctx)
	w.must(err)
	l := w.person("alice", apiv1.RoleViewer)
	p, err := w.Authenticate(ctx, l.Access)
	w.must(err)
	credential := w.enrol("web-1")
	login := func() error { _, err := w.Login(ctx, "alice", password, address); return err }
	refresh := func() error { _, err := w.Refresh(ctx, l.Refresh); return err }
	authenticate := func() error { _, err := w.Authenticate(ctx, l.Access); return err }
	for _, c := range []struct {
		method string
		call   func() error
	}{
		{"User", login},
		{"InsertSession", login},
		{"SessionByRefresh", refresh},
		{"User", refresh},
		{"RotateSession", refresh},
		{"User", authenticate},
		{"Session", authenticate},
		{"Session", func() error { return w.Logout(ctx, p.SessionID) }},
		{"ServerByCredential", func() error { _, err := w.Authenticate(ctx, credential); return err }},
		{"HasAdmin", func() error { _, _, err := w.EnsureSetupCode(ctx); return err }},
		{"Setting", func() error { _, err := w.Setup(ctx, code, "admin", password); return err }},
	} {
		w.store.breakDown(c.method)
		err := c.call()
		if !errors.Is(err, errBroken) || errors.Is(err, hub.ErrUnauthenticated) {
			t.Errorf("%s: got %v", c.method, err)
		}
	}
	w.store.breakDown("Audit")
	_, err = w.Login(ctx, "alice", "wrong", address)
	if !errors.Is(err, errBroken) {
		t.Errorf("a denied attempt was not recorded, and nobody knows: %v", err)
	}
	w.store.breakDown("")
	for name, call := range map[string]func() error{"login": login, "refresh": refresh, "authenticate": authenticate} {
		if err := call(); err != nil {
			t.Errorf("%s after the fault: %v", name, err)
		}
	}
}
