// This file holds the YAML documents of the branch main: what people wish (intent) and what was issued for it.

package manifest

import "time"

// APIVersion is the apiVersion of every YAML document in the repository.
const APIVersion = "certferry/v1"

// Kinds of YAML documents, the value of their kind key.
const (
	KindCertificate       = "Certificate"
	KindServer            = "Server"
	KindIssuer            = "Issuer"
	KindIssuedCertificate = "IssuedCertificate"
)

// Certificate is the intent certificates/<name>.yaml: a wish for a certificate and where it goes.
type Certificate struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name"`
	// Names are the DNS names, A-labels in lower case; the first is the main name.
	Names []string `yaml:"names"`
	// KeyType is ecdsa-p256 (default), ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096.
	KeyType string `yaml:"keyType,omitempty"`
	// SecondKeyType asks for a second certificate of the same names, RSA beside ECDSA or the other way round, for old
	// clients; see Second.
	SecondKeyType string `yaml:"secondKeyType,omitempty"`
	// KeyCustody says where private keys are made and kept: hub (default), or server. One on the server never leaves
	// it, so that the certificate goes to that one server, by its name.
	KeyCustody string `yaml:"keyCustody,omitempty"`
	// Issuer names an issuers/<name>.yaml; FallbackIssuer another one, for when the first one is down.
	Issuer         string `yaml:"issuer"`
	FallbackIssuer string `yaml:"fallbackIssuer,omitempty"`
	// Profile and PreferredChain are asked of the CA; empty for what the issuer says.
	Profile        string `yaml:"profile,omitempty"`
	PreferredChain string `yaml:"preferredChain,omitempty"`
	// Challenge is how control of the names is proven; unused by a private CA.
	Challenge *Challenge `yaml:"challenge,omitempty"`
	// Challenges are those of some of the names, where Challenge does not suit them.
	Challenges []NamedChallenge `yaml:"challenges,omitempty"`
	Renewal    Renewal          `yaml:"renewal,omitempty"`
	// Review is none, required or two-person; empty for what the hub is set to.
	Review string `yaml:"review,omitempty"`
	// Waves are the steps in which a new issue goes to its servers; none for what the hub is set to.
	Waves       Waves       `yaml:"waves,omitempty"`
	Deployments []Placement `yaml:"deployments,omitempty"`
}

// Challenge is the ACME challenge of a certificate (RFC 8555 §8). Credentials are never part of it.
type Challenge struct {
	// Type is http-01, dns-01 or tls-alpn-01.
	Type string `yaml:"type"`
	// Method is, for http-01, webroot, standalone or stateless; it is empty for dns-01.
	Method string `yaml:"method,omitempty"`
	// Webroot is the absolute folder that port 80 serves; only for the method webroot.
	Webroot string `yaml:"webroot,omitempty"`
	// Hook is acme.sh's DNS hook, such as dns_cf; only for dns-01.
	Hook string `yaml:"hook,omitempty"`
	// Credential names a credential that the hub keeps for the hook; only for dns-01.
	Credential string `yaml:"credential,omitempty"`
	// Alias is a domain whose _acme-challenge label takes the TXT record, and DomainAlias a name that takes it as it
	// stands; a CNAME must lead there. Only for dns-01, and one of the two.
	Alias       string `yaml:"alias,omitempty"`
	DomainAlias string `yaml:"domainAlias,omitempty"`
}

// NamedChallenge is the challenge of some of a certificate's names.
type NamedChallenge struct {
	// Names are among the certificate's.
	Names     []string `yaml:"names"`
	Challenge `yaml:",inline"`
}

// Renewal says when a certificate is renewed and whether its key stays.
type Renewal struct {
	// DaysBeforeExpiry is the latest start of a renewal, 0 for the default of 15 days; a share of the lifetime
	// may start it earlier.
	DaysBeforeExpiry int `yaml:"daysBeforeExpiry,omitempty"`
	// Key is new (default: a new private key for every renewal) or keep.
	Key string `yaml:"key,omitempty"`
	// Paused stops renewals, as a rollback by hand does until somebody resumes.
	Paused bool `yaml:"paused,omitempty"`
	// PausedReason says why, for people.
	PausedReason string `yaml:"pausedReason,omitempty"`
}

