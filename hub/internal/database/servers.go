// This file keeps servers, join tokens and what agents reported.

package database

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// reportsKeep is how long the ids of reports are remembered, so that one sent twice counts once.
const reportsKeep = 30 * 24 * time.Hour

type serverRow struct {
	bun.BaseModel `bun:"table:servers,alias:servers"`

	Name           string `bun:"name,pk"`
	State          string `bun:"state"`
	Fingerprint    string `bun:"fingerprint"`
	PublicKey      string `bun:"public_key"`
	CredentialHash string `bun:"credential_hash"`
	Facts          string `bun:"facts"`
	CreatedAt      int64  `bun:"created_at"`
	LastSeenAt     int64  `bun:"last_seen_at"`
	Counter        uint64 `bun:"counter"`
	RegressedAt    int64  `bun:"regressed_at"`
	Commit         string `bun:"commit_hash"`
	Generation     uint64 `bun:"generation"`
	Held           bool   `bun:"held"`
	Status         string `bun:"status"`
	Message        string `bun:"message"`
}

func newServerRow(s hub.Server) (*serverRow, error) {
	facts, err := json.Marshal(s.Facts)
	if err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	return &serverRow{
		Name: s.Name, State: string(s.State), Fingerprint: s.Fingerprint, PublicKey: s.PublicKey,
		CredentialHash: s.CredentialHash, Facts: string(facts), CreatedAt: millis(s.CreatedAt),
		LastSeenAt: millis(s.LastSeenAt), Counter: s.Counter, RegressedAt: millis(s.RegressedAt), Commit: s.Commit,
		Generation: s.Generation, Held: s.Held, Status: s.Status, Message: s.Message,
	}, nil
}

func (r *serverRow) server() hub.Server {
	s := hub.Server{
		Name: r.Name, State: hub.ServerState(r.State), Fingerprint: r.Fingerprint, PublicKey: r.PublicKey,
		CredentialHash: r.CredentialHash, CreatedAt: moment(r.CreatedAt), LastSeenAt: moment(r.LastSeenAt),
		Counter: r.Counter, RegressedAt: moment(r.RegressedAt), Commit: r.Commit, Generation: r.Generation, Held: r.Held,
		Status: r.Status, Message: r.Message,
	}
	_ = json.Unmarshal([]byte(r.Facts), &s.Facts) // facts decide nothing; unreadable ones are shown as none
	return s
}

type joinTokenRow struct {
	bun.BaseModel `bun:"table:join_tokens,alias:join_tokens"`

	Hash        string `bun:"hash,pk"`
	Server      string `bun:"server"`
	PreApproved bool   `bun:"pre_approved"`
	Labels      string `bun:"labels"`
	CreatedBy   string `bun:"created_by"`
	CreatedAt   int64  `bun:"created_at"`
	ExpiresAt   int64  `bun:"expires_at"`
	UsedAt      int64  `bun:"used_at"`
}

