// Package database keeps what Git cannot say: which key a server enrolled with, what agents observed, users,
// sessions, jobs and the audit history. It is the only door to SQL.
//
// One connection writes, others read: SQLite takes one writer, and queueing for it here costs less than retrying.
// What a method promised is on disk when it returns (synchronous=FULL). Methods answer with the hub's types, with
// hub.ErrNotFound for what is not there and hub.ErrConflict for what is there already.
package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-sqlite3"
	"github.com/pressly/goose/v3"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/sqlitedialect"

	"github.com/certferry/certferry/hub"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers is how many connections read at once.
const readers = 8

// DB is an open database. It is safe for concurrent use.
type DB struct {
	write *bun.DB
	read  *bun.DB
	now   func() time.Time
	// credentials are servers by the hash of their credential, since the last writing transaction: each poll of each
	// agent asks for one.
	credentials atomic.Pointer[sync.Map]
}

// Open opens the SQLite database at path, makes it where it is absent, and brings its schema up to date. The file is
// readable by its owner only.
func Open(ctx context.Context, path string, now func() time.Time) (*DB, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the path is the administrator's
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	if err := errors.Join(file.Chmod(0o600), file.Close()); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	write, err := connect(path, 1, url.Values{"_txlock": {"immediate"}})
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(err, write.Close())
	}
	read, err := connect(path, readers, url.Values{"_query_only": {"1"}})
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	db := &DB{write: bun.NewDB(write, sqlitedialect.New()), read: bun.NewDB(read, sqlitedialect.New()), now: now}
	db.credentials.Store(new(sync.Map))
	return db, nil
}

func connect(path string, connections int, options url.Values) (*sql.DB, error) {
	options.Set("_journal_mode", "WAL")
	options.Set("_synchronous", "FULL")
	options.Set("_busy_timeout", "10000")
	options.Set("_foreign_keys", "1")
	db, err := sql.Open("sqlite3", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	scripts, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, scripts)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, known, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read database schema version: %w", err)
	case have > known:
		return fmt.Errorf("open database: its schema has version %d and this program knows %d: start the newer certferry-hub that wrote it, or restore a backup", have, known)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("bring database schema up to date: %w", err)
	}
	for _, trigger := range auditTriggers {
		if _, err := db.ExecContext(ctx, trigger); err != nil {
			return fmt.Errorf("protect audit history: %w", err)
		}
	}
	return nil
}

// Close closes the database.
func (db *DB) Close() error { return errors.Join(db.read.Close(), db.write.Close()) }

// Ping says whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.read.PingContext(ctx); err != nil {
		return fmt.Errorf("reach database: %w", err)
	}
	return nil
}

// inTx runs fn in one writing transaction.
func (db *DB) inTx(ctx context.Context, what string, fn func(ctx context.Context, tx bun.Tx) error) error {
	err := db.write.RunInTx(ctx, nil, fn)
	// Whatever it wrote, perhaps a server's state: what it promised must hold when it returns.
	db.credentials.Store(new(sync.Map))
	if err == nil {
		return nil
	}
	if mended := new(hub.Error); errors.As(err, &mended) {
		return mended
	}
	return fmt.Errorf("%s: %w", what, classify(err))
}

// classify gives the driver's errors the hub's classes.
func classify(err error) error {
	var sqlite sqlite3.Error
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return hub.ErrNotFound
	case errors.As(err, &sqlite) && (sqlite.ExtendedCode == sqlite3.ErrConstraintUnique || sqlite.ExtendedCode == sqlite3.ErrConstraintPrimaryKey):
		return fmt.Errorf("%w: %w", hub.ErrConflict, err)
	default:
		return err
	}
}

// one reads one row of model by a condition.
func one[M any](ctx context.Context, q bun.IDB, what, where string, args ...any) (*M, error) {
	if slices.ContainsFunc(args, unstorable) {
		return nil, fmt.Errorf("read %s: %w", what, hub.ErrNotFound)
	}
	m := new(M)
	if err := q.NewSelect().Model(m).Where(where, args...).Limit(1).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, classify(err))
	}
	return m, nil
}

// unstorable says that arg can be in no row: text with a NUL is refused by PostgreSQL and by bun.
func unstorable(arg any) bool {
	text, ok := arg.(string)
	return ok && strings.ContainsRune(text, 0)
}

// changed turns an update that met no row into hub.ErrNotFound.
func changed(what string, result sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%s: %w", what, hub.ErrNotFound)
	}
	return nil
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// convert maps rows to the hub's types.
func convert[M, T any](rows []M, to func(*M) T) []T {
	all := make([]T, 0, len(rows))
	for i := range rows {
		all = append(all, to(&rows[i]))
	}
	return all
}
