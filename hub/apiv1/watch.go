package apiv1

import "time"

// FoundCertificate is a certificate that an agent found on its server.
type FoundCertificate struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	// Target is where it stands, by the name in the agent's policy; Path is its file where no target has it.
	Target     string    `json:"target,omitempty" maxLength:"100"`
	Path       string    `json:"path,omitempty" maxLength:"1024"`
	Names      []string  `json:"names" maxItems:"200"`
	Issuer     string    `json:"issuer,omitempty" maxLength:"256"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	LeafSHA256 string    `json:"leaf_sha256" maxLength:"64"`
}

// Watch is a certificate that is watched, whoever manages it.
type Watch struct {
	Kind string `json:"kind" enum:"managed,found,endpoint"`
	// Object is the certificate's name, server/target or the server followed by a path, or the endpoint's name.
	Object     string    `json:"object"`
	Names      []string  `json:"names"`
	Issuer     string    `json:"issuer,omitempty"`
	LeafSHA256 string    `json:"leaf_sha256"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	// Level is warning when less than a quarter of the lifetime is left, critical below an eighth.
	Level   string    `json:"level" enum:"ok,warning,critical,expired"`
	Problem string    `json:"problem,omitempty"`
	SeenAt  time.Time `json:"seen_at"`
}

// Endpoint is a TLS server that is watched.
type Endpoint struct {
	EndpointRequest

	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	// Failures are those in a row.
	Failures  int64     `json:"failures"`
	NextProbe time.Time `json:"next_probe"`
}

// EndpointRequest is the body of POST /endpoints.
type EndpointRequest struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
	// Address is host:port; ServerName what is sent as SNI, the host when empty.
	Address    string `json:"address" minLength:"3" maxLength:"300"`
	ServerName string `json:"server_name,omitempty" maxLength:"253"`
	// Trust is system where the chain must lead to a root of the hub's system, none where only names and dates count.
	Trust string `json:"trust,omitempty" enum:"system,none"`
}

// CertificateStats are figures about certificates: GET /stats/certificates.
type CertificateStats struct {
	AsOf     time.Time                `json:"as_of"`
	Total    int                      `json:"total"`
	ByState  map[CertificateState]int `json:"by_state"`
	ByIssuer map[string]int           `json:"by_issuer"`
	// ByWeek counts expiries by the Monday of their week in UTC, for the 14 weeks from now; the key is a date.
	ByWeek map[string]int `json:"by_week"`
	// FailedByClass counts orders of the last 30 days that failed or wait, by the class of their error.
	FailedByClass map[string]int `json:"failed_by_class"`
	// Renewals are those of the last 30 days, and how long they took from asking to the commit, in seconds.
	Renewals      int     `json:"renewals"`
	MedianSeconds float64 `json:"median_seconds"`
	P95Seconds    float64 `json:"p95_seconds"`
}
