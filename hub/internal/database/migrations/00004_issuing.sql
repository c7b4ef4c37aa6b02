-- Issuing for real: jobs of several kinds that can be cancelled and tell how far they are, what was spent of the CAs'
-- limits, and when CAs want certificates renewed.

-- +goose Up
CREATE TABLE jobs_next (
    id          TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('issue', 'dry_run')),
    certificate TEXT    NOT NULL,
    issuer      TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'failed', 'done', 'cancelled')),
    phase       TEXT    NOT NULL,
    attempts    BIGINT  NOT NULL,
    not_before  BIGINT  NOT NULL,
    error       TEXT    NOT NULL,
    error_class TEXT    NOT NULL,
    commit_hash TEXT    NOT NULL,
    new_key     BOOLEAN NOT NULL,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL
);
INSERT INTO jobs_next (id, kind, certificate, issuer, actor, reason, state, phase, attempts, not_before, error, error_class,
    commit_hash, new_key, created_at, updated_at)
SELECT id, 'issue', certificate, '', actor, reason, state, '', attempts, not_before, error, error_class,
    commit_hash, new_key, created_at, updated_at
FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_next RENAME TO jobs;
-- One active job of a kind for each certificate: a second order for the same names would cost the CA's limits.
CREATE UNIQUE INDEX jobs_active ON jobs (certificate, kind) WHERE state IN ('queued', 'running', 'waiting');
CREATE INDEX jobs_certificate ON jobs (certificate, kind, id);
CREATE INDEX jobs_due ON jobs (state, not_before);

CREATE TABLE job_lines (
    job_id TEXT   NOT NULL,
    seq    BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    phase  TEXT   NOT NULL,
    line   TEXT   NOT NULL,
    PRIMARY KEY (job_id, seq)
);
CREATE INDEX job_lines_at ON job_lines (at);

-- What orders spent of an account's limits, or may have spent. What turns out not to be spent is given back.
CREATE TABLE spendings (
    order_id TEXT    NOT NULL,
    account  TEXT    NOT NULL,
    spending TEXT    NOT NULL,
    scope    TEXT    NOT NULL,
    object   TEXT    NOT NULL,
    renewal  BOOLEAN NOT NULL,
    at       BIGINT  NOT NULL,
    PRIMARY KEY (order_id, spending, scope, object)
);
CREATE INDEX spendings_scope ON spendings (account, spending, scope, object, at);
CREATE INDEX spendings_at ON spendings (at);

-- Accounts at which the CA asked to wait.
CREATE TABLE account_pauses (
    account TEXT   NOT NULL PRIMARY KEY,
    until   BIGINT NOT NULL,
    reason  TEXT   NOT NULL
);

-- When CAs want certificates renewed (RFC 9773).
CREATE TABLE renewals (
    certificate     TEXT   NOT NULL PRIMARY KEY,
    leaf_sha256     TEXT   NOT NULL,
    window_start    BIGINT NOT NULL,
    window_end      BIGINT NOT NULL,
    renew_at        BIGINT NOT NULL,
    explanation_url TEXT   NOT NULL,
    checked_at      BIGINT NOT NULL,
    next_check      BIGINT NOT NULL
);
CREATE INDEX renewals_next ON renewals (next_check);
