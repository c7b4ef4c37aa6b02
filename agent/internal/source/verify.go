// Package source answers which state is this server's: it polls the Git remote, fetches the server's branch and
// checks it against the pinned root key and the newest state seen before. What it returns is safe to deploy; what
// it refuses changes nothing.
package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// ErrRefused means that the remote's state failed a check. The server goes on serving what it has.
var ErrRefused = errors.New("state refused")

// Trust is whom a server believes and who it is.
type Trust struct {
	RepoID string
	Server string
	// Root is the pinned root key.
	Root *seal.PublicKey
	// Key is this server's own key.
	Key *seal.PrivateKey
}

// Floor is the newest state accepted before; see state.Floor. States are in the order of (KeyringVersion, Generation):
// a newer keyring, which only the root key can sign, may start the generations anew. A stolen signing key can push the
// generation as high as it likes, and still the next keyring recovers the server.
type Floor struct {
	Generation     uint64
	ManifestSHA256 string
	KeyringVersion uint64
}

// State is a verified state of this server.
type State struct {
	Commit         string
	Generation     uint64
	ManifestSHA256 string
	KeyringVersion uint64
	FreshUntil     time.Time
	Deployments    []agent.Deployment
	// Files are the commit's files as they were verified, for the local history.
	Files map[string][]byte
}

