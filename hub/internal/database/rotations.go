// This file keeps what replaces the keys of servers.

package database

import (
	"context"
	"errors"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

type rotationRow struct {
	bun.BaseModel `bun:"table:key_rotations,alias:key_rotations"`

	Server      string `bun:"server,pk"`
	AskedBy     string `bun:"asked_by"`
	AskedAt     int64  `bun:"asked_at"`
	Fingerprint string `bun:"fingerprint"`
	PublicKey   string `bun:"public_key"`
}

func (r *rotationRow) rotation() hub.KeyRotation {
	return hub.KeyRotation{
		Server: r.Server, AskedBy: r.AskedBy, AskedAt: moment(r.AskedAt), Fingerprint: r.Fingerprint, PublicKey: r.PublicKey,
	}
}

// KeyRotation returns the replacement of a server's key that is under way; hub.ErrNotFound where there is none.
func (db *DB) KeyRotation(ctx context.Context, server string) (hub.KeyRotation, error) {
	row, err := one[rotationRow](ctx, db.read, "key rotation", "server = ?", server)
	if err != nil {
		return hub.KeyRotation{}, err
	}
	return row.rotation(), nil
}

// AskKeyRotation asks a server that is enrolled for a new key. One that waits for a person is forgotten: the server
// sends it again.
func (db *DB) AskKeyRotation(ctx context.Context, server, by string, event hub.AuditEvent) error {
	return db.inTx(ctx, "ask for new key", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[serverRow](ctx, tx, "server", "name = ?", server)
		if err != nil {
			return err
		}
		if row.State == string(hub.ServerDisabled) {
			return &hub.Error{Class: hub.ErrConflict, Message: "the server is disabled: enrol it anew with a new join token"}
		}
		if err := putRotation(ctx, tx, &rotationRow{Server: server, AskedBy: by, AskedAt: millis(db.now())}); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

func putRotation(ctx context.Context, tx bun.Tx, row *rotationRow) error {
	if err := dropRotation(ctx, tx, row.Server); err != nil {
		return err
	}
	_, err := tx.NewInsert().Model(row).Exec(ctx)
	return err
}

func dropRotation(ctx context.Context, tx bun.Tx, server string) error {
	_, err := tx.NewDelete().Model((*rotationRow)(nil)).Where("server = ?", server).Exec(ctx)
	return err
}

// RotateKey takes a new key that a server proved to own, where the key it replaces is still the server's. It is the
// server's key at once where a person asked for it a moment ago, and waits for one otherwise: taken tells. The same new
// key again changes nothing, so that an answer which was lost does no harm.
func (db *DB) RotateKey(ctx context.Context, next hub.KeyRotation, replaced string, event hub.AuditEvent) (taken bool, err error) {
	err = db.inTx(ctx, "replace key", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[serverRow](ctx, tx, "server", "name = ?", next.Server)
		if err != nil {
			return err
		}
		switch {
		case row.Fingerprint == next.Fingerprint:
			taken = true
			return nil
		case row.Fingerprint != replaced || row.State == string(hub.ServerDisabled):
			return &hub.Error{Class: hub.ErrConflict, Message: "the server has another key by now, or is disabled: enrol it anew with a new join token"}
		}
		under, err := one[rotationRow](ctx, tx, "key rotation", "server = ?", next.Server)
		if err != nil && !errors.Is(err, hub.ErrNotFound) {
			return err
		}
		if err == nil && under.rotation().Allowed(db.now()) {
			taken = true
			event.Detail += ", asked for by " + under.AskedBy
			return db.takeKey(ctx, tx, row, next, event)
		}
		if err == nil && under.Fingerprint == next.Fingerprint {
			return nil
		}
		if err := putRotation(ctx, tx, &rotationRow{Server: next.Server, Fingerprint: next.Fingerprint, PublicKey: next.PublicKey}); err != nil {
			return err
		}
		event.Detail += ", waits for approval"
		return db.appendAudit(ctx, tx, event)
	})
	return taken && err == nil, err
}

// takeKey makes the new key the server's.
func (db *DB) takeKey(ctx context.Context, tx bun.Tx, row *serverRow, next hub.KeyRotation, event hub.AuditEvent) error {
	row.Fingerprint, row.PublicKey = next.Fingerprint, next.PublicKey
	if _, err := tx.NewUpdate().Model(row).Column("fingerprint", "public_key").WherePK().Exec(ctx); err != nil {
		return err
	}
	if err := dropRotation(ctx, tx, row.Name); err != nil {
		return err
	}
	return db.appendAudit(ctx, tx, event)
}

// approveRotation makes a new key that waits the server's, if it has this fingerprint; found is false if none does.
func (db *DB) approveRotation(ctx context.Context, tx bun.Tx, row *serverRow, fingerprint string, event hub.AuditEvent) (found bool, err error) {
	waits, err := one[rotationRow](ctx, tx, "key rotation", "server = ?", row.Name)
	if errors.Is(err, hub.ErrNotFound) || err == nil && waits.Fingerprint != fingerprint {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	event.Detail = "key " + waits.Fingerprint + " in place of " + row.Fingerprint
	return true, db.takeKey(ctx, tx, row, waits.rotation(), event)
}

// BlockServer shuts a server out whose key is in wrong hands: its credential counts no more, a new join token lets its
// name enrol again, and the jobs, which replace what its key could open, are queued. All of it happens or nothing.
func (db *DB) BlockServer(ctx context.Context, name string, token hub.JoinToken, jobs []hub.Job, event hub.AuditEvent) error {
	return db.inTx(ctx, "block server", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[serverRow](ctx, tx, "server", "name = ?", name)
		if err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(row).Set("state = ?", string(hub.ServerDisabled)).WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := dropRotation(ctx, tx, name); err != nil {
			return err
		}
		// Tokens that were made before may be in the same hands.
		if _, err := tx.NewUpdate().Model((*joinTokenRow)(nil)).Set("used_at = ?", millis(db.now())).
			Where("server = ? AND used_at = 0", name).Exec(ctx); err != nil {
			return err
		}
		if err := insertJoinToken(ctx, tx, token); err != nil {
			return err
		}
		for _, j := range jobs {
			if _, _, err := db.enqueue(ctx, tx, j); err != nil {
				return err
			}
		}
		return db.appendAudit(ctx, tx, event)
	})
}
