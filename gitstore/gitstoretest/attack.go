// This file holds what an attacker has, and makes the states that the attacks start from.

package gitstoretest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Setting is the honest world that is attacked: a hub whose signing key was replaced once, and one server of it.
type Setting struct {
	RepoID string
	Server string
	// Root signs keyrings. Signing is the key of the newest keyring, of version 2; Retired was that of version 1, and
	// the attacker has it.
	Root, Signing, Retired *seal.PrivateKey
	// Agent is the server's key.
	Agent *seal.PublicKey
	// Certificate is what the server holds, at Deployer and Target. Bundles are its issues, oldest first: the one
	// before the present one, the present one, and one that comes next.
	Certificate, Deployer, Target string
	Bundles                       [3]*bundle.Bundle
	Now                           time.Time
}

// Attack is an attacker who controls the remote.
type Attack struct {
	Setting

	// Earlier, Present and Next are honest states of the server's branch, as files by path: the server holds Present,
	// and Next was not shown to it yet. SharedNext is Next with a body that the server shares with a neighbour.
	Earlier, Present, Next, SharedNext map[string][]byte
	// Stolen has the highest generation that there can be. The thief of the retired key signed it while that was valid:
	// a server which holds Earlier cannot tell.
	Stolen map[string][]byte

	// stranger is a key of the attacker's own, neighbour another server that the attacker took over.
	stranger, neighbour *seal.PrivateKey
}

// presentGeneration is the generation of Attack.Present.
const presentGeneration = 5

// NewAttack makes the honest states.
func NewAttack(s Setting) (*Attack, error) {
	a := &Attack{Setting: s}
	var err error
	if a.stranger, err = seal.Generate("stranger", s.Now.Add(-time.Hour)); err != nil {
		return nil, err
	}
	if a.neighbour, err = seal.Generate("neighbour", s.Now.Add(-time.Hour)); err != nil {
		return nil, err
	}
	stolen := a.draft(1, nil).of(1, a.Retired)
	stolen.manifest.Generation = math.MaxInt64
	if a.Stolen, err = a.files(stolen); err != nil {
		return nil, err
	}
	// The first state was signed before the hub's key was replaced.
	if a.Earlier, err = a.files(a.draft(0, nil).of(1, a.Retired)); err != nil {
		return nil, err
	}
	if a.Present, err = a.files(a.draft(1, a.Earlier)); err != nil {
		return nil, err
	}
	if a.Next, err = a.files(a.next()); err != nil {
		return nil, err
	}
	a.SharedNext, err = a.files(a.next().share())
	return a, err
}

// draft is a state before it is signed. An attack changes one thing in it.
type draft struct {
	server   string
	manifest manifest.Manifest
	header   bundle.Header
	bundle   *bundle.Bundle
	sealTo   *seal.PublicKey
	// shared makes it a body that the server shares with its neighbour.
	shared bool
	// ring is the keyring's version; the others say who signs what.
	ring                         uint64
	ringBy, manifestBy, bundleBy *seal.PrivateKey
	// encode, if set, makes the bytes of manifest.json.
	encode func(*manifest.Manifest) ([]byte, error)
}

// draft makes the n-th honest state, which follows the one with the files before.
func (a *Attack) draft(n int, before map[string][]byte) *draft {
	b := a.Bundles[n]
	d := &draft{
		server: a.Server, bundle: b, sealTo: a.Agent, ring: 2, ringBy: a.Root, manifestBy: a.Signing, bundleBy: a.Signing,
		header: bundle.Header{Certificate: a.Certificate, Server: a.Server, LeafSHA256: b.LeafSHA256()},
		encode: (*manifest.Manifest).Encode,
	}
	d.manifest = manifest.Manifest{
		Format: manifest.Format, RepoID: a.RepoID, Server: a.Server, ServerKeyFpr: a.Agent.Fingerprint(),
		Generation: uint64(presentGeneration - 1 + n), PrevManifestSHA256: digest(before[manifest.File]), //nolint:gosec // n is small
		IssuedAt: a.Now.UTC().Truncate(time.Second), FreshUntil: a.Now.UTC().Truncate(time.Second).AddDate(0, 0, 7),
		KeyringVersion: 2, MainCommit: "0123456789abcdef0123456789abcdef01234567",
		Deployments: []manifest.Deployment{{
			Certificate: a.Certificate, Names: b.Leaf.DNSNames, NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter,
			LeafSHA256: b.LeafSHA256(), SPKISHA256: b.SPKISHA256(), Bundle: manifest.BundlePath(a.Certificate),
			Deployer: a.Deployer, Target: a.Target,
		}},
	}
	return d
}

