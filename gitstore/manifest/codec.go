// This file reads and writes the two signed JSON documents. Their encoding is canonical: compact, keys in the order
// of the types, one newline at the end. A document in any other form is refused, so that two programs can never
// read the same signed bytes differently.

package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// maxManifest bounds manifest.json, in bytes: a thousand deployments take about half of it.
	maxManifest = 2 << 20
	// maxKeyring bounds keyring.json, in bytes.
	maxKeyring = 256 << 10
	// maxGeneration keeps a forged number from ending a server's history.
	maxGeneration = math.MaxInt64
)

// Decode reads manifest.json.
func Decode(data []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decodeJSON(data, maxManifest, m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if err := canonical(data, m, "manifest"); err != nil {
		return nil, err
	}
	return m, nil
}

// Encode writes manifest.json in its canonical form, after Validate.
func (m *Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return encodeBounded(m, maxManifest, "manifest")
}

// DecodeKeyring reads keyring.json.
func DecodeKeyring(data []byte) (*Keyring, error) {
	k := new(Keyring)
	if err := decodeJSON(data, maxKeyring, k); err != nil {
		return nil, fmt.Errorf("decode keyring: %w", err)
	}
	if err := k.Validate(); err != nil {
		return nil, err
	}
	if err := canonical(data, k, "keyring"); err != nil {
		return nil, err
	}
	return k, nil
}

// Encode writes keyring.json in its canonical form, after Validate.
func (k *Keyring) Encode() ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	return encodeBounded(k, maxKeyring, "keyring")
}

func decodeJSON(data []byte, limit int, v any) error {
	if len(data) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("bytes after the document")
	}
	return nil
}

// encodeBounded never writes what Decode would refuse: a server could not get past it.
func encodeBounded(v any, limit int, kind string) ([]byte, error) {
	data, err := encodeJSON(v)
	if err == nil && len(data) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return data, nil
}

func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// canonical refuses what Encode would have written differently: duplicate keys, other spelling of keys, spaces.
func canonical(data []byte, v any, kind string) error {
	again, err := encodeJSON(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return fmt.Errorf("decode %s: it is not in canonical form", kind)
	}
	return nil
}

// Validate says what is wrong with m, nil for nothing.
func (m *Manifest) Validate() error {
	fault := func(key, what string) error { return fmt.Errorf("check manifest: %s: %s", key, what) }
	switch {
	case m.Format != Format:
		return fault("format", "unknown version; a newer program wrote it, update this one")
	case !isRepoID(m.RepoID):
		return fault("repo_id", "must be 1 to 100 letters, digits and hyphens")
	case ValidName(m.Server) != nil:
		return fault("server", ValidName(m.Server).Error())
	case !isFingerprint(m.ServerKeyFpr):
		return fault("server_key_fpr", "must have 40 upper-case hexadecimal digits")
	case m.Generation < 1 || m.Generation > maxGeneration:
		return fault("generation", "must lie between 1 and 2^63-1")
	case (m.Generation == 1) != (m.PrevManifestSHA256 == ""):
		return fault("prev_manifest_sha256", "must be empty for generation 1 and set for every later one")
	case m.PrevManifestSHA256 != "" && !isHex(m.PrevManifestSHA256, 64):
		return fault("prev_manifest_sha256", "must have 64 lower-case hexadecimal digits")
	case !wholeUTC(m.IssuedAt) || !wholeUTC(m.FreshUntil):
		return fault("issued_at, fresh_until", "must be whole seconds in UTC")
	case m.FreshUntil.Before(m.IssuedAt):
		return fault("fresh_until", "lies before issued_at")
	case m.KeyringVersion < 1:
		return fault("keyring_version", "must be at least 1")
	case !isHex(m.MainCommit, 40):
		return fault("main_commit", "must have 40 lower-case hexadecimal digits")
	case m.Deployments == nil:
		return fault("deployments", "must be a list")
	}
	for i, d := range m.Deployments {
		if err := d.validate(); err != nil {
			return fmt.Errorf("check manifest: deployments[%d]: %w", i, err)
		}
		if i > 0 && compareDeployments(m.Deployments[i-1], d) >= 0 {
			return fault("deployments", "must be sorted by certificate, deployer and target, each once")
		}
	}
	return nil
}