// Verify checks the files of a commit of the server's branch in the order of the design (section 4.3) and opens
// the bundles. It fails closed: an error means that nothing of the commit may be used. A state older than the
// floor is refused; equal is accepted only with the same bytes. Freshness is the caller's to look at: a stale
// state is still the newest known one.
func Verify(trust Trust, floor Floor, commit string, files map[string][]byte, now time.Time) (*State, error) {
	keyring, err := verifyKeyring(trust, floor, files, now)
	if err != nil {
		return nil, err
	}
	signers, err := signingKeys(keyring)
	if err != nil {
		return nil, err
	}
	m, digest, err := verifyManifest(trust, floor, keyring.Version, signers, files, now)
	if err != nil {
		return nil, err
	}
	deployments, err := openAll(trust, signers, m, files, now)
	if err != nil {
		return nil, err
	}
	return &State{
		Commit: commit, Generation: m.Generation, ManifestSHA256: digest, KeyringVersion: keyring.Version,
		FreshUntil: m.FreshUntil, Deployments: deployments, Files: files,
	}, nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

func verifyKeyring(trust Trust, floor Floor, files map[string][]byte, now time.Time) (*manifest.Keyring, error) {
	data := files[manifest.KeyringFile]
	if _, err := seal.Verify(manifest.KeyringSignatureDomain, data, files[manifest.KeyringSigFile], []*seal.PublicKey{trust.Root}, now); err != nil {
		return nil, refuse("keyring is not signed by the pinned root key: %w", err)
	}
	keyring, err := manifest.DecodeKeyring(data)
	if err != nil {
		return nil, refuse("read keyring: %w", err)
	}
	if keyring.RepoID != trust.RepoID {
		return nil, refuse("keyring belongs to another repository")
	}
	if keyring.Version < floor.KeyringVersion {
		return nil, refuse("keyring version %d is older than version %d seen before", keyring.Version, floor.KeyringVersion)
	}
	return keyring, nil
}

func signingKeys(keyring *manifest.Keyring) ([]*seal.PublicKey, error) {
	keys := make([]*seal.PublicKey, 0, len(keyring.Keys))
	for _, k := range keyring.Keys {
		key, err := seal.ParsePublicKey([]byte(k.PublicKey))
		if err != nil {
			return nil, refuse("read key %s of the keyring: %w", k.Fingerprint, err)
		}
		if key.Fingerprint() != k.Fingerprint {
			return nil, refuse("keyring calls key %s by the fingerprint %s", key.Fingerprint(), k.Fingerprint)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// verifyManifest checks the manifest beside the keyring of the version ring, whose keys are signers.
func verifyManifest(trust Trust, floor Floor, ring uint64, signers []*seal.PublicKey, files map[string][]byte, now time.Time) (*manifest.Manifest, string, error) {
	data := files[manifest.File]
	if _, err := seal.Verify(manifest.SignatureDomain, data, files[manifest.SignatureFile], signers, now); err != nil {
		return nil, "", refuse("manifest is not signed by a key of the keyring: %w", err)
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return nil, "", refuse("read manifest: %w", err)
	}
	sum := sha256.Sum256(data)
	digest := hex.EncodeToString(sum[:])
	switch {
	case m.RepoID != trust.RepoID:
		return nil, "", refuse("manifest belongs to another repository")
	case m.Server != trust.Server:
		return nil, "", refuse("manifest belongs to server %s", m.Server)
	case m.ServerKeyFpr != trust.Key.Fingerprint():
		return nil, "", refuse("manifest is for another key of this server; enrol again if the key was replaced")
	case m.KeyringVersion != ring:
		return nil, "", refuse("the manifest was made for keyring version %d, the branch holds version %d", m.KeyringVersion, ring)
	}
	if err := aboveFloor(floor, m, digest); err != nil {
		return nil, "", err
	}
	return m, digest, nil
}

// aboveFloor refuses what is older than the newest state seen, and what does not follow it. The keyring's version was
// held against the floor before.
func aboveFloor(floor Floor, m *manifest.Manifest, digest string) error {
	switch {
	case m.KeyringVersion > floor.KeyringVersion:
		return nil
	case m.Generation < floor.Generation:
		return refuse("generation %d is older than generation %d seen before: the remote goes back in time", m.Generation, floor.Generation)
	case m.Generation == floor.Generation && digest != floor.ManifestSHA256:
		return refuse("generation %d comes with other content than before", m.Generation)
	case m.Generation == floor.Generation+1 && floor.Generation > 0 && m.PrevManifestSHA256 != floor.ManifestSHA256:
		return refuse("generation %d does not follow the generation %d seen before", m.Generation, floor.Generation)
	}
	return nil
}

// openAll checks every blob against the manifest before it opens the first.
func openAll(trust Trust, signers []*seal.PublicKey, m *manifest.Manifest, files map[string][]byte, now time.Time) ([]agent.Deployment, error) {
	for _, d := range m.Deployments {
		data, ok := files[d.Bundle]
		sum := sha256.Sum256(data)
		switch {
		case !ok:
			return nil, refuse("bundle of certificate %s is missing", d.Certificate)
		case int64(len(data)) != d.BundleSize:
			return nil, refuse("bundle of certificate %s has %d bytes, the manifest says %d", d.Certificate, len(data), d.BundleSize)
		case hex.EncodeToString(sum[:]) != d.BundleSHA256:
			return nil, refuse("bundle of certificate %s is not the one that the manifest names", d.Certificate)
		}
	}
	deployments := make([]agent.Deployment, 0, len(m.Deployments))
	for _, d := range m.Deployments {
		b, err := open(trust, signers, d, files[d.Bundle], now)
		if err != nil {
			return nil, err
		}
		deployments = append(deployments, agent.Deployment{
			Certificate: d.Certificate, Deployer: d.Deployer, Target: d.Target,
			Names: d.Names, Bundle: b, StepBack: d.StepBack, KeyOnServer: d.Key == manifest.CustodyServer,
		})
	}
	return deployments, nil
}

// unseal decrypts a bundle and returns the server that it must have been made for. A body that servers share names none:
// that it is this server's is said by the manifest, which holds the body's sum and the key packet.
func unseal(trust Trust, signers []*seal.PublicKey, d manifest.Deployment, sealed []byte, now time.Time) (plain []byte, server string, err error) {
	if len(d.BundleKey) > 0 {
		plain, err = seal.OpenShared(d.BundleKey, sealed, trust.Key, signers, now)
		return plain, "", err
	}
	plain, err = seal.Open(sealed, trust.Key, signers, now)
	return plain, trust.Server, err
}

// open opens one bundle and holds it against the manifest. That it is in date, complete and matching is checked
// by the deployment's own preflight, so that one bad certificate does not keep the others from being deployed.
func open(trust Trust, signers []*seal.PublicKey, d manifest.Deployment, sealed []byte, now time.Time) (*bundle.Bundle, error) {
	plain, server, err := unseal(trust, signers, d, sealed, now)
	if err != nil {
		return nil, refuse("open bundle of certificate %s: %w", d.Certificate, err)
	}
	defer clear(plain)
	header, b, err := bundle.Decode(plain)
	if err != nil {
		return nil, refuse("read bundle of certificate %s: %w", d.Certificate, err)
	}
	switch {
	case header.Certificate != d.Certificate:
		return nil, refuse("bundle of certificate %s holds certificate %s", d.Certificate, header.Certificate)
	case header.Server != server:
		return nil, refuse("bundle of certificate %s was made for another server", d.Certificate)
	case header.LeafSHA256 != d.LeafSHA256 || b.LeafSHA256() != d.LeafSHA256:
		return nil, refuse("bundle of certificate %s holds another issue than the manifest names", d.Certificate)
	case b.SPKISHA256() != d.SPKISHA256:
		return nil, refuse("bundle of certificate %s holds another key than the manifest names", d.Certificate)
	case d.Key == manifest.CustodyServer && b.Key != nil:
		return nil, refuse("bundle of certificate %s holds a private key, the manifest says that it is this server's own", d.Certificate)
	case !b.Leaf.NotAfter.Equal(d.NotAfter) || !b.Leaf.NotBefore.Equal(d.NotBefore):
		return nil, refuse("bundle of certificate %s has other dates than the manifest names", d.Certificate)
	}
	return b, nil
}
