// This file keeps what is watched: certificates with the moment at which their level changes, and endpoints.

package database

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
)

type watchRow struct {
	bun.BaseModel `bun:"table:watches,alias:watches"`

	Kind       string `bun:"kind,pk"`
	Object     string `bun:"object,pk"`
	Names      string `bun:"names"`
	Issuer     string `bun:"issuer"`
	LeafSHA256 string `bun:"leaf_sha256"`
	NotBefore  int64  `bun:"not_before"`
	NotAfter   int64  `bun:"not_after"`
	Level      string `bun:"level"`
	Problem    string `bun:"problem"`
	NextAt     int64  `bun:"next_at"`
	SeenAt     int64  `bun:"seen_at"`
}

func watchRowOf(w *hub.Watch) watchRow {
	return watchRow{
		Kind: string(w.Kind), Object: w.Object, Names: strings.Join(w.Names, " "), Issuer: w.Issuer, LeafSHA256: w.LeafSHA256,
		NotBefore: millis(w.NotBefore), NotAfter: millis(w.NotAfter), Level: string(w.Level), Problem: w.Problem,
		NextAt: millis(w.NextAt), SeenAt: millis(w.SeenAt),
	}
}

func (r *watchRow) watch() hub.Watch {
	return hub.Watch{
		Kind: hub.WatchKind(r.Kind), Object: r.Object, Names: strings.Fields(r.Names), Issuer: r.Issuer, LeafSHA256: r.LeafSHA256,
		NotBefore: moment(r.NotBefore), NotAfter: moment(r.NotAfter), Level: hub.WatchLevel(r.Level), Problem: r.Problem,
		NextAt: moment(r.NextAt), SeenAt: moment(r.SeenAt),
	}
}

// maxRows is how many rows one statement takes: databases bound the number of values.
const maxRows = 500

// PutWatches makes or replaces watches.
func (db *DB) PutWatches(ctx context.Context, watches []hub.Watch) error {
	if len(watches) == 0 {
		return nil
	}
	return db.inTx(ctx, "keep watches", func(ctx context.Context, tx bun.Tx) error { return putWatches(ctx, tx, watches) })
}

