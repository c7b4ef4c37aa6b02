-- What servers that keep their own private keys are asked for: one certificate request for each certificate, and what
-- they answered. The request itself is base64 of its DER.

-- +goose Up
CREATE TABLE csrs (
    certificate TEXT    NOT NULL PRIMARY KEY,
    id          TEXT    NOT NULL,
    job_id      TEXT    NOT NULL,
    server      TEXT    NOT NULL,
    names       TEXT    NOT NULL,
    key_type    TEXT    NOT NULL,
    new_key     BOOLEAN NOT NULL,
    reuse       TEXT    NOT NULL,
    csr         TEXT    NOT NULL,
    spki_sha256 TEXT    NOT NULL,
    refusal     TEXT    NOT NULL,
    asked_at    BIGINT  NOT NULL,
    answered_at BIGINT  NOT NULL
);
CREATE UNIQUE INDEX csrs_id ON csrs (id);
CREATE INDEX csrs_server ON csrs (server);
