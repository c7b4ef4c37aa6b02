// This file keeps alerts. What raises one need not remember it: the same alert again is counted, not repeated.

package database

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

type alertRow struct {
	bun.BaseModel `bun:"table:alerts,alias:alerts"`

	ID         int64  `bun:"id,pk"`
	Kind       string `bun:"kind"`
	Object     string `bun:"object"`
	Level      string `bun:"level"`
	Message    string `bun:"message"`
	State      string `bun:"state"`
	Count      int64  `bun:"count"`
	FirstAt    int64  `bun:"first_at"`
	LastAt     int64  `bun:"last_at"`
	ResolvedAt int64  `bun:"resolved_at"`
}

func (r *alertRow) alert() hub.Alert {
	return hub.Alert{
		ID: r.ID, Kind: hub.AlertKind(r.Kind), Object: r.Object, Level: hub.AlertLevel(r.Level), Message: r.Message,
		State: hub.AlertState(r.State), Count: r.Count, FirstAt: moment(r.FirstAt), LastAt: moment(r.LastAt),
		ResolvedAt: moment(r.ResolvedAt),
	}
}

// Raise opens the alert a, or counts it up where one of its kind is open for its object. Its kind, object, level and
// message are used.
func (db *DB) Raise(ctx context.Context, a hub.Alert) error {
	return db.inTx(ctx, "raise alert", func(ctx context.Context, tx bun.Tx) error {
		now := millis(db.now())
		message := strings.ReplaceAll(a.Message, "\x00", "")
		row, err := one[alertRow](ctx, tx, "alert", "kind = ? AND object = ? AND state = ?", string(a.Kind), a.Object, string(hub.AlertOpen))
		if err == nil {
			_, err = tx.NewUpdate().Model(row).WherePK().
				Set("level = ?", string(a.Level)).Set("message = ?", message).Set("count = count + 1").Set("last_at = ?", now).Exec(ctx)
			return err
		}
		if !errors.Is(err, hub.ErrNotFound) {
			return err
		}
		var last int64
		if err := tx.NewSelect().Model((*alertRow)(nil)).ColumnExpr("COALESCE(MAX(id), 0)").Scan(ctx, &last); err != nil {
			return err
		}
		row = &alertRow{
			ID: last + 1, Kind: string(a.Kind), Object: a.Object, Level: string(a.Level), Message: message,
			State: string(hub.AlertOpen), Count: 1, FirstAt: now, LastAt: now,
		}
		_, err = tx.NewInsert().Model(row).Exec(ctx)
		return err
	})
}

// Clear resolves the open alert of a kind for an object; there need be none. The common case, that there is none,
// takes no writing transaction.
func (db *DB) Clear(ctx context.Context, kind hub.AlertKind, object string) error {
	_, err := one[alertRow](ctx, db.read, "alert", "kind = ? AND object = ? AND state = ?", string(kind), object, string(hub.AlertOpen))
	if errors.Is(err, hub.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now := millis(db.now())
	_, err = db.write.NewUpdate().Model((*alertRow)(nil)).
		Set("state = ?", string(hub.AlertResolved)).Set("resolved_at = ?", now).
		Where("kind = ? AND object = ? AND state = ?", string(kind), object, string(hub.AlertOpen)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("clear alert: %w", classify(err))
	}
	return nil
}

// Alerts lists up to limit alerts with ids below before (0 for all), newest first; with openOnly those that are not
// resolved.
func (db *DB) Alerts(ctx context.Context, openOnly bool, before int64, limit int) ([]hub.Alert, error) {
	var rows []alertRow
	q := db.read.NewSelect().Model(&rows).Order("id DESC").Limit(int64(limit))
	if before > 0 {
		q = q.Where("id < ?", before)
	}
	if openOnly {
		q = q.Where("state = ?", string(hub.AlertOpen))
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	return convert(rows, (*alertRow).alert), nil
}