func putWatches(ctx context.Context, tx bun.Tx, watches []hub.Watch) error {
	for some := range slices.Chunk(watches, maxRows) {
		rows := make([]watchRow, 0, len(some))
		for i := range some {
			rows = append(rows, watchRowOf(&some[i]))
		}
		_, err := tx.NewInsert().Model(&rows).On("CONFLICT (kind, object) DO UPDATE").
			Set("names = EXCLUDED.names, issuer = EXCLUDED.issuer, leaf_sha256 = EXCLUDED.leaf_sha256").
			Set("not_before = EXCLUDED.not_before, not_after = EXCLUDED.not_after, level = EXCLUDED.level").
			Set("problem = EXCLUDED.problem, next_at = EXCLUDED.next_at, seen_at = EXCLUDED.seen_at").Exec(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteWatches forgets watches of a kind.
func (db *DB) DeleteWatches(ctx context.Context, kind hub.WatchKind, objects []string) error {
	for some := range slices.Chunk(objects, maxRows) {
		_, err := db.write.NewDelete().Model((*watchRow)(nil)).Where("kind = ? AND object IN (?)", string(kind), bun.List(some)).Exec(ctx)
		if err != nil {
			return fmt.Errorf("forget watches: %w", err)
		}
	}
	return nil
}

// DueWatches lists up to limit watches whose level changes by now, the longest due first: one query by an index.
func (db *DB) DueWatches(ctx context.Context, now time.Time, limit int) ([]hub.Watch, error) {
	var rows []watchRow
	err := db.read.NewSelect().Model(&rows).Where("next_at > 0 AND next_at <= ?", millis(now)).Order("next_at").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for due watches: %w", err)
	}
	return convert(rows, (*watchRow).watch), nil
}

// Watches lists watches of a kind (all where it is empty) behind an object, by kind and object.
func (db *DB) Watches(ctx context.Context, kind hub.WatchKind, after string, limit int) ([]hub.Watch, error) {
	var rows []watchRow
	q := db.read.NewSelect().Model(&rows).Order("kind", "object").Limit(int64(limit))
	if kind != "" {
		q = q.Where("kind = ?", string(kind))
	}
	if afterKind, afterObject, ok := strings.Cut(after, " "); ok {
		q = q.Where("(kind > ? OR kind = ? AND object > ?)", afterKind, afterKind, afterObject)
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list watches: %w", err)
	}
	return convert(rows, (*watchRow).watch), nil
}

// WatchedLeaves are the leaves of all watches of a kind by object.
func (db *DB) WatchedLeaves(ctx context.Context, kind hub.WatchKind, prefix string) (map[string]string, error) {
	var rows []watchRow
	q := db.read.NewSelect().Model(&rows).Column("object", "leaf_sha256").Where("kind = ?", string(kind))
	if prefix != "" {
		// '0' is the character behind '/'.
		q = q.Where("object >= ? AND object < ?", prefix+"/", prefix+"0")
	}
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("read watches: %w", err)
	}
	leaves := make(map[string]string, len(rows))
	for i := range rows {
		leaves[rows[i].Object] = rows[i].LeafSHA256
	}
	return leaves, nil
}

// IsManaged says whether the hub manages a leaf.
func (db *DB) IsManaged(ctx context.Context, leaf string) (bool, error) {
	is, err := db.read.NewSelect().Model((*watchRow)(nil)).Where("leaf_sha256 = ? AND kind = ?", leaf, string(hub.WatchManaged)).Exists(ctx)
	if err != nil {
		return false, fmt.Errorf("read watches: %w", err)
	}
	return is, nil
}

type endpointRow struct {
	bun.BaseModel `bun:"table:endpoints,alias:endpoints"`

	Name       string `bun:"name,pk"`
	Address    string `bun:"address"`
	ServerName string `bun:"server_name"`
	Trust      string `bun:"trust"`
	CreatedBy  string `bun:"created_by"`
	CreatedAt  int64  `bun:"created_at"`
	Failures   int64  `bun:"failures"`
	NextProbe  int64  `bun:"next_probe"`
}

func (r *endpointRow) endpoint() hub.Endpoint {
	return hub.Endpoint{
		Name: r.Name, Address: r.Address, ServerName: r.ServerName, Trust: r.Trust, CreatedBy: r.CreatedBy,
		CreatedAt: moment(r.CreatedAt), Failures: r.Failures, NextProbe: moment(r.NextProbe),
	}
}

// InsertEndpoint makes an endpoint; hub.ErrConflict where there is one of its name. Event tells of it.
func (db *DB) InsertEndpoint(ctx context.Context, e hub.Endpoint, event hub.AuditEvent) error {
	row := &endpointRow{
		Name: e.Name, Address: e.Address, ServerName: e.ServerName, Trust: e.Trust, CreatedBy: e.CreatedBy,
		CreatedAt: millis(db.now()), NextProbe: millis(e.NextProbe),
	}
	return db.inTx(ctx, "add endpoint", func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// DeleteEndpoint forgets an endpoint and its watch; event tells of it.
func (db *DB) DeleteEndpoint(ctx context.Context, name string, event hub.AuditEvent) error {
	return db.inTx(ctx, "remove endpoint", func(ctx context.Context, tx bun.Tx) error {
		result, err := tx.NewDelete().Model((*endpointRow)(nil)).Where("name = ?", name).Exec(ctx)
		if err := changed("endpoint", result, err); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*watchRow)(nil)).Where("kind = ? AND object = ?", string(hub.WatchEndpoint), name).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// Endpoints lists endpoints behind a name, by name.
func (db *DB) Endpoints(ctx context.Context, after string, limit int) ([]hub.Endpoint, error) {
	var rows []endpointRow
	if err := db.read.NewSelect().Model(&rows).Where("name > ?", after).Order("name").Limit(int64(limit)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	return convert(rows, (*endpointRow).endpoint), nil
}

// DueEndpoints lists up to limit endpoints that are to be looked at by now.
func (db *DB) DueEndpoints(ctx context.Context, now time.Time, limit int) ([]hub.Endpoint, error) {
	var rows []endpointRow
	err := db.read.NewSelect().Model(&rows).Where("next_probe <= ?", millis(now)).Order("next_probe").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for due endpoints: %w", err)
	}
	return convert(rows, (*endpointRow).endpoint), nil
}

// SetProbed writes down how often an endpoint failed in a row and when it is looked at next. The error is
// hub.ErrNotFound where it is not watched any more.
func (db *DB) SetProbed(ctx context.Context, name string, failures int64, next time.Time) error {
	result, err := db.write.NewUpdate().Model((*endpointRow)(nil)).Set("failures = ?", failures).Set("next_probe = ?", millis(next)).
		Where("name = ?", name).Exec(ctx)
	if err := changed("endpoint", result, err); err != nil {
		return fmt.Errorf("write down probe of %s: %w", name, err)
	}
	return nil
}

// JobFigures counts jobs since a time.
func (db *DB) JobFigures(ctx context.Context, since time.Time) (hub.JobFigures, error) {
	figures := hub.JobFigures{FailedByClass: map[string]int{}}
	var counts []struct {
		Class string `bun:"error_class"`
		N     int    `bun:"n"`
	}
	err := db.read.NewSelect().Model((*jobRow)(nil)).ColumnExpr("error_class, COUNT(*) AS n").
		Where("state IN ('failed', 'waiting') AND kind = 'issue' AND updated_at >= ?", millis(since)).Group("error_class").Scan(ctx, &counts)
	if err != nil {
		return figures, fmt.Errorf("count failed jobs: %w", err)
	}
	for _, c := range counts {
		figures.FailedByClass[c.Class] = c.N
	}
	var took []int64
	err = db.read.NewSelect().Model((*jobRow)(nil)).ColumnExpr("updated_at - created_at AS took").
		Where("state = 'done' AND kind = 'issue' AND commit_hash <> '' AND updated_at >= ?", millis(since)).Order("took").Limit(100_000).Scan(ctx, &took)
	if err != nil {
		return figures, fmt.Errorf("time jobs: %w", err)
	}
	for _, ms := range took {
		figures.Durations = append(figures.Durations, time.Duration(ms)*time.Millisecond)
	}
	return figures, nil
}
