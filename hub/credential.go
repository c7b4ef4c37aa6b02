// This file is about secrets that the hub keeps for DNS providers and CAs.

package hub

import "time"

// EABProvider is the provider of credentials that bind an ACME account to one at its CA (RFC 8555 §7.3.4).
const EABProvider = "eab"

// Credential is a set of variables for a DNS hook, or for an account at a CA. The values are sealed.
type Credential struct {
	Name string
	// Provider is the hook, such as dns_cf, or EABProvider.
	Provider string
	// Variables are the names of the values.
	Variables []string
	// Sealed holds the values, encrypted and signed.
	Sealed    []byte
	CreatedBy string
	CreatedAt time.Time
	UpdatedAt time.Time
	// InFile says that it is a file of the administrator's, which only the administrator changes.
	InFile bool
}
