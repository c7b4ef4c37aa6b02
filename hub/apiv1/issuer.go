package apiv1

// IssuerSpec is what is wished for of an issuer: the body of PUT /issuers/{id}.
type IssuerSpec struct {
	Type string `json:"type" enum:"privateca,acmesh"`
	// CA is the short name of a CA that the hub knows, such as letsencrypt, in place of Directory.
	CA string `json:"ca,omitempty" maxLength:"32"`
	// Directory is the URL of an ACME CA's directory, which the hub's configuration must allow. The other fields up to
	// PreferredChain are about ACME too.
	Directory string `json:"directory,omitempty" maxLength:"500"`
	// Email is the contact of the account.
	Email string `json:"email,omitempty" maxLength:"254"`
	// EABCredential names the credential that binds the account to one at the CA, where the CA asks for that.
	EABCredential  string `json:"eab_credential,omitempty" maxLength:"100"`
	Profile        string `json:"profile,omitempty" maxLength:"64"`
	PreferredChain string `json:"preferred_chain,omitempty" maxLength:"128"`
	// PrivateCA names one of the hub's private CAs; empty for the one that the hub was made with.
	PrivateCA string `json:"private_ca,omitempty" maxLength:"100"`
	// Lifetime of a private CA's certificates, such as 2160h.
	Lifetime string `json:"lifetime,omitempty" maxLength:"32"`
}

// CreateIssuerRequest is the body of POST /issuers.
type CreateIssuerRequest struct {
	Name string `json:"name" minLength:"1" maxLength:"100"`
	IssuerSpec
}

// Issuer is a configured way to get certificates.
type Issuer struct {
	Name string `json:"name"`
	IssuerSpec
	// Certificates is how many name it, as their fallback too.
	Certificates int `json:"certificates"`
	// Problem says why it cannot be used as the hub is set up; empty for nothing.
	Problem string `json:"problem,omitempty"`
}

// IssuerAccount is an ACME account: POST /issuers/{id}/account.
type IssuerAccount struct {
	URL     string   `json:"url"`
	Status  string   `json:"status"`
	Contact []string `json:"contact"`
	// Thumbprint of the account's key (RFC 7638), which stateless web servers answer with.
	Thumbprint string `json:"thumbprint"`
	// Snippets are what they are told.
	Snippets []Snippet `json:"snippets"`
}

// Snippet is a part of a web server's configuration that answers challenges of type http-01.
type Snippet struct {
	Server string `json:"server" enum:"nginx,apache,haproxy"`
	Where  string `json:"where"`
	Text   string `json:"text"`
}

// DeactivateRequest is the body of POST /issuers/{id}/deactivate.
type DeactivateRequest struct {
	// Confirm is the issuer's name: the account cannot be brought back.
	Confirm string `json:"confirm" minLength:"1" maxLength:"100"`
}
