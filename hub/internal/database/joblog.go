// This file keeps the logs of jobs: what people read when an order does not come.

package database

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

// maxJobLines bounds the log of a job; an order has about thirty lines.
const maxJobLines = 2000

type lineRow struct {
	bun.BaseModel `bun:"table:job_lines,alias:job_lines"`

	JobID string `bun:"job_id,pk"`
	Seq   int64  `bun:"seq,pk"`
	At    int64  `bun:"at"`
	Phase string `bun:"phase"`
	Line  string `bun:"line"`
}

func (r *lineRow) line() hub.JobLine {
	return hub.JobLine{Seq: r.Seq, At: moment(r.At), Phase: r.Phase, Line: r.Line}
}

// AppendJobLog adds lines to a job's log and sets how far the job is to the last phase that one of them names. Their Seq
// is not looked at. A log that is full takes no more.
func (db *DB) AppendJobLog(ctx context.Context, id string, lines []hub.JobLine) error {
	return db.inTx(ctx, "log job "+id, func(ctx context.Context, tx bun.Tx) error {
		var last int64
		if err := tx.NewSelect().Model((*lineRow)(nil)).ColumnExpr("COALESCE(MAX(seq), 0)").Where("job_id = ?", id).Scan(ctx, &last); err != nil {
			return err
		}
		var rows []lineRow
		phase := ""
		for _, l := range lines {
			if l.Phase != "" {
				phase = l.Phase
			}
			if last < maxJobLines && l.Line != "" {
				last++
				rows = append(rows, lineRow{JobID: id, Seq: last, At: millis(l.At), Phase: l.Phase, Line: l.Line})
			}
		}
		if len(rows) > 0 {
			if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
				return err
			}
		}
		if phase == "" {
			return nil
		}
		_, err := tx.NewUpdate().Model((*jobRow)(nil)).Set("phase = ?", phase).Where("id = ?", id).Exec(ctx)
		return err
	})
}

// JobLog lists up to limit lines of a job's log behind the number after, in order.
func (db *DB) JobLog(ctx context.Context, id string, after int64, limit int) ([]hub.JobLine, error) {
	var rows []lineRow
	err := db.read.NewSelect().Model(&rows).Where("job_id = ? AND seq > ?", id, after).Order("seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("read log of job %s: %w", id, err)
	}
	return convert(rows, (*lineRow).line), nil
}

// PruneJobLogs removes lines from before a time, and says how many.
func (db *DB) PruneJobLogs(ctx context.Context, before time.Time) (int64, error) {
	result, err := db.write.NewDelete().Model((*lineRow)(nil)).Where("at < ?", millis(before)).Exec(ctx)
	if err != nil {
		return 0, fmt.Errorf("prune logs of jobs: %w", err)
	}
	return result.RowsAffected()
}
