package apiv1

import "time"

// Credential is a secret that the hub keeps for a DNS provider or a CA, as people see it: without its values.
type Credential struct {
	Name string `json:"name"`
	// Provider is the DNS hook, such as dns_cf, or eab; empty for a file of the administrator's.
	Provider  string   `json:"provider,omitempty"`
	Variables []string `json:"variables"`
	// InFile says that it is a file on the hub, which only the administrator changes.
	InFile bool `json:"in_file"`
	// UsedBy are the certificates and issuers that name it.
	UsedBy    []string   `json:"used_by"`
	CreatedBy string     `json:"created_by,omitempty"`
	CreatedAt *time.Time `json:"created_at,omitempty"`
	UpdatedAt *time.Time `json:"updated_at,omitempty"`
}

// CredentialRequest is the body of POST /credentials and PUT /credentials/{id}.
type CredentialRequest struct {
	Name     string `json:"name" minLength:"1" maxLength:"100"`
	Provider string `json:"provider" minLength:"1" maxLength:"64" doc:"The DNS hook, such as dns_cf, or eab for the account at a CA."`
	// Values are by the names of the provider's variables. They are never shown again.
	Values map[string]string `json:"values"`
}

// CredentialTest is the body of POST /credentials/{id}/test.
type CredentialTest struct {
	// Domain is one that the credential may change: a random TXT record below it is added, looked for and removed.
	Domain string `json:"domain" minLength:"3" maxLength:"200"`
}

// CredentialTestResult says how the newest test of a credential went, or goes.
type CredentialTestResult struct {
	Domain  string    `json:"domain"`
	BegunAt time.Time `json:"begun_at"`
	// Running says that it is under way; OK, once it is not, that the record came and went.
	Running bool `json:"running"`
	OK      bool `json:"ok"`
	// Lines are what was done and said.
	Lines []string `json:"lines"`
	// Error says what went wrong, NextStep what helps.
	Error    string `json:"error,omitempty"`
	NextStep string `json:"next_step,omitempty"`
}

// DNSProvider is a DNS provider that acme.sh has a hook for, and the form of its credential.
type DNSProvider struct {
	Hook  string `json:"hook"`
	Title string `json:"title"`
	Hint  string `json:"hint,omitempty"`
	Site  string `json:"site,omitempty"`
	Docs  string `json:"docs,omitempty"`
	// Options are the variables that it takes, Alternative those that it takes in their place.
	Options     []ProviderOption `json:"options"`
	Alternative []ProviderOption `json:"alternative"`
}

// ProviderOption is a variable of a DNS hook.
type ProviderOption struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Default     string `json:"default,omitempty"`
	Optional    bool   `json:"optional"`
	Secret      bool   `json:"secret"`
}
