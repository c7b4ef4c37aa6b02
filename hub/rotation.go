// This file says what the hub knows of servers whose key is being replaced.

package hub

import "time"

// RotationAllowed is for how long a new key is taken without another look after a person asked for it.
const RotationAllowed = 30 * time.Minute

// KeyRotation is the replacement of a server's key that is under way.
type KeyRotation struct {
	Server string
	// AskedBy asked the server for a new key at AskedAt; both are zero where the server came with one by itself.
	AskedBy string
	AskedAt time.Time
	// Fingerprint and PublicKey (ASCII-armored) are of the new key, which waits for a person; empty before there is one.
	Fingerprint string
	PublicKey   string
}

// Allowed says whether a new key may be taken at now, because a person asked for it a moment ago.
func (r KeyRotation) Allowed(now time.Time) bool {
	return !r.AskedAt.IsZero() && now.Before(r.AskedAt.Add(RotationAllowed))
}
