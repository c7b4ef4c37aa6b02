// This file keeps the certificate requests that servers with keys of their own are asked for.

package database

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

type csrRow struct {
	bun.BaseModel `bun:"table:csrs,alias:csrs"`

	Certificate string `bun:"certificate,pk"`
	ID          string `bun:"id"`
	JobID       string `bun:"job_id"`
	Server      string `bun:"server"`
	Names       string `bun:"names"`
	KeyType     string `bun:"key_type"`
	NewKey      bool   `bun:"new_key"`
	Reuse       string `bun:"reuse"`
	CSR         string `bun:"csr"`
	SPKISHA256  string `bun:"spki_sha256"`
	Refusal     string `bun:"refusal"`
	AskedAt     int64  `bun:"asked_at"`
	AnsweredAt  int64  `bun:"answered_at"`
}

func (r *csrRow) request() (hub.CertificateRequest, error) {
	csr, err := base64.StdEncoding.DecodeString(r.CSR)
	if err != nil {
		return hub.CertificateRequest{}, fmt.Errorf("read certificate request of %s: %w", r.Certificate, err)
	}
	return hub.CertificateRequest{
		ID: r.ID, Certificate: r.Certificate, Server: r.Server, JobID: r.JobID, Names: strings.Fields(r.Names), KeyType: r.KeyType,
		NewKey: r.NewKey, Reuse: r.Reuse, AskedAt: moment(r.AskedAt), CSR: csr, SPKISHA256: r.SPKISHA256,
		AnsweredAt: moment(r.AnsweredAt), Refusal: r.Refusal,
	}, nil
}

// AskCSR asks a server for a certificate request, and answers what it sent where the same was asked before. What was
// asked for the certificate otherwise is forgotten.
func (db *DB) AskCSR(ctx context.Context, want hub.CertificateRequest) (asked hub.CertificateRequest, err error) {
	err = db.inTx(ctx, "ask for certificate request", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[csrRow](ctx, tx, "certificate request", "certificate = ?", want.Certificate)
		if err == nil {
			if asked, err = row.request(); err == nil && asked.Same(&want) {
				return nil
			}
			if _, err := tx.NewDelete().Model(row).WherePK().Exec(ctx); err != nil {
				return err
			}
		} else if !errors.Is(err, hub.ErrNotFound) {
			return err
		}
		row = &csrRow{
			Certificate: want.Certificate, ID: strings.ToLower(rand.Text()), JobID: want.JobID, Server: want.Server,
			Names: strings.Join(want.Names, " "), KeyType: want.KeyType, NewKey: want.NewKey, Reuse: want.Reuse, AskedAt: millis(db.now()),
		}
		if _, err := tx.NewInsert().Model(row).Exec(ctx); err != nil {
			return err
		}
		asked, err = row.request()
		return err
	})
	return asked, err
}

// AskedCSRs lists what a server is asked for and did not answer yet, by certificate. What no job waits for any more is
// left out.
func (db *DB) AskedCSRs(ctx context.Context, server string) ([]hub.CertificateRequest, error) {
	var rows []csrRow
	err := db.read.NewSelect().Model(&rows).Where("server = ? AND csr = ''", server).
		Where("EXISTS (SELECT 1 FROM jobs WHERE jobs.id = csrs.job_id AND jobs." + active + ")").Order("certificate").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list certificate requests: %w", err)
	}
	all := make([]hub.CertificateRequest, 0, len(rows))
	for i := range rows {
		asked, err := rows[i].request()
		if err != nil {
			return nil, err
		}
		all = append(all, asked)
	}
	return all, nil
}

// CSR returns what was asked under this id; hub.ErrNotFound where nothing is asked under it any more.
func (db *DB) CSR(ctx context.Context, id string) (hub.CertificateRequest, error) {
	row, err := one[csrRow](ctx, db.read, "certificate request", "id = ?", id)
	if err != nil {
		return hub.CertificateRequest{}, err
	}
	return row.request()
}

// AnswerCSR takes a server's request for answer.ID, with CSR and SPKISHA256, and lets the job that waits for it go on.
// Another request of the same key changes nothing, so that an answer which was lost does no harm; one of another key is
// hub.ErrConflict.
func (db *DB) AnswerCSR(ctx context.Context, answer hub.CertificateRequest, event hub.AuditEvent) error {
	return db.inTx(ctx, "take certificate request", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[csrRow](ctx, tx, "certificate request", "id = ? AND server = ?", answer.ID, answer.Server)
		if err != nil {
			return err
		}
		switch {
		case row.SPKISHA256 == answer.SPKISHA256:
			return nil
		case row.CSR != "":
			return &hub.Error{Class: hub.ErrConflict, Message: "the server sent a request of another key before"}
		}
		row.CSR, row.SPKISHA256 = base64.StdEncoding.EncodeToString(answer.CSR), answer.SPKISHA256
		row.Refusal, row.AnsweredAt = "", millis(db.now())
		if _, err := tx.NewUpdate().Model(row).Column("csr", "spki_sha256", "refusal", "answered_at").WherePK().Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model((*jobRow)(nil)).Set("not_before = 0").Set("updated_at = ?", millis(db.now())).
			Where("id = ? AND state = 'waiting'", row.JobID).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// RefuseCSR takes why a server does not answer what was asked under id. The same reason again changes nothing.
func (db *DB) RefuseCSR(ctx context.Context, id, server, reason string, event hub.AuditEvent) error {
	return db.inTx(ctx, "take refusal of certificate request", func(ctx context.Context, tx bun.Tx) error {
		row, err := one[csrRow](ctx, tx, "certificate request", "id = ? AND server = ?", id, server)
		if err != nil || row.Refusal == reason || row.CSR != "" {
			return err
		}
		row.Refusal = reason
		if _, err := tx.NewUpdate().Model(row).Column("refusal").WherePK().Exec(ctx); err != nil {
			return err
		}
		// The job says so at once.
		if _, err := tx.NewUpdate().Model((*jobRow)(nil)).Set("not_before = 0").Set("updated_at = ?", millis(db.now())).
			Where("id = ? AND state = 'waiting'", row.JobID).Exec(ctx); err != nil {
			return err
		}
		return db.appendAudit(ctx, tx, event)
	})
}

// PutOffForCSR puts a job off to notBefore as PutOffJob does, or not at all where the server answered meanwhile.
func (db *DB) PutOffForCSR(ctx context.Context, id string, notBefore time.Time, message string) error {
	return db.inTx(ctx, "put off job "+id, func(ctx context.Context, tx bun.Tx) error {
		answered, err := tx.NewSelect().Model((*csrRow)(nil)).Where("job_id = ? AND csr <> ''", id).Exists(ctx)
		if err != nil {
			return err
		}
		if answered {
			notBefore = time.Time{}
		}
		result, err := tx.NewUpdate().Model((*jobRow)(nil)).Set("state = ?", string(apiv1.JobWaiting)).
			Set("not_before = ?", millis(notBefore)).Set("attempts = attempts - 1").
			Set("error_class = ''").Set("error = ?", message).Set("updated_at = ?", millis(db.now())).
			Where("id = ? AND state = 'running'", id).Exec(ctx)
		return changed("job", result, err)
	})
}
