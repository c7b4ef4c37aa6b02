// This file keeps users, their sessions and the settings.

package database

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

type userRow struct {
	bun.BaseModel `bun:"table:users,alias:users"`

	Name         string `bun:"name,pk"`
	Role         string `bun:"role"`
	PasswordHash string `bun:"password_hash"`
	Disabled     bool   `bun:"disabled"`
	CreatedAt    int64  `bun:"created_at"`
	SessionsFrom int64  `bun:"sessions_from"`
}

func newUserRow(u hub.User) *userRow {
	return &userRow{
		Name: u.Name, Role: string(u.Role), PasswordHash: u.PasswordHash, Disabled: u.Disabled,
		CreatedAt: millis(u.CreatedAt), SessionsFrom: millis(u.SessionsFrom),
	}
}

func (r *userRow) user() hub.User {
	return hub.User{
		Name: r.Name, Role: apiv1.Role(r.Role), PasswordHash: r.PasswordHash, Disabled: r.Disabled,
		CreatedAt: moment(r.CreatedAt), SessionsFrom: moment(r.SessionsFrom),
	}
}

// InsertUser keeps a new account; hub.ErrConflict where the name is taken.
func (db *DB) InsertUser(ctx context.Context, u hub.User, event hub.AuditEvent) error {
	return db.inTx(ctx, "make account", func(ctx context.Context, tx bun.Tx) error {
		if err := insertUser(ctx, tx, u); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

func insertUser(ctx context.Context, tx bun.Tx, u hub.User) error {
	_, err := tx.NewInsert().Model(newUserRow(u)).Exec(ctx)
	if errors.Is(classify(err), hub.ErrConflict) {
		return &hub.Error{Class: hub.ErrConflict, Message: "an account of this name exists already"}
	}
	return err
}

// InsertFirstAdmin keeps the first administrator and forgets the setting that holds the setup code, in one
// transaction; hub.ErrConflict where an administrator exists.
func (db *DB) InsertFirstAdmin(ctx context.Context, u hub.User, setupSetting string, event hub.AuditEvent) error {
	return db.inTx(ctx, "make first administrator", func(ctx context.Context, tx bun.Tx) error {
		n, err := tx.NewSelect().Model((*userRow)(nil)).Where("role = ?", string(apiv1.RoleAdmin)).Count(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			return &hub.Error{Class: hub.ErrConflict, Message: "an administrator exists already: log in"}
		}
		if err := insertUser(ctx, tx, u); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*settingRow)(nil)).Where("name = ?", setupSetting).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// HasAdmin says whether an administrator exists.
func (db *DB) HasAdmin(ctx context.Context) (bool, error) {
	n, err := db.read.NewSelect().Model((*userRow)(nil)).Where("role = ?", string(apiv1.RoleAdmin)).Count(ctx)
	if err != nil {
		return false, fmt.Errorf("count administrators: %w", err)
	}
	return n > 0, nil
}

// User returns the account called name.
func (db *DB) User(ctx context.Context, name string) (hub.User, error) {
	row, err := one[userRow](ctx, db.read, "account", "name = ?", name)
	if err != nil {
		return hub.User{}, err
	}
	return row.user(), nil
}

// Users lists accounts by name, from after the name after.
func (db *DB) Users(ctx context.Context, after string, limit int) ([]hub.User, error) {
	var rows []userRow
	if err := db.read.NewSelect().Model(&rows).Where("name > ?", after).Order("name").Limit(int64(limit)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("list accounts: %w", err)
	}
	return convert(rows, (*userRow).user), nil
}

// UpdatePassword replaces a password hash and ends all sessions of the account from before at.
func (db *DB) UpdatePassword(ctx context.Context, name, hash string, at time.Time, event hub.AuditEvent) error {
	return db.inTx(ctx, "change password", func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewUpdate().Model((*userRow)(nil)).
			Set("password_hash = ?", hash).Set("sessions_from = ?", millis(at)).Where("name = ?", name).Exec(ctx)
		if err := changed("change password", result, err); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*sessionRow)(nil)).Where("user_name = ?", name).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

type sessionRow struct {
	bun.BaseModel `bun:"table:sessions,alias:sessions"`

	ID           string `bun:"id,pk"`
	User         string `bun:"user_name"`
	RefreshHash  string `bun:"refresh_hash"`
	PreviousHash string `bun:"previous_hash"`
	RotatedAt    int64  `bun:"rotated_at"`
	CreatedAt    int64  `bun:"created_at"`
	ExpiresAt    int64  `bun:"expires_at"`
}

func (r *sessionRow) session() hub.Session {
	return hub.Session{
		ID: r.ID, User: r.User, RefreshHash: r.RefreshHash, PreviousHash: r.PreviousHash,
		RotatedAt: moment(r.RotatedAt), CreatedAt: moment(r.CreatedAt), ExpiresAt: moment(r.ExpiresAt),
	}
}

// InsertSession keeps a login and forgets the expired ones; event tells of it.
func (db *DB) InsertSession(ctx context.Context, s hub.Session, event hub.AuditEvent) error {
	row := &sessionRow{
		ID: s.ID, User: s.User, RefreshHash: s.RefreshHash, PreviousHash: s.PreviousHash,
		RotatedAt: millis(s.RotatedAt), CreatedAt: millis(s.CreatedAt), ExpiresAt: millis(s.ExpiresAt),
	}
	return db.inTx(ctx, "keep session", func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*sessionRow)(nil)).Where("expires_at <= ?", millis(db.now())).Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// Session returns the session with this id.
func (db *DB) Session(ctx context.Context, id string) (hub.Session, error) {
	row, err := one[sessionRow](ctx, db.read, "session", "id = ?", id)
	if err != nil {
		return hub.Session{}, err
	}
	return row.session(), nil
}

// retiredTokenRow is a refresh token that was replaced.
type retiredTokenRow struct {
	bun.BaseModel `bun:"table:retired_tokens,alias:retired_tokens"`

	Hash    string `bun:"hash,pk"`
	Session string `bun:"session_id"`
}

// SessionByRefresh returns the session of which a refresh token with this hash is the present one or any before.
func (db *DB) SessionByRefresh(ctx context.Context, hash string) (hub.Session, error) {
	row, err := one[sessionRow](ctx, db.read, "session",
		"refresh_hash = ? OR id = (SELECT session_id FROM retired_tokens WHERE hash = ?)", hash, hash)
	if err != nil {
		return hub.Session{}, err
	}
	return row.session(), nil
}

// RotateSession replaces the refresh token if it still is the one with oldHash, and answers false otherwise: of many
// refreshes at once exactly one rotates.
func (db *DB) RotateSession(ctx context.Context, id, oldHash, newHash string, at time.Time) (bool, error) {
	rotated := false
	err := db.inTx(ctx, "rotate session", func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewUpdate().Model((*sessionRow)(nil)).
			Set("refresh_hash = ?", newHash).Set("previous_hash = ?", oldHash).Set("rotated_at = ?", millis(at)).
			Where("id = ? AND refresh_hash = ?", id, oldHash).Exec(ctx)
		if err := changed("rotate session", result, err); errors.Is(err, hub.ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		rotated = true
		_, err = tx.NewInsert().Model(&retiredTokenRow{Hash: oldHash, Session: id}).Exec(ctx)
		return err
	})
	return rotated && err == nil, err
}

// DeleteSession ends a session; event tells of it.
func (db *DB) DeleteSession(ctx context.Context, id string, event hub.AuditEvent) error {
	return db.inTx(ctx, "end session", func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*sessionRow)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

type settingRow struct {
	bun.BaseModel `bun:"table:settings,alias:settings"`

	Name  string `bun:"name,pk"`
	Value string `bun:"value"`
}

// Setting returns a setting's value, empty where it is not set.
func (db *DB) Setting(ctx context.Context, name string) (string, error) {
	row, err := one[settingRow](ctx, db.read, "setting", "name = ?", name)
	if errors.Is(err, hub.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return row.Value, nil
}

// SetSetting keeps a setting's value.
func (db *DB) SetSetting(ctx context.Context, name, value string) error {
	return setSetting(ctx, db.write, name, value)
}

func setSetting(ctx context.Context, to bun.IDB, name, value string) error {
	_, err := to.NewInsert().Model(&settingRow{Name: name, Value: value}).
		On("CONFLICT (name) DO UPDATE").Set("value = EXCLUDED.value").Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep setting %s: %w", name, err)
	}
	return nil
}
