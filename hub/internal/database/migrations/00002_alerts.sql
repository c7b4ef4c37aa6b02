-- What people should know of. Resolved alerts stay, as history.

-- +goose Up
CREATE TABLE alerts (
    id          INTEGER NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL,
    object      TEXT    NOT NULL,
    level       TEXT    NOT NULL CHECK (level IN ('info', 'warning', 'critical')),
    message     TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('open', 'resolved')),
    count       BIGINT  NOT NULL,
    first_at    BIGINT  NOT NULL,
    last_at     BIGINT  NOT NULL,
    resolved_at BIGINT  NOT NULL
);
-- One open alert of a kind for an object: raising it again counts up.
CREATE UNIQUE INDEX alerts_open ON alerts (kind, object) WHERE state = 'open';
CREATE INDEX alerts_state ON alerts (state, id);
