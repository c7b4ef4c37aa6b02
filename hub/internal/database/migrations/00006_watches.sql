-- All certificates that somebody should hear of before they end: those that the hub manages, those that agents found, and
-- those that remote endpoints show. next_at is the moment at which the level of one changes.

-- +goose Up
CREATE TABLE watches (
    kind        TEXT   NOT NULL CHECK (kind IN ('managed', 'found', 'endpoint')),
    object      TEXT   NOT NULL,
    names       TEXT   NOT NULL,
    issuer      TEXT   NOT NULL,
    leaf_sha256 TEXT   NOT NULL,
    not_before  BIGINT NOT NULL,
    not_after   BIGINT NOT NULL,
    level       TEXT   NOT NULL,
    problem     TEXT   NOT NULL,
    next_at     BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    PRIMARY KEY (kind, object)
);
CREATE INDEX watches_next ON watches (next_at);
CREATE INDEX watches_leaf ON watches (leaf_sha256, kind);

CREATE TABLE endpoints (
    name        TEXT   NOT NULL PRIMARY KEY,
    address     TEXT   NOT NULL,
    server_name TEXT   NOT NULL,
    trust       TEXT   NOT NULL,
    created_by  TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    next_probe  BIGINT NOT NULL
);
CREATE INDEX endpoints_next ON endpoints (next_probe);
