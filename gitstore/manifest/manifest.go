// Package manifest defines the documents that travel through the Certferry repository: the manifest that tells
// one server what it must hold, the keyring that tells which hub keys are valid, and the YAML that people
// write and review on the branch main.
//
// Every decoder is strict: unknown and duplicate keys, trailing bytes and oversized input are errors. Every
// encoder is canonical: equal values give equal bytes. The package neither signs nor reads files.
package manifest

import "time"

// Format is the version of manifest.json and keyring.json that this program writes and the newest it reads.
//
// History:
//
//	1  2026-11  first format
const Format = 1

// Names of the files on a server's branch.
const (
	File           = "manifest.json"
	SignatureFile  = "manifest.sig"
	KeyringFile    = "keyring.json"
	KeyringSigFile = "keyring.json.sig"
	BundleDir      = "bundles"
)

// Domain separation prefixes: what is signed is the prefix followed by the file's bytes.
const (
	SignatureDomain        = "certferry-manifest-v1\n"
	KeyringSignatureDomain = "certferry-keyring-v1\n"
)

// Manifest is the signed statement of what one server must hold (design, section 4.2). It carries no command
// and no path outside the repository: what a deployer may touch and run stands in the server's own policy.
type Manifest struct {
	Format       int    `json:"format"`
	RepoID       string `json:"repo_id"`
	Server       string `json:"server"`
	ServerKeyFpr string `json:"server_key_fpr"`
	// Generation only grows; it is 1 on the first commit of a server's branch.
	Generation uint64 `json:"generation"`
	// PrevManifestSHA256 is the lower-case hex SHA-256 of the previous generation's manifest.json, empty for
	// generation 1.
	PrevManifestSHA256 string    `json:"prev_manifest_sha256"`
	IssuedAt           time.Time `json:"issued_at"`
	// FreshUntil is when a server that saw nothing newer should warn that its state may be frozen.
	FreshUntil     time.Time `json:"fresh_until"`
	KeyringVersion uint64    `json:"keyring_version"`
	// MainCommit is the commit of main that this state was made from, 40 hex digits.
	MainCommit  string       `json:"main_commit"`
	Deployments []Deployment `json:"deployments"`
}

// Deployment is one certificate at one target of the manifest's server.
type Deployment struct {
	Certificate string    `json:"certificate"`
	Names       []string  `json:"names"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	// LeafSHA256 and SPKISHA256 are lower-case hex digests of the DER certificate and of its public key info.
	LeafSHA256 string `json:"leaf_sha256"`
	SPKISHA256 string `json:"spki_sha256"`
	// Bundle is the path of the sealed bundle in the same commit, always "bundles/<certificate>.pgp".
	Bundle       string `json:"bundle"`
	BundleSHA256 string `json:"bundle_sha256"`
	BundleSize   int64  `json:"bundle_size"`
	// BundleKey is set where the bundle is a body that several servers share: the OpenPGP key packet with which this
	// server opens it, in base64. The packet followed by the bundle is the message. It stands here and not in a file of
	// its own, as each file costs ten thousand servers more than it holds.
	BundleKey []byte `json:"bundle_key,omitempty"`
	// Key is CustodyServer where the private key was made on the server: the bundle holds none, and the server takes its
	// own, which SPKISHA256 names. It is empty where the bundle holds the key.
	Key      string `json:"key,omitempty"`
	Deployer string `json:"deployer"`
	Target   string `json:"target"`
	// StepBack says that a certificate that expires earlier than the one served is meant: somebody rolled back.
	StepBack bool `json:"step_back,omitempty"`
}

// Keyring says which hub keys are valid now. The offline root key signs it; its version only grows.
type Keyring struct {
	Format   int       `json:"format"`
	RepoID   string    `json:"repo_id"`
	Version  uint64    `json:"version"`
	IssuedAt time.Time `json:"issued_at"`
	// Keys are the hub's signing keys, sorted by fingerprint.
	Keys []KeyringKey `json:"keys"`
}

// KeyringKey is one valid signing key of the hub.
type KeyringKey struct {
	// Fingerprint is 40 upper-case hex digits.
	Fingerprint string `json:"fingerprint"`
	// PublicKey is the ASCII-armored OpenPGP public key.
	PublicKey string `json:"public_key"`
}
