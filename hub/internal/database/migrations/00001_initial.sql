-- The first schema. It is portable SQL: identifiers made by the program, times as milliseconds since 1970 in UTC
-- (0 for none), plain indexes. Desired state is not here: it lives in Git.

-- +goose Up
CREATE TABLE servers (
    name            TEXT    NOT NULL PRIMARY KEY,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'approved', 'disabled')),
    fingerprint     TEXT    NOT NULL,
    public_key      TEXT    NOT NULL,
    credential_hash TEXT    NOT NULL,
    facts           TEXT    NOT NULL,
    created_at      BIGINT  NOT NULL,
    last_seen_at    BIGINT  NOT NULL,
    counter         BIGINT  NOT NULL,
    regressed_at    BIGINT  NOT NULL,
    commit_hash     TEXT    NOT NULL,
    generation      BIGINT  NOT NULL,
    held            BOOLEAN NOT NULL,
    status          TEXT    NOT NULL,
    message         TEXT    NOT NULL
);
CREATE UNIQUE INDEX servers_credential ON servers (credential_hash);

CREATE TABLE observations (
    server      TEXT   NOT NULL,
    certificate TEXT   NOT NULL,
    target      TEXT   NOT NULL,
    commit_hash TEXT   NOT NULL,
    generation  BIGINT NOT NULL,
    state       TEXT   NOT NULL,
    phase       TEXT   NOT NULL,
    leaf_sha256 TEXT   NOT NULL,
    detail      TEXT   NOT NULL,
    reported_at BIGINT NOT NULL,
    PRIMARY KEY (server, certificate, target)
);
CREATE INDEX observations_certificate ON observations (certificate, server, target);

CREATE TABLE reports (
    server      TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (server, id)
);

CREATE TABLE users (
    name          TEXT    NOT NULL PRIMARY KEY,
    role          TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password_hash TEXT    NOT NULL,
    disabled      BOOLEAN NOT NULL,
    created_at    BIGINT  NOT NULL,
    sessions_from BIGINT  NOT NULL
);

CREATE TABLE sessions (
    id            TEXT   NOT NULL PRIMARY KEY,
    user_name     TEXT   NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    refresh_hash  TEXT   NOT NULL,
    previous_hash TEXT   NOT NULL,
    rotated_at    BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL
);
CREATE UNIQUE INDEX sessions_refresh ON sessions (refresh_hash);
CREATE INDEX sessions_user ON sessions (user_name);

-- Refresh tokens that were replaced. One that comes back long after was stolen, however often the thief has rotated
-- since.
CREATE TABLE retired_tokens (
    hash       TEXT NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE
);
CREATE INDEX retired_tokens_session ON retired_tokens (session_id);

CREATE TABLE join_tokens (
    hash         TEXT    NOT NULL PRIMARY KEY,
    server       TEXT    NOT NULL,
    pre_approved BOOLEAN NOT NULL,
    labels       TEXT    NOT NULL,
    created_by   TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT  NOT NULL,
    used_at      BIGINT  NOT NULL
);

CREATE TABLE jobs (
    id          TEXT   NOT NULL PRIMARY KEY,
    certificate TEXT   NOT NULL,
    actor       TEXT   NOT NULL,
    reason      TEXT   NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'failed', 'done')),
    attempts    BIGINT NOT NULL,
    not_before  BIGINT NOT NULL,
    error       TEXT   NOT NULL,
    error_class TEXT   NOT NULL,
    commit_hash TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
-- One active job for each certificate: a second order for the same names would cost the CA's limits.
CREATE UNIQUE INDEX jobs_active ON jobs (certificate) WHERE state IN ('queued', 'running', 'waiting');
CREATE INDEX jobs_certificate ON jobs (certificate, id);
CREATE INDEX jobs_due ON jobs (state, not_before);

CREATE TABLE audit (
    seq        BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    object     TEXT   NOT NULL,
    outcome    TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    detail     TEXT   NOT NULL,
    prev_hash  TEXT   NOT NULL,
    hash       TEXT   NOT NULL
);

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
