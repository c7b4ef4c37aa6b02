// This file keeps the sealed secrets for DNS providers and CAs.

package database

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

type credentialRow struct {
	bun.BaseModel `bun:"table:credentials,alias:credentials"`

	Name      string `bun:"name,pk"`
	Provider  string `bun:"provider"`
	Variables string `bun:"variables"`
	Sealed    string `bun:"sealed"`
	CreatedBy string `bun:"created_by"`
	CreatedAt int64  `bun:"created_at"`
	UpdatedAt int64  `bun:"updated_at"`
}

func (r *credentialRow) credential() (hub.Credential, error) {
	sealed, err := base64.StdEncoding.DecodeString(r.Sealed)
	if err != nil {
		return hub.Credential{}, fmt.Errorf("read credential %s: %w", r.Name, err)
	}
	return hub.Credential{
		Name: r.Name, Provider: r.Provider, Variables: strings.Fields(r.Variables), Sealed: sealed,
		CreatedBy: r.CreatedBy, CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt),
	}, nil
}

// PutCredential makes a credential, or replaces its provider and values; create says which is meant: the other is
// hub.ErrConflict or hub.ErrNotFound. Event tells of it.
func (db *DB) PutCredential(ctx context.Context, c hub.Credential, create bool, event hub.AuditEvent) error {
	row := &credentialRow{
		Name: c.Name, Provider: c.Provider, Variables: strings.Join(c.Variables, " "), Sealed: base64.StdEncoding.EncodeToString(c.Sealed),
		CreatedBy: c.CreatedBy, CreatedAt: millis(db.now()), UpdatedAt: millis(db.now()),
	}
	return db.inTx(ctx, "keep credential "+c.Name, func(ctx context.Context, tx bun.Tx) error {
		if create {
			if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
				return err
			}
			return db.appendAudit(ctx, tx, event)
		}
		result, err := tx.NewUpdate().Model(row).Column("provider", "variables", "sealed", "updated_at").WherePK().Exec(ctx)
		if err := changed("credential", result, err); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// DeleteCredential forgets a credential; event tells of it.
func (db *DB) DeleteCredential(ctx context.Context, name string, event hub.AuditEvent) error {
	return db.inTx(ctx, "forget credential "+name, func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewDelete().Model((*credentialRow)(nil)).Where("name = ?", name).Exec(ctx)
		if err := changed("credential", result, err); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// Credential returns a credential by its name.
func (db *DB) Credential(ctx context.Context, name string) (hub.Credential, error) {
	row, err := one[credentialRow](ctx, db.read, "credential", "name = ?", name)
	if err != nil {
		return hub.Credential{}, err
	}
	return row.credential()
}

// Credentials lists all credentials by name.
func (db *DB) Credentials(ctx context.Context) ([]hub.Credential, error) {
	var rows []credentialRow
	if err := db.read.NewSelect().Model(&rows).Order("name").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list credentials: %w", err)
	}
	all := make([]hub.Credential, 0, len(rows))
	for i := range rows {
		c, err := rows[i].credential()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}
