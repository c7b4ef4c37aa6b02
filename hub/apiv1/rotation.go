// Wire types of the replacement of servers' keys.

package apiv1

import "time"

// RotateKeyRequest is the body of POST /servers/{name}/rotate-key.
type RotateKeyRequest struct {
	// Compromised says that somebody else may have the server's key: the server is shut out at once, and all that its key
	// could open is issued again with new keys.
	Compromised bool   `json:"compromised,omitempty"`
	Reason      string `json:"reason,omitempty" maxLength:"256"`
}

// KeyRotation answers POST /servers/{name}/rotate-key.
type KeyRotation struct {
	Server string `json:"server"`
	// State is asked: the agent makes a new key at its next heartbeat, which is taken until Until. Or blocked: the server
	// is shut out, and JoinToken enrols it anew.
	State string     `json:"state" enum:"asked,blocked"`
	Until *time.Time `json:"until,omitempty"`
	// JoinToken is shown this once.
	JoinToken *JoinToken `json:"join_token,omitempty"`
	// Certificates are issued again with new keys, as the old key could open theirs.
	Certificates []string `json:"certificates,omitempty"`
}

// OfferKeyRequest is the body of POST /servers/rotate-key: an agent's new key.
type OfferKeyRequest struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	// PublicKey is ASCII-armored. Signature is an armored OpenPGP signature by the present key over a line that names the
	// kind of document, the repository and the server, followed by PublicKey.
	PublicKey string `json:"public_key" minLength:"1" maxLength:"16384"`
	Signature string `json:"signature" minLength:"1" maxLength:"16384"`
}

// OfferedKey answers POST /servers/rotate-key.
type OfferedKey struct {
	Fingerprint string `json:"fingerprint"`
	// State is taken, or pending until a person approves the fingerprint. The present key stays good until the server's
	// branch is sealed to the new one.
	State string `json:"state" enum:"taken,pending"`
}
