// This file keeps when CAs want certificates renewed (RFC 9773).

package database

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

type renewalRow struct {
	bun.BaseModel `bun:"table:renewals,alias:renewals"`

	Certificate    string `bun:"certificate,pk"`
	LeafSHA256     string `bun:"leaf_sha256"`
	WindowStart    int64  `bun:"window_start"`
	WindowEnd      int64  `bun:"window_end"`
	RenewAt        int64  `bun:"renew_at"`
	ExplanationURL string `bun:"explanation_url"`
	CheckedAt      int64  `bun:"checked_at"`
	NextCheck      int64  `bun:"next_check"`
}

func (r *renewalRow) plan() hub.RenewalPlan {
	return hub.RenewalPlan{
		Certificate: r.Certificate, LeafSHA256: r.LeafSHA256, Start: moment(r.WindowStart), End: moment(r.WindowEnd),
		RenewAt: moment(r.RenewAt), ExplanationURL: r.ExplanationURL, CheckedAt: moment(r.CheckedAt), NextCheck: moment(r.NextCheck),
	}
}

// PutRenewals replaces the plans of the certificates that they name.
func (db *DB) PutRenewals(ctx context.Context, plans []hub.RenewalPlan) error {
	if len(plans) == 0 {
		return nil
	}
	rows := make([]renewalRow, 0, len(plans))
	for i := range plans {
		p := &plans[i]
		rows = append(rows, renewalRow{
			Certificate: p.Certificate, LeafSHA256: p.LeafSHA256, WindowStart: millis(p.Start), WindowEnd: millis(p.End),
			RenewAt: millis(p.RenewAt), ExplanationURL: p.ExplanationURL, CheckedAt: millis(p.CheckedAt), NextCheck: millis(p.NextCheck),
		})
	}
	_, err := db.write.NewInsert().Model(&rows).On("CONFLICT (certificate) DO UPDATE").
		Set("leaf_sha256 = EXCLUDED.leaf_sha256, window_start = EXCLUDED.window_start, window_end = EXCLUDED.window_end").
		Set("renew_at = EXCLUDED.renew_at, explanation_url = EXCLUDED.explanation_url").
		Set("checked_at = EXCLUDED.checked_at, next_check = EXCLUDED.next_check").Exec(ctx)
	if err != nil {
		return fmt.Errorf("write renewal plans: %w", err)
	}
	return nil
}

// DeleteRenewal forgets the plan of a certificate.
func (db *DB) DeleteRenewal(ctx context.Context, certificate string) error {
	if _, err := db.write.NewDelete().Model((*renewalRow)(nil)).Where("certificate = ?", certificate).Exec(ctx); err != nil {
		return fmt.Errorf("forget renewal plan of %s: %w", certificate, err)
	}
	return nil
}

// Renewals lists all plans.
func (db *DB) Renewals(ctx context.Context) ([]hub.RenewalPlan, error) {
	var rows []renewalRow
	if err := db.read.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return nil, fmt.Errorf("read renewal plans: %w", err)
	}
	return convert(rows, (*renewalRow).plan), nil
}

// RenewalsToCheck lists up to limit plans whose CA is to be asked again by now, the longest due first.
func (db *DB) RenewalsToCheck(ctx context.Context, now time.Time, limit int) ([]hub.RenewalPlan, error) {
	var rows []renewalRow
	err := db.read.NewSelect().Model(&rows).Where("next_check <= ?", millis(now)).Order("next_check").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read renewal plans: %w", err)
	}
	return convert(rows, (*renewalRow).plan), nil
}
