package database_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
)

// TestOpenMakesFileForOwnerOnly holds that nobody else reads the file or those beside it, and that it outlives Close.
func TestOpenMakesFileForOwnerOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", "c1")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(w.path + suffix)
		w.must(err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", filepath.Base(w.path+suffix), info.Mode())
		}
	}
	w.must(w.Ping(t.Context()))
	w.must(w.Close())
	if _, err := os.Stat(w.path + "-wal"); err == nil {
		t.Error("closing left the write-ahead log: what was written is not in the one file")
	}
	w.must(os.Chmod(w.path, 0o644))
	w.open()
	if info, err := os.Stat(w.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("opening left the mode: %v, %v", info.Mode(), err)
	}
	if _, err := w.Server(t.Context(), "web-1"); err != nil {
		t.Errorf("the row did not outlive the process: %v", err)
	}
}

// TestOpenOddPaths holds that no character of a path is taken for an option.
func TestOpenOddPaths(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain.db", "with space.db", "a?mode=memory.db", "100%25.db", "hash#tag.db", "ü.db", "a:b.db"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			db, err := database.Open(t.Context(), filepath.Join(dir, name), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != name {
				t.Errorf("the folder holds %v, %v", entries, err)
			}
		})
	}
}

// TestOpenRefuses holds what Open says of files it must not touch.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	newer := newWorld(t)
	newer.must(newer.Close())
	newer.must(newer.exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)"))
	garbage := filepath.Join(t.TempDir(), "hub.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database. ", 512)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"a newer schema", newer.path, "newer certferry-hub"},
		{"another kind of file", garbage, "not a database"},
		{"a folder that is absent", filepath.Join(t.TempDir(), "absent", "hub.db"), "no such file"},
		{"a folder", t.TempDir(), "is a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			db, err := database.Open(t.Context(), c.path, time.Now)
			if err == nil {
				_ = db.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
		})
	}
}

// TestPlans holds that pages and look-ups go by an index: neither a walk over all rows nor a sort.
func TestPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, query := range []string{
		`SELECT * FROM servers WHERE name > 'a' ORDER BY name LIMIT 50`,
		`SELECT * FROM servers WHERE credential_hash = 'a' LIMIT 1`,
		`SELECT * FROM observations WHERE server = 'a' ORDER BY certificate, server, target`,
		`SELECT * FROM observations WHERE certificate = 'a' ORDER BY certificate, server, target`,
		`SELECT * FROM users WHERE name > 'a' ORDER BY name LIMIT 50`,
		`SELECT * FROM sessions WHERE refresh_hash = 'a' OR id = (SELECT session_id FROM retired_tokens WHERE hash = 'a') LIMIT 1`,
		`SELECT * FROM jobs WHERE certificate = 'a' AND kind = 'issue' AND state IN ('queued', 'running', 'waiting') LIMIT 1`,
		`SELECT * FROM jobs WHERE certificate = 'a' AND kind = 'issue' ORDER BY id DESC LIMIT 1`,
		`SELECT * FROM jobs WHERE id < 'a' ORDER BY id DESC LIMIT 50`,
		`SELECT * FROM audit WHERE seq < 10 ORDER BY seq DESC LIMIT 50`,
		`DELETE FROM sessions WHERE user_name = 'a'`,
	} {
		plan := strings.Join(w.strings("EXPLAIN QUERY PLAN "+query), "; ")
		if strings.Contains(plan, "SCAN") || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("%s\n\tis done by %s", query, plan)
		}
	}
}

// TestCancelled holds that callers who go away at any moment leave the one writing connection usable.
func TestCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
			defer cancel()
			_, _, _ = w.EnqueueJob(ctx, hub.Job{Certificate: "example.com"})
			_ = w.Audit(ctx, event("act", "object"))
		})
	}
	wg.Wait()
	w.must(w.Audit(t.Context(), event("last", "object")))
	w.must(w.VerifyAudit(t.Context()))
}

