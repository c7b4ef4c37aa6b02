package auth_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
	"github.com/certferry/certferry/hub/internal/database"
)

const (
	password = "a ferry crosses the water"
	address  = "192.0.2.7"
)

var (
	start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	// cheap makes tests fast; what New takes by default is tested by itself.
	cheap = &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32}
	key   = bytes.Repeat([]byte{7}, 32)
)

// world is authentication over a real database, with a clock that stands still until it is turned.
type world struct {
	*auth.Auth
	t     *testing.T
	db    *database.DB
	store *faulty

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: start}
	var err error
	w.db, err = database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), w.clock)
	w.must(err)
	t.Cleanup(func() { _ = w.db.Close() })
	w.store = &faulty{Store: w.db}
	w.Auth, err = auth.New(auth.Config{Store: w.store, SigningKey: key, Now: w.clock, Argon2: cheap})
	w.must(err)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// fails checks the class of an error, and that it can be shown to the caller.
func (w *world) fails(err, class error) {
	w.t.Helper()
	_ = w.shown(err, class)
}

// shown is fails for who looks at what is shown.
func (w *world) shown(err, class error) *hub.Error {
	w.t.Helper()
	var shown *hub.Error
	if !errors.Is(err, class) || !errors.As(err, &shown) {
		w.t.Fatalf("got error %v, want one to show of class %v", err, class)
	}
	return shown
}

// person makes an account and logs it in.
func (w *world) person(name string, role apiv1.Role) auth.Login {
	w.t.Helper()
	_, err := w.CreateUser(w.t.Context(), hub.Principal{Kind: hub.Person, Name: "root"}, name, password, role)
	w.must(err)
	return w.login(name)
}

func (w *world) login(name string) auth.Login {
	w.t.Helper()
	l, err := w.Login(w.t.Context(), name, password, address)
	w.must(err)
	return l
}

// live says whether an access token is good now.
func (w *world) live(access string) bool {
	w.t.Helper()
	_, err := w.Authenticate(w.t.Context(), access)
	if err != nil {
		w.fails(err, hub.ErrUnauthenticated)
	}
	return err == nil
}

// denied lists what the audit history says of denied attempts, newest first.
func (w *world) denied() []hub.AuditEvent {
	w.t.Helper()
	events, err := w.db.AuditEvents(w.t.Context(), 0, 1000)
	w.must(err)
	var denied []hub.AuditEvent
	for _, e := range events {
		if e.Outcome == hub.OutcomeDenied {
			denied = append(denied, e)
		}
	}
	return denied
}

var errBroken = errors.New("the disk is broken")

// faulty is a store one of whose methods can be made to fail.
type faulty struct {
	auth.Store
	mu     sync.Mutex
	broken string
}

// breakDown makes the method fail from now on; "" mends all.
func (f *faulty) breakDown(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = method
}

func (f *faulty) err(method string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == method {
		return errBroken
	}
	return nil
}

func (f *faulty) ServerByCredential(ctx context.Context, hash string) (hub.Server, error) {
	if err := f.err("ServerByCredential"); err != nil {
		return hub.Server{}, err
	}
	return f.Store.ServerByCredential(ctx, hash)
}

func (f *faulty) Audit(ctx context.Context, event hub.AuditEvent) error {
	if err := f.err("Audit"); err != nil {
		return err
	}
	return f.Store.Audit(ctx, event)
}

func (f *faulty) User(ctx context.Context, name string) (hub.User, error) {
	if err := f.err("User"); err != nil {
		return hub.User{}, err
	}
	return f.Store.User(ctx, name)
}

func (f *faulty) HasAdmin(ctx context.Context) (bool, error) {
	if err := f.err("HasAdmin"); err != nil {
		return false, err
	}
	return f.Store.HasAdmin(ctx)
}

func (f *faulty) InsertSession(ctx context.Context, s hub.Session, event hub.AuditEvent) error {
	if err := f.err("InsertSession"); err != nil {
		return err
	}
	return f.Store.InsertSession(ctx, s, event)
}

func (f *faulty) Session(ctx context.Context, id string) (hub.Session, error) {
	if err := f.err("Session"); err != nil {
		return hub.Session{}, err
	}
	return f.Store.Session(ctx, id)
}

func (f *faulty) SessionByRefresh(ctx context.Context, hash string) (hub.Session, error) {
	if err := f.err("SessionByRefresh"); err != nil {
		return hub.Session{}, err
	}
	return f.Store.SessionByRefresh(ctx, hash)
}

func (f *faulty) RotateSession(ctx context.Context, id, oldHash, newHash string, at time.Time) (bool, error) {
	if err := f.err("RotateSession"); err != nil {
		return false, err
	}
	return f.Store.RotateSession(ctx, id, oldHash, newHash, at)
}

func (f *faulty) Setting(ctx context.Context, name string) (string, error) {
	if err := f.err("Setting"); err != nil {
		return "", err
	}
	return f.Store.Setting(ctx, name)
}

// altered is a store that shows accounts and servers otherwise than they are kept.
type altered struct {
	auth.Store
	user   func(*hub.User)
	server hub.ServerState
}

func (a *altered) User(ctx context.Context, name string) (hub.User, error) {
	u, err := a.Store.User(ctx, name)
	if a.user != nil {
		a.user(&u)
	}
	return u, err
}

func (a *altered) ServerByCredential(ctx context.Context, hash string) (hub.Server, error) {
	s, err := a.Store.ServerByCredential(ctx, hash)
	s.State = a.server
	return s, err
}
