// This file keeps what was spent of the CAs' limits. Package ledger has the rules.

package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

type spendRow struct {
	bun.BaseModel `bun:"table:spendings,alias:spendings"`

	OrderID  string `bun:"order_id,pk"`
	Account  string `bun:"account"`
	Spending string `bun:"spending,pk"`
	Scope    string `bun:"scope,pk"`
	Object   string `bun:"object,pk"`
	Renewal  bool   `bun:"renewal"`
	At       int64  `bun:"at"`
}

type pauseRow struct {
	bun.BaseModel `bun:"table:account_pauses,alias:account_pauses"`

	Account string `bun:"account,pk"`
	Until   int64  `bun:"until"`
	Reason  string `bun:"reason"`
}

// Reserve runs rule over the ledger and books what it answers, in one transaction, so that two orders cannot both take
// the last of a limit.
func (db *DB) Reserve(ctx context.Context, rule func(hub.Ledger) ([]hub.Spend, error)) error {
	return db.inTx(ctx, "reserve order", func(ctx context.Context, tx bun.Tx) error {
		spends, err := rule(book{ctx, tx})
		if err != nil || len(spends) == 0 {
			return err
		}
		rows := make([]spendRow, 0, len(spends))
		for _, s := range spends {
			rows = append(rows, spendRow{
				OrderID: s.OrderID, Account: s.Account, Spending: string(s.Spending), Scope: string(s.Scope), Object: s.Object,
				Renewal: s.Renewal, At: millis(s.At),
			})
		}
		_, err = tx.NewInsert().Model(&rows).On("CONFLICT DO NOTHING").Exec(ctx)
		return err
	})
}

// Refund gives back what an order booked of one kind, for one object where it is not empty.
func (db *DB) Refund(ctx context.Context, orderID string, spending issuer.Spending, object string) error {
	q := db.write.NewDelete().Model((*spendRow)(nil)).Where("order_id = ? AND spending = ?", orderID, string(spending))
	if object != "" {
		q = q.Where("object = ?", object)
	}
	if _, err := q.Exec(ctx); err != nil {
		return fmt.Errorf("give back what order %s booked: %w", orderID, err)
	}
	return nil
}

// PauseAccount stops the orders of an account until a time; an earlier one than it has changes nothing.
func (db *DB) PauseAccount(ctx context.Context, account string, until time.Time, reason string) error {
	row := &pauseRow{Account: account, Until: millis(until), Reason: reason}
	return db.inTx(ctx, "pause account", func(ctx context.Context, tx bun.Tx) error {
		have, err := one[pauseRow](ctx, tx, "pause", "account = ?", account)
		switch {
		case errors.Is(err, hub.ErrNotFound):
			_, err = tx.NewInsert().Model(row).Exec(ctx)
		case err == nil && have.Until < row.Until:
			_, err = tx.NewUpdate().Model(row).WherePK().Exec(ctx)
		}
		return err
	})
}

// PruneSpendings removes what was spent before a time: no limit counts it any more.
func (db *DB) PruneSpendings(ctx context.Context, before time.Time) error {
	if _, err := db.write.NewDelete().Model((*spendRow)(nil)).Where("at < ?", millis(before)).Exec(ctx); err != nil {
		return fmt.Errorf("prune ledger: %w", err)
	}
	if _, err := db.write.NewDelete().Model((*pauseRow)(nil)).Where("until < ?", millis(before)).Exec(ctx); err != nil {
		return fmt.Errorf("prune ledger: %w", err)
	}
	return nil
}

// Spent lists when a limit was spent, the newest n first.
func (db *DB) Spent(ctx context.Context, q hub.SpendQuery, n int) ([]time.Time, error) {
	return book{ctx, db.read}.Spent(q, n)
}

// Paused is until when an account's orders wait, zero for not at all, and why.
func (db *DB) Paused(ctx context.Context, account string) (until time.Time, reason string, err error) {
	return book{ctx, db.read}.Paused(account)
}

// book is the ledger within a transaction, or as it stands. It is a hub.Ledger.
type book struct {
	ctx context.Context //nolint:containedctx // it lives as long as the call that it is made for
	q   bun.IDB
}

// Spent implements hub.Ledger.
func (b book) Spent(q hub.SpendQuery, n int) ([]time.Time, error) {
	var at []int64
	query := b.q.NewSelect().Model((*spendRow)(nil)).Column("at").
		Where("account = ? AND spending = ? AND scope = ? AND object = ? AND at > ?", q.Account, string(q.Spending), string(q.Scope), q.Object, millis(q.Since)).
		Order("at DESC").Limit(int64(n))
	if q.SkipRenewals {
		query = query.Where("renewal = ?", false)
	}
	if err := query.Scan(b.ctx, &at); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	times := make([]time.Time, len(at))
	for i, ms := range at {
		times[i] = moment(ms)
	}
	return times, nil
}

// Paused implements hub.Ledger.
func (b book) Paused(account string) (time.Time, string, error) {
	row := new(pauseRow)
	err := b.q.NewSelect().Model(row).Where("account = ?", account).Scan(b.ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, "", nil
	}
	if err != nil {
		return time.Time{}, "", fmt.Errorf("read pauses: %w", err)
	}
	return moment(row.Until), row.Reason, nil
}
