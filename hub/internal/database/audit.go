// This file keeps the audit history: a chain in which each row's hash covers the row and the hash before it, written
// in the transaction of the act itself. A row that is changed, removed or moved breaks the chain.

package database

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

// auditTriggers keep a careless statement from changing history; whoever owns the file can drop them, and then
// VerifyAudit finds what was done. SQLite's syntax; PostgreSQL needs its own.
var auditTriggers = []string{
	`CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit history is append-only'); END`,
	`CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit history is append-only'); END`,
	// INSERT OR REPLACE removes a row without a word to the trigger above.
	`CREATE TRIGGER IF NOT EXISTS audit_no_replace BEFORE INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq) BEGIN SELECT RAISE(ABORT, 'audit history is append-only'); END`,
}

// ErrAuditBroken says that a row of the audit history was changed, removed or moved.
var ErrAuditBroken = errors.New("audit history is broken")

type auditRow struct {
	bun.BaseModel `bun:"table:audit,alias:audit"`

	Seq       int64  `bun:"seq,pk"     json:"seq"`
	At        int64  `bun:"at"         json:"at"`
	Actor     string `bun:"actor"      json:"actor"`
	Action    string `bun:"action"     json:"action"`
	Object    string `bun:"object"     json:"object"`
	Outcome   string `bun:"outcome"    json:"outcome"`
	Address   string `bun:"address"    json:"address"`
	RequestID string `bun:"request_id" json:"request_id"`
	Detail    string `bun:"detail"     json:"detail"`
	PrevHash  string `bun:"prev_hash"  json:"prev_hash"`
	Hash      string `bun:"hash"       json:"-"`
}

// digest is the hash of the row: over its JSON, which holds the hash before it.
func (r *auditRow) digest() (string, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encode audit row: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

func (r *auditRow) event() hub.AuditEvent {
	return hub.AuditEvent{
		Seq: r.Seq, At: moment(r.At), Actor: r.Actor, Action: r.Action, Object: r.Object, Outcome: r.Outcome,
		Address: r.Address, RequestID: r.RequestID, Detail: r.Detail, PrevHash: r.PrevHash, Hash: r.Hash,
	}
}

// appendAudit adds an event to the chain within tx.
func (db *DB) appendAudit(ctx context.Context, tx bun.Tx, e hub.AuditEvent) error {
	last := new(auditRow)
	err := tx.NewSelect().Model(last).Order("seq DESC").Limit(1).Scan(ctx)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("read end of audit history: %w", err)
	}
	at := e.At
	if at.IsZero() {
		at = db.now()
	}
	row := &auditRow{
		Seq: last.Seq + 1, At: millis(at), Actor: storable(e.Actor), Action: storable(e.Action), Object: storable(e.Object),
		Outcome: storable(e.Outcome), Address: storable(e.Address), RequestID: storable(e.RequestID),
		Detail: storable(e.Detail), PrevHash: last.Hash,
	}
	if row.Hash, err = row.digest(); err != nil {
		return err
	}
	if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
		return fmt.Errorf("write audit history: %w", err)
	}
	return nil
}

// storable makes text what every database keeps byte by byte. The hash must cover what is read back, and no odd byte
// in a detail may keep an act from being recorded.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// Audit adds an act or a denied attempt that has no row of its own to the history.
func (db *DB) Audit(ctx context.Context, e hub.AuditEvent) error {
	return db.inTx(ctx, "audit", func(ctx context.Context, tx bun.Tx) error { return db.appendAudit(ctx, tx, e) })
}

// AuditEvents lists the history, newest first, from before the sequence number before; 0 is the newest.
func (db *DB) AuditEvents(ctx context.Context, before int64, limit int) ([]hub.AuditEvent, error) {
	var rows []auditRow
	q := db.read.NewSelect().Model(&rows).Order("seq DESC").Limit(int64(limit))
	if before > 0 {
		q = q.Where("seq < ?", before)
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list audit history: %w", err)
	}
	return convert(rows, (*auditRow).event), nil
}

// AuditHead is the hash of the newest row, empty for an empty history. It goes into signed commits as a witness.
func (db *DB) AuditHead(ctx context.Context) (string, error) {
	row := new(auditRow)
	err := db.read.NewSelect().Model(row).Order("seq DESC").Limit(1).Scan(ctx)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("read end of audit history: %w", err)
	}
	return row.Hash, nil
}

// VerifyAudit walks the whole chain; the error is ErrAuditBroken and names the first row at fault. Rows cut off at
// the end show only against an Audit-Head in Git.
func (db *DB) VerifyAudit(ctx context.Context) error {
	const page = 1000
	prev, seq := "", int64(0)
	for {
		var rows []auditRow
		q := db.read.NewSelect().Model(&rows).Order("seq").Limit(page)
		if seq > 0 { // the first page begins before 1, where nothing may be
			q = q.Where("seq > ?", seq)
		}
		if err := q.Scan(ctx); err != nil {
			return fmt.Errorf("read audit history: %w", err)
		}
		for i := range rows {
			row := &rows[i]
			digest, err := row.digest()
			if err != nil {
				return err
			}
			if row.Seq != seq+1 || row.PrevHash != prev || row.Hash != digest {
				return fmt.Errorf("%w at row %d", ErrAuditBroken, seq+1)
			}
			prev, seq = row.Hash, row.Seq
		}
		if len(rows) < page {
			return nil
		}
	}
}
