-- Secrets for DNS providers and CAs, encrypted to the hub's escrow key. Names of variables are no secret.

-- +goose Up
CREATE TABLE credentials (
    name       TEXT   NOT NULL PRIMARY KEY,
    provider   TEXT   NOT NULL,
    variables  TEXT   NOT NULL,
    sealed     TEXT   NOT NULL,
    created_by TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
