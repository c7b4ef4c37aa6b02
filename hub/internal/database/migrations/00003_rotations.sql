-- The replacement of servers' keys: asked for by a person, or a new key that waits for one. A job may be told to make a
-- new private key whatever the certificate says, as somebody else has the old one.

-- +goose Up
CREATE TABLE key_rotations (
    server      TEXT   NOT NULL PRIMARY KEY,
    asked_by    TEXT   NOT NULL,
    asked_at    BIGINT NOT NULL,
    fingerprint TEXT   NOT NULL,
    public_key  TEXT   NOT NULL
);
ALTER TABLE jobs ADD COLUMN new_key BOOLEAN NOT NULL DEFAULT FALSE;
