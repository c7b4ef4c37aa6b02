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
