package apiv1

import "time"

// Inventory is what an agent finds on its server: server software, and the certificates that it uses.
type Inventory struct {
	Software     []FoundSoftware   `json:"software" yaml:"software" maxItems:"100"`
	Certificates []InventoryRecord `json:"certificates" yaml:"certificates" maxItems:"10000"`
}

// FoundSoftware is one instance of a server software.
type FoundSoftware struct {
	// Name is nginx, apache, haproxy …
	Name    string `json:"name" yaml:"name" maxLength:"64"`
	Version string `json:"version,omitempty" yaml:"version,omitempty" maxLength:"64"`
	// PID is 0 where only the configuration was found.
	PID    int    `json:"pid,omitempty" yaml:"pid,omitempty"`
	Config string `json:"config,omitempty" yaml:"config,omitempty" maxLength:"4096"`
	// Container says that the instance sees another root folder; its paths mean files in there.
	Container bool `json:"container,omitempty" yaml:"container,omitempty"`
	// Faults are what could not be read of the configuration: file:line: sentence.
	Faults []string `json:"faults,omitempty" yaml:"faults,omitempty" maxItems:"100"`
}

// InventoryRecord is one certificate file.
type InventoryRecord struct {
	Path string `json:"path" yaml:"path" maxLength:"4096"`
	Key  string `json:"key,omitempty" yaml:"key,omitempty" maxLength:"4096"`
	// Target is the policy's target that the file belongs to, if any.
	Target     string    `json:"target,omitempty" yaml:"target,omitempty" maxLength:"100"`
	Names      []string  `json:"names" yaml:"names" maxItems:"200"`
	Issuer     string    `json:"issuer,omitempty" yaml:"issuer,omitempty" maxLength:"256"`
	KeyType    string    `json:"key_type,omitempty" yaml:"key_type,omitempty" maxLength:"32"`
	NotBefore  time.Time `json:"not_before,omitzero" yaml:"not_before,omitempty"`
	NotAfter   time.Time `json:"not_after,omitzero" yaml:"not_after,omitempty"`
	LeafSHA256 string    `json:"leaf_sha256,omitempty" yaml:"leaf_sha256,omitempty" maxLength:"64"`
	// ManagedBy is certferry, certbot, acme.sh, caddy … where that is known.
	ManagedBy string `json:"managed_by,omitempty" yaml:"managed_by,omitempty" maxLength:"32"`
	// Problems say what is wrong with it, each a word of its own and a sentence.
	Problems []FoundProblem `json:"problems,omitempty" yaml:"problems,omitempty" maxItems:"20"`
	Uses     []FoundUse     `json:"uses,omitempty" yaml:"uses,omitempty" maxItems:"100"`
}

// ProblemKind is what can be wrong with a certificate on a server.
type ProblemKind string

// The problems.
const (
	ProblemUnreadable      ProblemKind = "unreadable"
	ProblemMalformed       ProblemKind = "malformed"
	ProblemExpired         ProblemKind = "expired"
	ProblemNotYetValid     ProblemKind = "not_yet_valid"
	ProblemSelfSigned      ProblemKind = "self_signed"
	ProblemChainIncomplete ProblemKind = "chain_incomplete"
	ProblemKeyMissing      ProblemKind = "key_missing"
	ProblemKeyMismatch     ProblemKind = "key_mismatch"
	ProblemKeyExposed      ProblemKind = "key_exposed"
	ProblemWeakKey         ProblemKind = "weak_key"
	ProblemNameMismatch    ProblemKind = "name_mismatch"
	ProblemNotServed       ProblemKind = "not_served"
)

// FoundProblem is one problem.
type FoundProblem struct {
	Kind    ProblemKind `json:"kind" yaml:"kind"`
	Message string      `json:"message" yaml:"message" maxLength:"512"`
}

// FoundUse is one place in a configuration that uses the certificate.
type FoundUse struct {
	Software string   `json:"software" yaml:"software" maxLength:"64"`
	Names    []string `json:"names,omitempty" yaml:"names,omitempty" maxItems:"200"`
	// Listeners are addresses at which it is served, such as :443, unix:/run/web.sock or udp/:443.
	Listeners []string `json:"listeners,omitempty" yaml:"listeners,omitempty" maxItems:"100"`
	// Client says that it is shown to other servers and not to clients.
	Client bool   `json:"client,omitempty" yaml:"client,omitempty"`
	File   string `json:"file,omitempty" yaml:"file,omitempty" maxLength:"4096"`
	Line   int    `json:"line,omitempty" yaml:"line,omitempty"`
}
