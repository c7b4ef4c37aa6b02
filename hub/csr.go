// This file says what the hub asks of servers that make and keep their own private keys.

package hub

import (
	"slices"
	"time"
)

// CertificateRequest is what a server is asked for, so that a certificate can be ordered for a key that never leaves it,
// and its answer.
type CertificateRequest struct {
	// ID names this asking: the same id always gets the same key.
	ID          string
	Certificate string
	Server      string
	// JobID is the job that waits for it.
	JobID   string
	Names   []string
	KeyType string
	// NewKey says that somebody asked for a new key, as the ones before may be known to others.
	NewKey bool
	// Reuse is the lower-case hex SHA-256 of the public key to use again; empty for a new key.
	Reuse   string
	AskedAt time.Time

	// CSR is the server's PKCS #10 request in DER, of the key that SPKISHA256 names; both are empty before it answered.
	CSR        []byte
	SPKISHA256 string
	AnsweredAt time.Time
	// Refusal is why the server does not answer, for people.
	Refusal string
}

// Answered says whether the server sent its request.
func (r *CertificateRequest) Answered() bool { return len(r.CSR) > 0 }

// Same says whether two ask for the same.
func (r *CertificateRequest) Same(other *CertificateRequest) bool {
	return r.Certificate == other.Certificate && r.Server == other.Server && r.JobID == other.JobID && r.KeyType == other.KeyType &&
		r.NewKey == other.NewKey && r.Reuse == other.Reuse && slices.Equal(r.Names, other.Names)
}
