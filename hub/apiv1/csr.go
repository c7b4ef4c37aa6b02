// Wire types of private keys that servers make and keep.

package apiv1

// WantedRequest is a certificate request that the hub asks a server for, in the answer to a heartbeat: a certificate is
// to be ordered for a key that never leaves the server.
type WantedRequest struct {
	// ID names this asking: the same id always gets the same key.
	ID          string   `json:"id"`
	Certificate string   `json:"certificate"`
	Names       []string `json:"names"`
	KeyType     string   `json:"key_type"`
	// NewKey asks for a key that was never used. Otherwise SPKISHA256 is the public key to use again, where the server
	// still has it.
	NewKey     bool   `json:"new_key"`
	SPKISHA256 string `json:"spki_sha256,omitempty"`
	// Targets are where the certificate shall go. The server's own policy decides whether it may.
	Targets []WantedTarget `json:"targets"`
}

// WantedTarget is a target of a certificate on the server that is asked.
type WantedTarget struct {
	Deployer string `json:"deployer"`
	Target   string `json:"target"`
}

// CertificateRequest is the body of POST /servers/csr: what an agent answers to a WantedRequest.
type CertificateRequest struct {
	_ struct{} `additionalProperties:"true"` // an old hub takes a new agent's keys

	ID string `json:"id" minLength:"1" maxLength:"64"`
	// CSR is a PKCS #10 request (RFC 2986) in DER, for exactly the names that were asked for.
	CSR []byte `json:"csr,omitempty" maxLength:"87384"`
	// Refusal is why there is no CSR, such as a policy that does not allow it.
	Refusal string `json:"refusal,omitempty" maxLength:"1024"`
}
