package database_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// world is a database in a temporary folder, with a clock that stands still until it is turned.
type world struct {
	*database.DB
	t    *testing.T
	path string

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "hub.db"), now: start}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	db, err := database.Open(w.t.Context(), w.path, w.clock)
	w.must(err)
	w.DB = db
	w.t.Cleanup(func() { _ = db.Close() })
}

// copy opens a copy of a closed database.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	data, err := os.ReadFile(w.path)
	w.must(err)
	c := &world{t: t, path: filepath.Join(t.TempDir(), "hub.db"), now: w.clock()}
	c.must(os.WriteFile(c.path, data, 0o600))
	c.open()
	return c
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

// fails checks the class of an error.
func (w *world) fails(err, class error) {
	w.t.Helper()
	if !errors.Is(err, class) {
		w.t.Fatalf("got error %v, want %v", err, class)
	}
}

// exec runs SQL past the package, as somebody with the file would.
func (w *world) exec(query string) error {
	raw, err := sql.Open("sqlite3", w.path)
	w.must(err)
	defer func() { _ = raw.Close() }()
	_, err = raw.ExecContext(w.t.Context(), query)
	return err
}

// strings runs a query past the package and returns its last column.
func (w *world) strings(query string) []string {
	w.t.Helper()
	raw, err := sql.Open("sqlite3", w.path)
	w.must(err)
	defer func() { _ = raw.Close() }()
	rows, err := raw.QueryContext(w.t.Context(), query)
	w.must(err)
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	w.must(err)
	var all []string
	for rows.Next() {
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		w.must(rows.Scan(values...))
		last, _ := values[len(values)-1].(*any)
		all = append(all, fmt.Sprint(*last))
	}
	w.must(rows.Err())
	return all
}

func event(action, object string) hub.AuditEvent {
	return hub.AuditEvent{Actor: "alice", Action: action, Object: object, Outcome: hub.OutcomeOK}
}

// token keeps a join token for the server.
func (w *world) token(hash, server string) {
	w.t.Helper()
	w.must(w.InsertJoinToken(w.t.Context(), hub.JoinToken{
		Hash: hash, Server: server, CreatedBy: "alice", CreatedAt: w.clock(), ExpiresAt: w.clock().Add(30 * time.Minute),
	}, event("create-join-token", server)))
}

func server(name, credential string) hub.Server {
	return hub.Server{
		Name: name, State: hub.ServerPending, Fingerprint: "FP-" + credential, PublicKey: "key " + credential,
		CredentialHash: credential, Facts: apiv1.Facts{Hostname: name + ".example.com", OS: "debian"}, CreatedAt: start,
	}
}

// enrol makes a server with the credential.
func (w *world) enrol(name, credential string) {
	w.t.Helper()
	w.token("token-"+credential, name)
	w.must(w.InsertServer(w.t.Context(), server(name, credential), "token-"+credential, event("register-server", name)))
}

func user(name string, role apiv1.Role) hub.User {
	return hub.User{Name: name, Role: role, PasswordHash: "hash of " + name, CreatedAt: start, SessionsFrom: start}
}

func session(id, name, refresh string) hub.Session {
	return hub.Session{
		ID: id, User: name, RefreshHash: refresh, RotatedAt: start, CreatedAt: start, ExpiresAt: start.Add(12 * time.Hour),
	}
}

func (w *world) auditLength() int {
	w.t.Helper()
	events, err := w.AuditEvents(context.WithoutCancel(w.t.Context()), 0, 1_000_000)
	w.must(err)
	return len(events)
}

// holdWriteLock holds the database's write lock by a connection of its own until free is closed.
func holdWriteLock(w *world, held chan<- struct{}, free <-chan struct{}) error {
	raw, err := sql.Open("sqlite3", "file:"+w.path+"?_txlock=immediate")
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	tx, err := raw.BeginTx(w.t.Context(), nil)
	close(held)
	if err != nil {
		return err
	}
	<-free
	return tx.Rollback()
}
