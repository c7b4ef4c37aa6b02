// This file keeps the queue of jobs. A job survives the process; a certificate has one active job of a kind at most.

package database

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

type jobRow struct {
	bun.BaseModel `bun:"table:jobs,alias:jobs"`

	ID          string `bun:"id,pk"`
	Kind        string `bun:"kind"`
	Certificate string `bun:"certificate"`
	Issuer      string `bun:"issuer"`
	Actor       string `bun:"actor"`
	Reason      string `bun:"reason"`
	State       string `bun:"state"`
	Phase       string `bun:"phase"`
	Attempts    int    `bun:"attempts"`
	NotBefore   int64  `bun:"not_before"`
	Error       string `bun:"error"`
	ErrorClass  string `bun:"error_class"`
	Commit      string `bun:"commit_hash"`
	NewKey      bool   `bun:"new_key"`
	CreatedAt   int64  `bun:"created_at"`
	UpdatedAt   int64  `bun:"updated_at"`
}

func (r *jobRow) job() hub.Job {
	return hub.Job{
		ID: r.ID, Kind: apiv1.JobKind(r.Kind), Certificate: r.Certificate, Issuer: r.Issuer, Actor: r.Actor, Reason: r.Reason,
		State: apiv1.JobState(r.State), Phase: r.Phase, Attempts: r.Attempts, NotBefore: moment(r.NotBefore), Error: r.Error, ErrorClass: r.ErrorClass, Commit: r.Commit, NewKey: r.NewKey,
		CreatedAt: moment(r.CreatedAt), UpdatedAt: moment(r.UpdatedAt),
	}
}

// active is the condition of jobs that are not over.
const active = "state IN ('queued', 'running', 'waiting')"

// newJobID makes an id that fits a file name and sorts after all before it, also within a millisecond and when the
// clock was set back: what is newest is decided by ids.
func newJobID(ctx context.Context, tx bun.Tx, now time.Time) (string, error) {
	last, at := new(jobRow), now.UnixMilli()
	err := tx.NewSelect().Model(last).Column("id").Order("id DESC").Limit(1).Scan(ctx)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", err
	}
	if stamp, _, ok := strings.Cut(last.ID, "-"); ok {
		newest, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			return "", fmt.Errorf("read newest job's id: %w", err)
		}
		at = max(at, newest+1)
	}
	return fmt.Sprintf("%013d-%s", at, strings.ToLower(rand.Text()[:12])), nil
}

// EnqueueJob queues a job for j.Certificate with j's kind (JobIssue where it has none), issuer, actor and reason, unless
// one of the kind is active: then that one is answered and created is false. One that waits takes j's actor and reason
// where j wants a new key.
func (db *DB) EnqueueJob(ctx context.Context, j hub.Job) (job hub.Job, created bool, err error) {
	err = db.inTx(ctx, "queue job", func(ctx context.Context, tx bun.Tx) error {
		job, created, err = db.enqueue(ctx, tx, j)
		return err
	})
	return job, created, err
}

func (db *DB) enqueue(ctx context.Context, tx bun.Tx, j hub.Job) (job hub.Job, created bool, err error) {
	now := db.now()
	kind := cmp.Or(j.Kind, apiv1.JobIssue)
	row, err := one[jobRow](ctx, tx, "job", "certificate = ? AND kind = ? AND "+active, j.Certificate, string(kind))
	if err == nil {
		if j.NewKey && !row.NewKey && row.State != string(apiv1.JobRunning) {
			row.NewKey, row.Actor, row.Reason, row.UpdatedAt = true, j.Actor, j.Reason, millis(now)
			row.NotBefore = min(row.NotBefore, millis(j.NotBefore))
			_, err = tx.NewUpdate().Model(row).Column("new_key", "actor", "reason", "not_before", "updated_at").WherePK().Exec(ctx)
		}
		return row.job(), false, err
	}
	if !errors.Is(err, hub.ErrNotFound) {
		return hub.Job{}, false, err
	}
	id, err := newJobID(ctx, tx, now)
	if err != nil {
		return hub.Job{}, false, err
	}
	row = &jobRow{
		ID: id, Kind: string(kind), Certificate: j.Certificate, Issuer: j.Issuer, Actor: j.Actor, Reason: j.Reason, State: string(apiv1.JobQueued), NewKey: j.NewKey,
		NotBefore: millis(j.NotBefore), CreatedAt: millis(now), UpdatedAt: millis(now),
	}
	if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
		return hub.Job{}, false, err
	}
	return row.job(), true, nil
}

