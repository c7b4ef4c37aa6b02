// This file lists the CAs that are known by name: where they are, what they ask for, and the limits that they publish.

package acmesh

import (
	"slices"
	"time"

	"github.com/certferry/certferry/issuer"
)

// KnownCA is an ACME CA that needs no more than its name.
type KnownCA struct {
	// ID is what people type, such as letsencrypt.
	ID    string
	Title string
	// Directory is the URL of its ACME directory, Staging that of its twin for trying things out, empty for none.
	Directory string
	Staging   string
	// NeedsEAB says that an account must be bound to one at the CA (RFC 8555 §7.3.4).
	NeedsEAB bool
	// CAA are the names by which records of the type CAA (RFC 8659) allow it.
	CAA []string
	// Limits are those that it publishes; none where it publishes none.
	Limits []issuer.Limit
	// Help is its page about ACME.
	Help string
}

const (
	letsencrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsencryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
	google             = "https://dv.acme-v02.api.pki.goog/directory"
	googleTest         = "https://dv.acme-v02.test-api.pki.goog/directory"
	week               = 7 * 24 * time.Hour
)

// letsencryptLimits are those of letsencrypt.org/docs/rate-limits, as of November 2026.
var letsencryptLimits = []issuer.Limit{
	{Name: "new orders of an account", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 300, Per: 3 * time.Hour, RenewalExempt: true},
	{Name: "certificates of a registered domain", Scope: issuer.ScopeRegisteredDomain, Of: issuer.SpendIssuance, Count: 50, Per: week, RenewalExempt: true},
	{Name: "certificates of the same names", Scope: issuer.ScopeExactSet, Of: issuer.SpendIssuance, Count: 5, Per: week, RenewalExempt: true},
	{Name: "failed validations of a name", Scope: issuer.ScopeHostname, Of: issuer.SpendFailedValidation, Count: 5, Per: time.Hour},
}

// stagingLimits are those of letsencrypt.org/docs/staging-environment.
var stagingLimits = []issuer.Limit{
	{Name: "new orders of an account", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 1500, Per: 3 * time.Hour},
	{Name: "certificates of a registered domain", Scope: issuer.ScopeRegisteredDomain, Of: issuer.SpendIssuance, Count: 30_000, Per: week},
	{Name: "certificates of the same names", Scope: issuer.ScopeExactSet, Of: issuer.SpendIssuance, Count: 30_000, Per: week},
	{Name: "failed validations of a name", Scope: issuer.ScopeHostname, Of: issuer.SpendFailedValidation, Count: 200, Per: time.Hour},
}

var knownCAs = []KnownCA{
	{ID: "letsencrypt", Title: "Let's Encrypt", Directory: letsencrypt, Staging: letsencryptStaging, CAA: []string{"letsencrypt.org"}, Limits: letsencryptLimits, Help: "https://letsencrypt.org/docs/"},
	{ID: "letsencrypt_test", Title: "Let's Encrypt (staging)", Directory: letsencryptStaging, Staging: letsencryptStaging, CAA: []string{"letsencrypt.org"}, Limits: stagingLimits, Help: "https://letsencrypt.org/docs/staging-environment/"},
	{ID: "zerossl", Title: "ZeroSSL", Directory: "https://acme.zerossl.com/v2/DV90", NeedsEAB: true, CAA: []string{"sectigo.com"}, Help: "https://zerossl.com/documentation/acme/"},
	{ID: "google", Title: "Google Trust Services", Directory: google, Staging: googleTest, NeedsEAB: true, CAA: []string{"pki.goog"}, Help: "https://cloud.google.com/certificate-manager/docs/public-ca"},
	{ID: "google_test", Title: "Google Trust Services (staging)", Directory: googleTest, Staging: googleTest, NeedsEAB: true, CAA: []string{"pki.goog"}, Help: "https://cloud.google.com/certificate-manager/docs/public-ca"},
	{ID: "sslcom", Title: "SSL.com", Directory: "https://acme.ssl.com/sslcom-dv-rsa", NeedsEAB: true, CAA: []string{"ssl.com"}, Help: "https://www.ssl.com/guide/ssl-tls-certificate-issuance-and-revocation-with-acme/"},
	{ID: "sslcom_ecc", Title: "SSL.com (ECC)", Directory: "https://acme.ssl.com/sslcom-dv-ecc", NeedsEAB: true, CAA: []string{"ssl.com"}, Help: "https://www.ssl.com/guide/ssl-tls-certificate-issuance-and-revocation-with-acme/"},
	{ID: "actalis", Title: "Actalis", Directory: "https://acme-api.actalis.com/acme/directory", NeedsEAB: true, CAA: []string{"actalis.it"}, Help: "https://guide.actalis.com/ssl/activation/acme"},
}

// KnownCAs lists the CAs that are known by name.
func KnownCAs() []KnownCA { return slices.Clone(knownCAs) }

// CAOf is the known CA of a directory; ok is false for one of the administrator's own.
func CAOf(directory string) (ca KnownCA, ok bool) {
	i := slices.IndexFunc(knownCAs, func(ca KnownCA) bool { return ca.Directory == directory })
	if i < 0 {
		return KnownCA{}, false
	}
	return knownCAs[i], true
}

// CANamed is the known CA of a name, such as letsencrypt.
func CANamed(id string) (ca KnownCA, ok bool) {
	i := slices.IndexFunc(knownCAs, func(ca KnownCA) bool { return ca.ID == id })
	if i < 0 {
		return KnownCA{}, false
	}
	return knownCAs[i], true
}
