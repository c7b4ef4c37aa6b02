// This file counts rows, for the hub's figures.

package database

import (
	"context"
	"fmt"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// CountJobs counts jobs by state; a state without jobs is left out.
func (db *DB) CountJobs(ctx context.Context) (map[apiv1.JobState]int, error) {
	var rows []struct {
		State string `bun:"state"`
		N     int    `bun:"n"`
	}
	err := db.read.NewSelect().Model((*jobRow)(nil)).ColumnExpr("state, COUNT(*) AS n").Group("state").Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	counts := make(map[apiv1.JobState]int, len(rows))
	for _, row := range rows {
		counts[apiv1.JobState(row.State)] = row.N
	}
	return counts, nil
}

// LatestOrders lists each certificate's newest job that issues it; a certificate that never had one is left out. It is
// one query, for whoever wants to know of all.
func (db *DB) LatestOrders(ctx context.Context) (map[string]hub.Job, error) {
	var rows []jobRow
	newest := db.read.NewSelect().Model((*jobRow)(nil)).ColumnExpr("MAX(id)").Where("kind = 'issue'").Group("certificate")
	if err := db.read.NewSelect().Model(&rows).Where("id IN (?)", newest).Scan(ctx); err != nil {
		return nil, fmt.Errorf("list newest orders: %w", err)
	}
	orders := make(map[string]hub.Job, len(rows))
	for i := range rows {
		orders[rows[i].Certificate] = rows[i].job()
	}
	return orders, nil
}
