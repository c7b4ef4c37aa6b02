// Package auth knows who a caller is: people by password and rotating sessions, agents by a credential of their own.
//
// Secrets are kept as hashes only. An unknown account costs the same time as a wrong password; many failures are
// throttled by account and by address, never locked out for good. There is no default account: the first
// administrator comes from a one-time setup code.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// Prefixes tell the kinds of tokens apart, for people and for secret scanners.
const (
	JoinPrefix       = "cfj_"
	CredentialPrefix = "cfa_"
	refreshPrefix    = "cfr_"
	setupPrefix      = "cfs_"
)

// NewToken makes a token of 256 random bits behind prefix, and its hash.
func NewToken(prefix string) (token, hash string) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails (crypto/rand)
	token = prefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return token, HashToken(token)
}

// NewCredential makes an agent's credential and its hash.
func NewCredential() (token, hash string) { return NewToken(CredentialPrefix) }

// HashToken is the lower-case hex SHA-256 of a token. Tokens hold 256 random bits, so that a fast hash is enough.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