// HurryJob makes a waiting job due at by, zero for now, where that is sooner, because a person asked for it.
func (db *DB) HurryJob(ctx context.Context, id string, by time.Time, actor, reason string) error {
	_, err := db.write.NewUpdate().Model((*jobRow)(nil)).
		Set("not_before = CASE WHEN not_before > ? THEN ? ELSE not_before END", millis(by), millis(by)).Set("actor = ?", actor).Set("reason = ?", reason).Set("updated_at = ?", millis(db.now())).
		Where("id = ? AND state IN ('queued', 'waiting')", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("hurry job: %w", err)
	}
	return nil
}

// ClaimJob takes the oldest job that is due, makes it running and counts the attempt; found is false when none is. Jobs
// of the issuers in busy are left for later.
func (db *DB) ClaimJob(ctx context.Context, busy []string) (job hub.Job, found bool, err error) {
	err = db.inTx(ctx, "claim job", func(ctx context.Context, tx bun.Tx) error {
		now := millis(db.now())
		row := new(jobRow)
		q := tx.NewSelect().Model(row).Where("state IN ('queued', 'waiting') AND not_before <= ?", now).
			Order("not_before", "id").Limit(1)
		if len(busy) > 0 {
			q = q.Where("issuer NOT IN (?)", bun.List(busy))
		}
		err := q.Scan(ctx)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		row.State, row.Phase, row.UpdatedAt = string(apiv1.JobRunning), "", now
		row.Attempts++
		if _, err := tx.NewUpdate().Model(row).Column("state", "phase", "updated_at", "attempts").WherePK().Exec(ctx); err != nil {
			return err
		}
		job, found = row.job(), true
		return nil
	})
	return job, found && err == nil, err
}

// SetJobCommit writes down which commit fulfils the job, before the branch moves.
func (db *DB) SetJobCommit(ctx context.Context, id, commit string) error {
	return db.updateJob(ctx, &jobRow{ID: id, Commit: commit}, "commit_hash")
}

// FinishJob ends the job with success.
func (db *DB) FinishJob(ctx context.Context, id string) error {
	return db.updateJob(ctx, &jobRow{ID: id, State: string(apiv1.JobDone)}, "state", "error", "error_class", "not_before")
}

// WaitJob puts the job off to retryAt after a failed attempt.
func (db *DB) WaitJob(ctx context.Context, id string, retryAt time.Time, class, message string) error {
	return db.updateJob(ctx, &jobRow{
		ID: id, State: string(apiv1.JobWaiting), NotBefore: millis(retryAt), ErrorClass: class, Error: message,
	}, "state", "not_before", "error", "error_class", "commit_hash")
}

// FailJob ends the job without success.
func (db *DB) FailJob(ctx context.Context, id, class, message string) error {
	return db.updateJob(ctx, &jobRow{ID: id, State: string(apiv1.JobFailed), ErrorClass: class, Error: message},
		"state", "error", "error_class", "not_before")
}

// updateJob changes a job that is not over; hub.ErrConflict for one that is.
func (db *DB) updateJob(ctx context.Context, row *jobRow, columns ...string) error {
	row.UpdatedAt = millis(db.now())
	return db.inTx(ctx, "change job "+row.ID, func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewUpdate().Model(row).Column(append(columns, "updated_at")...).WherePK().Where(active).Exec(ctx)
		err = changed("job", result, err)
		if !errors.Is(err, hub.ErrNotFound) {
			return err
		}
		if _, missing := one[jobRow](ctx, tx, "job", "id = ?", row.ID); missing != nil {
			return missing
		}
		return fmt.Errorf("%w: the job is over", hub.ErrConflict)
	})
}

// SetJobIssuer writes down where the job's attempt orders.
func (db *DB) SetJobIssuer(ctx context.Context, id, issuer string) error {
	return db.updateJob(ctx, &jobRow{ID: id, Issuer: issuer}, "issuer")
}