// TestReadersDoNotWrite holds that reading goes on while somebody else holds the file's write lock.
func TestReadersDoNotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", "c1")
	held, free := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- holdWriteLock(w, held, free) }()
	<-held
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := w.Server(ctx, "web-1"); err != nil {
		t.Errorf("read beside a writer: %v", err)
	}
	close(free)
	w.must(<-done)
	w.must(w.Audit(t.Context(), event("act", "object")))
}

// operations are all methods that take a context, called in a way that succeeds on a database with some rows.
func operations(ctx context.Context, w *world) map[string]func() error {
	observed := []hub.Observation{{Certificate: "example.com", Target: "files", State: apiv1.DeploymentDeployed}}
	return map[string]func() error{
		"Ping": func() error { return w.Ping(ctx) },
		"InsertJoinToken": func() error {
			return w.InsertJoinToken(ctx, hub.JoinToken{Hash: "t9", Server: "web-9"}, event("a", "b"))
		},
		"JoinToken":               func() error { _, err := w.JoinToken(ctx, "spare"); return err },
		"InsertServer":            func() error { return w.InsertServer(ctx, server("web-2", "c2"), "spare", event("a", "b")) },
		"Server":                  func() error { _, err := w.Server(ctx, "web-1"); return err },
		"ServerByCredential":      func() error { _, err := w.ServerByCredential(ctx, "c1"); return err },
		"Servers":                 func() error { _, err := w.Servers(ctx, "", 10); return err },
		"ApproveServer":           func() error { return w.ApproveServer(ctx, "web-1", "FP-c1", event("a", "b")) },
		"RecordHeartbeat":         func() error { return w.RecordHeartbeat(ctx, hub.Server{Name: "web-1", LastSeenAt: start}) },
		"RecordReport":            func() error { _, err := w.RecordReport(ctx, "web-1", "r9", observed); return err },
		"ServerObservations":      func() error { _, err := w.ServerObservations(ctx, "web-1"); return err },
		"CertificateObservations": func() error { _, err := w.CertificateObservations(ctx, "example.com"); return err },
		"InsertUser":              func() error { return w.InsertUser(ctx, user("bob", apiv1.RoleViewer), event("a", "b")) },
		"InsertFirstAdmin":        func() error { return w.InsertFirstAdmin(ctx, user("root", apiv1.RoleAdmin), "code", event("a", "b")) },
		"HasAdmin":                func() error { _, err := w.HasAdmin(ctx); return err },
		"User":                    func() error { _, err := w.User(ctx, "alice"); return err },
		"Users":                   func() error { _, err := w.Users(ctx, "", 10); return err },
		"UpdatePassword":          func() error { return w.UpdatePassword(ctx, "alice", "h", start, event("a", "b")) },
		"InsertSession":           func() error { return w.InsertSession(ctx, session("s9", "alice", "r9"), event("a", "b")) },
		"Session":                 func() error { _, err := w.Session(ctx, "s1"); return err },
		"SessionByRefresh":        func() error { _, err := w.SessionByRefresh(ctx, "r1"); return err },
		"RotateSession":           func() error { _, err := w.RotateSession(ctx, "s1", "r1", "r2", start); return err },
		"DeleteSession":           func() error { return w.DeleteSession(ctx, "s1", event("a", "b")) },
		"Setting":                 func() error { _, err := w.Setting(ctx, "code"); return err },
		"SetSetting":              func() error { return w.SetSetting(ctx, "code", "v") },
		"EnqueueJob":              func() error { _, _, err := w.EnqueueJob(ctx, hub.Job{Certificate: "b"}); return err },
		"HurryJob":                func() error { return w.HurryJob(ctx, "any", time.Time{}, "alice", "r") },
		"ClaimJob":                func() error { _, _, err := w.ClaimJob(ctx, nil); return err },
		"PruneJobs":               func() error { _, err := w.PruneJobs(ctx, start); return err },
		"RunningJobs":             func() error { _, err := w.RunningJobs(ctx); return err },
		"Jobs":                    func() error { _, err := w.Jobs(ctx, "", "", 10); return err },
		"LatestJob":               func() error { _, err := w.LatestJob(ctx, "example.com"); return err },
		"CountJobs":               func() error { _, err := w.CountJobs(ctx); return err },
		"LatestOrders":            func() error { _, err := w.LatestOrders(ctx); return err },
		"Audit":                   func() error { return w.Audit(ctx, event("a", "b")) },
		"AuditEvents":             func() error { _, err := w.AuditEvents(ctx, 0, 10); return err },
		"AuditHead":               func() error { _, err := w.AuditHead(ctx); return err },
		"VerifyAudit":             func() error { return w.VerifyAudit(ctx) },
	}
}