// Placement puts a certificate on servers: on one by name, or on all whose labels match Selector.
type Placement struct {
	Server string `yaml:"server,omitempty"`
	// Selector is a label selector such as "role=edge,region in (eu,us)".
	Selector string `yaml:"selector,omitempty"`
	Deployer string `yaml:"deployer"`
	Target   string `yaml:"target"`
	// SecondTarget is where the certificate of the second key type goes.
	SecondTarget string `yaml:"secondTarget,omitempty"`
}

// Server is the intent servers/<name>.yaml. A server's key is never part of it: keys come from enrolment.
type Server struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Name       string            `yaml:"name"`
	Labels     map[string]string `yaml:"labels,omitempty"`
	// Hold keeps the server at an earlier state until it is resumed.
	Hold *Hold `yaml:"hold,omitempty"`
}

// Hold is a rollback by hand: the server stays at what the commit of its own branch held.
type Hold struct {
	Commit string    `yaml:"commit"`
	Reason string    `yaml:"reason,omitempty"`
	By     string    `yaml:"by"`
	Since  time.Time `yaml:"since"`
}

// Issuer is the intent issuers/<name>.yaml: a configured way to get certificates, without secrets.
type Issuer struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Name       string `yaml:"name"`
	// Type is privateca or acmesh.
	Type string `yaml:"type"`
	// ACME is set for the type acmesh only.
	ACME *ACMEIssuer `yaml:"acme,omitempty"`
	// PrivateCA is set for the type privateca only.
	PrivateCA *PrivateCAIssuer `yaml:"privateCA,omitempty"`
}

// ACMEIssuer is an account at an ACME CA.
type ACMEIssuer struct {
	// Directory is the https URL of the CA's directory; the hub's configuration must allow it.
	Directory string `yaml:"directory"`
	// Email is the account's contact.
	Email string `yaml:"email,omitempty"`
	// EABCredential names the credential that binds the account to one at the CA (RFC 8555 §7.3.4), where the CA wants
	// that.
	EABCredential string `yaml:"eabCredential,omitempty"`
	// Profile and PreferredChain are passed to the CA where set.
	Profile        string `yaml:"profile,omitempty"`
	PreferredChain string `yaml:"preferredChain,omitempty"`
}

// PrivateCAIssuer sets the embedded CA.
type PrivateCAIssuer struct {
	// CA names one of the hub's private CAs; empty for the one that the hub was made with.
	CA string `yaml:"ca,omitempty"`
	// Lifetime of an issued certificate as a Go duration, such as 2160h.
	Lifetime string `yaml:"lifetime,omitempty"`
}

// IssuedCertificate is issued/<xx>/<name>/certificate.yaml: what was issued, in a form whose renewal is a diff
// of a few lines.
type IssuedCertificate struct {
	APIVersion string    `yaml:"apiVersion"`
	Kind       string    `yaml:"kind"`
	Name       string    `yaml:"name"`
	Names      []string  `yaml:"names"`
	Issuer     string    `yaml:"issuer"`
	KeyType    string    `yaml:"keyType"`
	Serial     string    `yaml:"serial"`
	NotBefore  time.Time `yaml:"notBefore"`
	NotAfter   time.Time `yaml:"notAfter"`
	SPKISHA256 string    `yaml:"spkiSha256"`
	LeafSHA256 string    `yaml:"leafSha256"`
	// KeyCustody is server where the private key is on a server and nowhere else; empty for the hub.
	KeyCustody string `yaml:"keyCustody,omitempty"`
	// KeyServer is the server that has the private key, for the keyCustody server.
	KeyServer string `yaml:"keyServer,omitempty"`
	// Revoked is set once the CA was told that nobody should trust it any more.
	Revoked *Revocation `yaml:"revoked,omitempty"`
}

// Revocation says when and why an issued certificate was revoked.
type Revocation struct {
	At time.Time `yaml:"at"`
	// Reason is a name of RFC 5280 §5.3.1, such as keyCompromise or superseded.
	Reason string `yaml:"reason"`
	By     string `yaml:"by"`
}

// RevocationReasons are the reasons that an ACME CA takes for the certificate of a server (RFC 8555 §7.6), with their
// codes of RFC 5280 §5.3.1.
var RevocationReasons = map[string]int{
	"unspecified": 0, "keyCompromise": 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5,
	"privilegeWithdrawn": 9,
}