// PutOffJob puts a job off to notBefore without an attempt having been made: what claiming counted is taken back, and
// class is noted only where no attempt failed before.
func (db *DB) PutOffJob(ctx context.Context, id string, notBefore time.Time, class, message string) error {
	now := millis(db.now())
	result, err := db.write.NewUpdate().Model((*jobRow)(nil)).
		Set("state = ?", string(apiv1.JobWaiting)).Set("not_before = ?", millis(notBefore)).Set("attempts = attempts - 1").
		Set("error_class = CASE WHEN error_class = '' THEN ? ELSE error_class END", class).Set("error = ?", message).
		Set("updated_at = ?", now).
		Where("id = ? AND state = 'running'", id).Exec(ctx)
	if err = changed("job", result, err); err != nil {
		return fmt.Errorf("put off job %s: %w", id, err)
	}
	return nil
}

// CancelJob ends a job that is not over, with an audit event, and keeps settings, by name, with it. One that runs must
// have been stopped before.
func (db *DB) CancelJob(ctx context.Context, id string, settings map[string]string, event hub.AuditEvent) (job hub.Job, err error) {
	err = db.inTx(ctx, "cancel job "+id, func(ctx context.Context, tx bun.Tx) error {
		row, err := one[jobRow](ctx, tx, "job", "id = ?", id)
		if err != nil {
			return err
		}
		if !apiv1.JobState(row.State).Active() {
			return &hub.Error{Class: hub.ErrConflict, Message: "the job is over: there is nothing to cancel"}
		}
		row.State, row.NotBefore, row.UpdatedAt = string(apiv1.JobCancelled), 0, millis(db.now())
		if _, err := tx.NewUpdate().Model(row).Column("state", "not_before", "updated_at").WherePK().Exec(ctx); err != nil {
			return err
		}
		for name, value := range settings {
			if err := setSetting(ctx, tx, name, value); err != nil {
				return err
			}
		}
		job = row.job()
		return db.appendAudit(ctx, tx, event)
	})
	return job, err
}

// RunningJobs lists the jobs that are marked as running, by whichever process.
func (db *DB) RunningJobs(ctx context.Context) ([]hub.Job, error) {
	var rows []jobRow
	if err := db.read.NewSelect().Model(&rows).Where("state = 'running'").Order("id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list running jobs: %w", err)
	}
	return convert(rows, (*jobRow).job), nil
}

// RequeueJob makes an interrupted job due again.
func (db *DB) RequeueJob(ctx context.Context, id string) error {
	return db.updateJob(ctx, &jobRow{ID: id, State: string(apiv1.JobQueued)}, "state", "not_before", "commit_hash")
}

// PruneJobs removes jobs that ended before a time, but the newest of each certificate and kind, and says how many. Their
// logs go by PruneJobLogs.
func (db *DB) PruneJobs(ctx context.Context, before time.Time) (int64, error) {
	newest := db.write.NewSelect().Model((*jobRow)(nil)).ColumnExpr("MAX(id)").Group("certificate", "kind")
	result, err := db.write.NewDelete().Model((*jobRow)(nil)).
		Where("updated_at < ? AND NOT ("+active+")", millis(before)).Where("id NOT IN (?)", newest).Exec(ctx)
	if err != nil {
		return 0, fmt.Errorf("prune jobs: %w", err)
	}
	return result.RowsAffected()
}

// Job returns the job with this id.
func (db *DB) Job(ctx context.Context, id string) (hub.Job, error) {
	row, err := one[jobRow](ctx, db.read, "job", "id = ?", id)
	if err != nil {
		return hub.Job{}, err
	}
	return row.job(), nil
}

// Jobs lists jobs, newest first, from after the id after; those of one certificate where it is not empty.
func (db *DB) Jobs(ctx context.Context, certificate, after string, limit int) ([]hub.Job, error) {
	var rows []jobRow
	q := db.read.NewSelect().Model(&rows).Order("id DESC").Limit(int64(limit))
	if after != "" {
		q = q.Where("id < ?", after)
	}
	if certificate != "" {
		q = q.Where("certificate = ?", certificate)
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	return convert(rows, (*jobRow).job), nil
}

// LatestJob returns the newest job that issues a certificate.
func (db *DB) LatestJob(ctx context.Context, certificate string) (hub.Job, error) {
	row := new(jobRow)
	err := db.read.NewSelect().Model(row).Where("certificate = ? AND kind = 'issue'", certificate).Order("id DESC").Limit(1).Scan(ctx)
	if err != nil {
		return hub.Job{}, fmt.Errorf("read newest job: %w", classify(err))
	}
	return row.job(), nil
}