// of gives the draft the keyring of a version, and all signatures of the hub to one key.
func (d *draft) of(ring uint64, by *seal.PrivateKey) *draft {
	d.ring, d.manifest.KeyringVersion, d.manifestBy, d.bundleBy = ring, ring, by, by
	return d
}

// share makes the draft one whose bundle the server shares with its neighbour.
func (d *draft) share() *draft {
	d.shared, d.header.Server = true, ""
	return d
}

// next is the honest state that would come next, for an attack to change.
func (a *Attack) next() *draft { return a.draft(2, a.Present) }

// files signs a draft.
func (a *Attack) files(d *draft) (map[string][]byte, error) {
	files := map[string][]byte{}
	if err := a.sealBundle(d, files); err != nil {
		return nil, err
	}
	body, err := d.encode(&d.manifest)
	if err != nil {
		return nil, err
	}
	signature, err := seal.Sign(manifest.SignatureDomain, body, d.manifestBy, a.Now)
	if err != nil {
		return nil, err
	}
	ring, err := a.keyring(d.ring)
	if err != nil {
		return nil, err
	}
	ringSignature, err := seal.Sign(manifest.KeyringSignatureDomain, ring, d.ringBy, a.Now)
	if err != nil {
		return nil, err
	}
	files[manifest.KeyringFile], files[manifest.KeyringSigFile] = ring, ringSignature
	files[manifest.File], files[manifest.SignatureFile] = body, signature
	return files, nil
}

// sealBundle adds the bundle to files and names it in the manifest.
func (a *Attack) sealBundle(d *draft, files map[string][]byte) error {
	plain, err := bundle.Encode(d.header, d.bundle)
	if err != nil {
		return err
	}
	at := &d.manifest.Deployments[0]
	var sealed []byte
	if d.shared {
		var keys [][]byte
		if sealed, keys, err = seal.SealShared(plain, []*seal.PublicKey{d.sealTo, a.neighbour.Public()}, d.bundleBy, a.Now); err != nil {
			return err
		}
		at.BundleKey = keys[0]
	} else if sealed, err = seal.Seal(plain, d.sealTo, d.bundleBy, a.Now); err != nil {
		return err
	}
	at.BundleSHA256, at.BundleSize = digest(sealed), int64(len(sealed))
	files[at.Bundle] = sealed
	return nil
}

// keyring encodes the keyring of a version: 1 and 2 are the hub's, any later one is the attacker's wish.
func (a *Attack) keyring(version uint64) ([]byte, error) {
	key := a.Signing
	switch version {
	case 1:
		key = a.Retired
	case 2:
	default:
		key = a.stranger
	}
	public, err := key.Public().Armor()
	if err != nil {
		return nil, err
	}
	return (&manifest.Keyring{
		Format: manifest.Format, RepoID: a.RepoID, Version: version, IssuedAt: a.Now.UTC().Truncate(time.Second),
		Keys: []manifest.KeyringKey{{Fingerprint: key.Fingerprint(), PublicKey: string(public)}},
	}).Encode()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// with returns a copy of files with one of them replaced; nil removes it.
func with(files map[string][]byte, path string, data []byte) map[string][]byte {
	changed := maps.Clone(files)
	changed[path] = data
	if data == nil {
		delete(changed, path)
	}
	return changed
}

// must gives up on what fails only where the attack is written wrongly.
func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("make attack: %v", err))
	}
	return v
}