// SortDeployments puts deployments in the order that a manifest has.
func SortDeployments(all []Deployment) { slices.SortFunc(all, compareDeployments) }

func compareDeployments(a, b Deployment) int {
	return strings.Compare(a.Certificate+"\x00"+a.Deployer+"\x00"+a.Target, b.Certificate+"\x00"+b.Deployer+"\x00"+b.Target)
}

func (d *Deployment) validate() error {
	switch {
	case ValidName(d.Certificate) != nil:
		return fmt.Errorf("certificate: %w", ValidName(d.Certificate))
	case ValidName(d.Deployer) != nil:
		return fmt.Errorf("deployer: %w", ValidName(d.Deployer))
	case ValidName(d.Target) != nil:
		return fmt.Errorf("target: %w", ValidName(d.Target))
	case !wholeUTC(d.NotBefore) || !wholeUTC(d.NotAfter) || !d.NotBefore.Before(d.NotAfter):
		return errors.New("not_before, not_after: must be whole seconds in UTC, one after the other")
	case !isHex(d.LeafSHA256, 64) || !isHex(d.SPKISHA256, 64) || !isHex(d.BundleSHA256, 64):
		return errors.New("leaf_sha256, spki_sha256, bundle_sha256: must have 64 lower-case hexadecimal digits")
	case d.Bundle != BundlePath(d.Certificate):
		return errors.New("bundle: must be bundles/<certificate>.pgp")
	case d.BundleSize < 1 || d.BundleSize > maxBundle:
		return fmt.Errorf("bundle_size: must lie between 1 and %d", maxBundle)
	case len(d.BundleKey) > maxBundleKey:
		return fmt.Errorf("bundle_key: must have at most %d bytes", maxBundleKey)
	case d.Key != "" && d.Key != CustodyServer:
		return errors.New("key: must be server or absent")
	}
	if key, err := validNames(d.Names); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// Validate says what is wrong with k, nil for nothing.
func (k *Keyring) Validate() error {
	fault := func(key, what string) error { return fmt.Errorf("check keyring: %s: %s", key, what) }
	switch {
	case k.Format != Format:
		return fault("format", "unknown version; a newer program wrote it, update this one")
	case !isRepoID(k.RepoID):
		return fault("repo_id", "must be 1 to 100 letters, digits and hyphens")
	case k.Version < 1 || k.Version > maxGeneration:
		return fault("version", "must lie between 1 and 2^63-1")
	case !wholeUTC(k.IssuedAt):
		return fault("issued_at", "must be whole seconds in UTC")
	case len(k.Keys) == 0 || len(k.Keys) > 16:
		return fault("keys", "must be 1 to 16")
	}
	for i, key := range k.Keys {
		switch {
		case !isFingerprint(key.Fingerprint):
			return fault("keys", "a fingerprint must have 40 upper-case hexadecimal digits")
		case key.PublicKey == "":
			return fault("keys", "a public key is missing")
		case i > 0 && k.Keys[i-1].Fingerprint >= key.Fingerprint:
			return fault("keys", "must be sorted by fingerprint, each once")
		}
	}
	return nil
}

func isHex(s string, digits int) bool { return len(s) == digits && only(s, "0123456789abcdef") }

func isFingerprint(s string) bool { return len(s) == 40 && only(s, "0123456789ABCDEF") }

// isRepoID keeps a repository's identity fit for log lines and messages.
func isRepoID(s string) bool {
	return s != "" && len(s) <= 100 && only(s, alphanumeric+"-")
}

func wholeUTC(t time.Time) bool {
	return !t.IsZero() && t.Nanosecond() == 0 && t.Location() == time.UTC && t.Year() < 10000
}