// populated is a database with some rows of each kind, and the id of its one job.
func populated(t *testing.T) (*world, string) {
	t.Helper()
	w := newWorld(t)
	ctx := t.Context()
	w.enrol("web-1", "c1")
	w.token("spare", "web-2")
	w.must(w.InsertUser(ctx, user("alice", apiv1.RoleOperator), event("create-user", "alice")))
	w.must(w.InsertSession(ctx, session("s1", "alice", "r1"), event("login", "alice")))
	job, _, err := w.EnqueueJob(ctx, hub.Job{Certificate: "example.com"})
	w.must(err)
	return w, job.ID
}

// TestOperations calls each method once on a database with rows.
func TestOperations(t *testing.T) {
	t.Parallel()
	blank := &world{t: t, now: start}
	for name := range operations(t.Context(), blank) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := populated(t)
			w.must(operations(t.Context(), w)[name]())
		})
	}
}

// TestOperationsOfClosedDatabaseFail holds that no method takes a lost database for an empty one.
func TestOperationsOfClosedDatabaseFail(t *testing.T) {
	t.Parallel()
	w, job := populated(t)
	w.must(w.Close())
	ctx := t.Context()
	all := operations(ctx, w)
	all["Job"] = func() error { _, err := w.Job(ctx, job); return err }
	all["FinishJob"] = func() error { return w.FinishJob(ctx, job) }
	for name, call := range all {
		if err := call(); err == nil {
			t.Errorf("%s succeeds on a closed database", name)
		}
	}
}

// TestNoActWithoutAudit holds that an act whose audit row cannot be written does not happen.
func TestNoActWithoutAudit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ operation, table string }{
		{"InsertJoinToken", "join_tokens"},
		{"InsertServer", "servers"},
		{"ApproveServer", "servers"},
		{"InsertUser", "users"},
		{"InsertFirstAdmin", "users"},
		{"UpdatePassword", "users"},
		{"InsertSession", "sessions"},
		{"DeleteSession", "sessions"},
	} {
		t.Run(c.operation, func(t *testing.T) {
			t.Parallel()
			w, _ := populated(t)
			w.must(w.exec(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk is full'); END`))
			dump := "SELECT json_group_array(" + columnsOf(w, c.table) + ") FROM " + c.table
			before := w.strings(dump)
			err := operations(t.Context(), w)[c.operation]()
			if err == nil || !strings.Contains(err.Error(), "disk is full") {
				t.Errorf("got error %v", err)
			}
			if after := w.strings(dump); after[0] != before[0] {
				t.Errorf("before %s\nafter %s", before[0], after[0])
			}
			if token, err := w.JoinToken(t.Context(), "spare"); err != nil || !token.UsedAt.IsZero() {
				t.Errorf("the token is used up: %+v, %v", token, err)
			}
		})
	}
}

func columnsOf(w *world, table string) string {
	return "json_array(" + strings.Join(w.strings("SELECT name FROM pragma_table_info('"+table+"')"), ", ") + ")"
}