// InsertJoinToken keeps a token; event tells of it.
func (db *DB) InsertJoinToken(ctx context.Context, t hub.JoinToken, event hub.AuditEvent) error {
	return db.inTx(ctx, "keep join token", func(ctx context.Context, tx bun.Tx) error {
		if err := insertJoinToken(ctx, tx, t); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

func insertJoinToken(ctx context.Context, tx bun.Tx, t hub.JoinToken) error {
	labels, err := json.Marshal(t.Labels)
	if err != nil {
		return fmt.Errorf("encode labels: %w", err)
	}
	_, err = tx.NewInsert().Model(&joinTokenRow{
		Hash: t.Hash, Server: t.Server, PreApproved: t.PreApproved, Labels: string(labels), CreatedBy: t.CreatedBy,
		CreatedAt: millis(t.CreatedAt), ExpiresAt: millis(t.ExpiresAt), UsedAt: millis(t.UsedAt),
	}).Exec(ctx)
	return err
}

// JoinToken returns the token with this hash, used or expired ones too.
func (db *DB) JoinToken(ctx context.Context, hash string) (hub.JoinToken, error) {
	r, err := one[joinTokenRow](ctx, db.read, "join token", "hash = ?", hash)
	if err != nil {
		return hub.JoinToken{}, err
	}
	t := hub.JoinToken{
		Hash: r.Hash, Server: r.Server, PreApproved: r.PreApproved, CreatedBy: r.CreatedBy,
		CreatedAt: moment(r.CreatedAt), ExpiresAt: moment(r.ExpiresAt), UsedAt: moment(r.UsedAt),
	}
	if err := json.Unmarshal([]byte(r.Labels), &t.Labels); err != nil {
		return hub.JoinToken{}, fmt.Errorf("read join token: %w", err)
	}
	return t, nil
}

// InsertServer consumes the unused, unexpired join token with tokenHash, which must be made for that name, and keeps
// the server, in one transaction: of many uses at once exactly one succeeds. A server of the name that is there
// already is enrolled anew: its old key and credential end here.
func (db *DB) InsertServer(ctx context.Context, s hub.Server, tokenHash string, event hub.AuditEvent) error {
	row, err := newServerRow(s)
	if err != nil {
		return err
	}
	return db.inTx(ctx, "register server", func(ctx context.Context, tx bun.Tx) error {
		now := millis(db.now())
		result, err := tx.NewUpdate().Model((*joinTokenRow)(nil)).Set("used_at = ?", now).
			Where("hash = ? AND server = ? AND used_at = 0 AND expires_at > ?", tokenHash, s.Name, now).Exec(ctx)
		if err := changed("use join token", result, err); errors.Is(err, hub.ErrNotFound) {
			return &hub.Error{Class: hub.ErrUnauthenticated, Message: "the join token is unknown, used, expired or made for another server: ask for a new one (certferry server token)"}
		} else if err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*serverRow)(nil)).Where("name = ?", s.Name).Exec(ctx); err != nil {
			return err
		}
		if err := dropRotation(ctx, tx, s.Name); err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// Server returns the server called name.
func (db *DB) Server(ctx context.Context, name string) (hub.Server, error) {
	row, err := one[serverRow](ctx, db.read, "server", "name = ?", name)
	if err != nil {
		return hub.Server{}, err
	}
	return row.server(), nil
}

// ServerByCredential returns the server whose credential has this hash. Its name, key and state are of
// now; what its heartbeats said may be older.
func (db *DB) ServerByCredential(ctx context.Context, hash string) (hub.Server, error) {
	// What is read now belongs to the cache of now: a transaction that ends meanwhile puts another in its place.
	known := db.credentials.Load()
	if s, ok := known.Load(hash); ok {
		if server, ok := s.(hub.Server); ok {
			return server, nil
		}
	}
	row, err := one[serverRow](ctx, db.read, "server", "credential_hash = ?", hash)
	if err != nil {
		return hub.Server{}, err
	}
	server := row.server()
	known.Store(hash, server)
	return server, nil
}

// Servers lists servers by name, from after the name after.
func (db *DB) Servers(ctx context.Context, after string, limit int) ([]hub.Server, error) {
	var rows []serverRow
	err := db.read.NewSelect().Model(&rows).Where("name > ?", after).Order("name").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	return convert(rows, (*serverRow).server), nil
}

// ApproveServer lets the server receive certificates if its key has this fingerprint. Where it is that of a new key which
// waits, that becomes the server's.
func (db *DB) ApproveServer(ctx context.Context, name, fingerprint string, event hub.AuditEvent) error {
	return db.inTx(ctx, "approve server", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[serverRow](ctx, tx, "server", "name = ?", name)
		if err != nil {
			return err
		}
		if row.Fingerprint != fingerprint && row.State == string(hub.ServerApproved) {
			if found, err := db.approveRotation(ctx, tx, row, fingerprint, event); found || err != nil {
				return err
			}
		}
		switch {
		case row.Fingerprint != fingerprint:
			return &hub.Error{
				Class: hub.ErrConflict, Message: "the fingerprint is not that of the server's key: compare it with what certferry-agent enroll printed on the server",
				Faults: []hub.Fault{{Location: "body.fingerprint", Message: "is not that of the registered key"}},
			}
		case row.State == string(hub.ServerDisabled):
			return &hub.Error{Class: hub.ErrConflict, Message: "the server is disabled: enrol it anew with a new join token"}
		}
		if _, err := tx.NewUpdate().Model(row).Set("state = ?", string(hub.ServerApproved)).WherePK().Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// RecordHeartbeat keeps what a heartbeat said of s.Name; facts only where they came with it (a host name). A counter
// lower than the one before is kept too, and when it came: RegressedAt. The same counter is a heartbeat sent twice.
func (db *DB) RecordHeartbeat(ctx context.Context, s hub.Server) error {
	row, err := newServerRow(s)
	if err != nil {
		return err
	}
	columns := []string{"last_seen_at", "counter", "commit_hash", "generation", "held", "status", "message"}
	if s.Facts.Hostname != "" || s.Facts.OS != "" {
		columns = append(columns, "facts")
	}
	result, err := db.write.NewUpdate().Model(row).Column(columns...).
		Set("regressed_at = CASE WHEN counter > ? THEN ? ELSE regressed_at END", s.Counter, millis(db.now())).
		WherePK().Exec(ctx)
	if err := changed("record heartbeat", result, err); err != nil {
		return fmt.Errorf("record heartbeat: %w", err)
	}
	return nil
}

type observationRow struct {
	bun.BaseModel `bun:"table:observations,alias:observations"`

	Server      string `bun:"server,pk"`
	Certificate string `bun:"certificate,pk"`
	Target      string `bun:"target,pk"`
	Commit      string `bun:"commit_hash"`
	Generation  uint64 `bun:"generation"`
	State       string `bun:"state"`
	Phase       string `bun:"phase"`
	LeafSHA256  string `bun:"leaf_sha256"`
	Detail      string `bun:"detail"`
	ReportedAt  int64  `bun:"reported_at"`
}

func (r *observationRow) observation() hub.Observation {
	return hub.Observation{
		Server: r.Server, Certificate: r.Certificate, Target: r.Target, Commit: r.Commit, Generation: r.Generation,
		State: apiv1.DeploymentState(r.State), Phase: apiv1.DeploymentPhase(r.Phase), LeafSHA256: r.LeafSHA256,
		Detail: r.Detail, ReportedAt: moment(r.ReportedAt),
	}
}

type reportRow struct {
	bun.BaseModel `bun:"table:reports,alias:reports"`

	Server     string `bun:"server,pk"`
	ID         string `bun:"id,pk"`
	ReceivedAt int64  `bun:"received_at"`
}

// RecordReport keeps what a server reported, and answers false for a report that was recorded before. A late report
// does not replace what a later one said.
func (db *DB) RecordReport(ctx context.Context, server, reportID string, observations []hub.Observation) (bool, error) {
	fresh := false
	err := db.inTx(ctx, "record report", func(ctx context.Context, tx bun.Tx) error {
		now := db.now()
		result, err := tx.NewInsert().Model(&reportRow{Server: server, ID: reportID, ReceivedAt: millis(now)}).
			On("CONFLICT DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if fresh = n == 1; err != nil || !fresh {
			return err
		}
		if _, err := tx.NewDelete().Model((*reportRow)(nil)).
			Where("server = ? AND received_at < ?", server, millis(now.Add(-reportsKeep))).Exec(ctx); err != nil {
			return err
		}
		return upsertObservations(ctx, tx, server, observations)
	})
	return fresh && err == nil, err
}

func upsertObservations(ctx context.Context, tx bun.Tx, server string, observations []hub.Observation) error {
	for _, o := range observations {
		row := &observationRow{
			Server: server, Certificate: o.Certificate, Target: o.Target, Commit: o.Commit, Generation: o.Generation,
			State: string(o.State), Phase: string(o.Phase), LeafSHA256: o.LeafSHA256, Detail: o.Detail, ReportedAt: millis(o.ReportedAt),
		}
		q := tx.NewInsert().Model(row).On("CONFLICT (server, certificate, target) DO UPDATE")
		for _, column := range []string{"commit_hash", "generation", "state", "phase", "leaf_sha256", "detail", "reported_at"} {
			q = q.Set("? = EXCLUDED.?", bun.Ident(column), bun.Ident(column))
		}
		if _, err := q.Where("observations.reported_at <= EXCLUDED.reported_at").Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ServerObservations lists what a server reported last.
func (db *DB) ServerObservations(ctx context.Context, server string) ([]hub.Observation, error) {
	return db.observations(ctx, "server = ?", server)
}

// CertificateObservations lists what was reported last of a certificate on all servers.
func (db *DB) CertificateObservations(ctx context.Context, certificate string) ([]hub.Observation, error) {
	return db.observations(ctx, "certificate = ?", certificate)
}

func (db *DB) observations(ctx context.Context, where string, arg string) ([]hub.Observation, error) {
	var rows []observationRow
	err := db.read.NewSelect().Model(&rows).Where(where, arg).Order("certificate", "server", "target").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list observations: %w", err)
	}
	return convert(rows, (*observationRow).observation), nil
}
