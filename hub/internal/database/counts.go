// This file counts rows, for the hub's figures.

package database

import (
	"context"
	"fmt"

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

// OrderStates lists the state of each certificate's newest job that issues it; a certificate that never had one is
// left out. It is one query, for figures about all certificates.
func (db *DB) OrderStates(ctx context.Context) (map[string]apiv1.JobState, error) {
	var rows []struct {
		Certificate string `bun:"certificate"`
		State       string `bun:"state"`
	}
	newest := db.read.NewSelect().Model((*jobRow)(nil)).ColumnExpr("MAX(id)").Where("kind = 'issue'").Group("certificate")
	err := db.read.NewSelect().Model((*jobRow)(nil)).Column("certificate", "state").Where("id IN (?)", newest).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("list states of orders: %w", err)
	}
	states := make(map[string]apiv1.JobState, len(rows))
	for _, row := range rows {
		states[row.Certificate] = apiv1.JobState(row.State)
	}
	return states, nil
}
