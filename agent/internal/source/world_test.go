package source_test

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

const (
	repoID = "repo-1"
	site   = "example.com"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func now() time.Time { return start }

// hub is whoever may write a server's branch: its keys, and a branch that tests bend before it is signed.
type hub struct {
	tb                        testing.TB
	root, sign, server, other *seal.PrivateKey
	ca                        *deployertest.CA
}

func newHub(tb testing.TB) *hub {
	tb.Helper()
	h := &hub{tb: tb, ca: deployertest.NewCA(tb, start)}
	h.root, h.sign, h.server, h.other = h.key("root"), h.key("hub"), h.key("web-1"), h.key("other")
	return h
}

func (h *hub) must(err error) {
	h.tb.Helper()
	if err != nil {
		h.tb.Fatal(err)
	}
}

func (h *hub) key(name string) *seal.PrivateKey {
	h.tb.Helper()
	k, err := seal.Generate(name, start.Add(-time.Hour))
	h.must(err)
	return k
}

func (h *hub) trust() source.Trust {
	return source.Trust{RepoID: repoID, Server: "web-1", Root: h.root.Public(), Key: h.server}
}

// branch is one commit of the branch of web-1 before it is signed.
type branch struct {
	ring     *manifest.Keyring
	manifest *manifest.Manifest
	header   bundle.Header
	bundle   *bundle.Bundle
	// sealTo and sealBy are whose keys the bundle is sealed with.
	sealTo, sealBy *seal.PrivateKey
	// signRing and signManifest are who signs.
	signRing, signManifest *seal.PrivateKey
	// sealed, if set, stands for the bundle, and the manifest names it.
	sealed []byte
}

// branch returns a good commit with one certificate.
func (h *hub) branch() *branch {
	h.tb.Helper()
	b := h.ca.Issue(h.tb, site)
	public, err := h.sign.Public().Armor()
	h.must(err)
	return &branch{
		ring: &manifest.Keyring{
			Format: manifest.Format, RepoID: repoID, Version: 3, IssuedAt: start,
			Keys: []manifest.KeyringKey{{Fingerprint: h.sign.Fingerprint(), PublicKey: string(public)}},
		},
		manifest: &manifest.Manifest{
			Format: manifest.Format, RepoID: repoID, Server: "web-1", ServerKeyFpr: h.server.Fingerprint(),
			Generation: 5, PrevManifestSHA256: digest([]byte("generation 4")), IssuedAt: start, FreshUntil: start.AddDate(0, 0, 7),
			KeyringVersion: 3, MainCommit: "0123456789abcdef0123456789abcdef01234567",
			Deployments: []manifest.Deployment{{
				Certificate: site, Names: []string{site}, NotBefore: b.Leaf.NotBefore, NotAfter: b.Leaf.NotAfter,
				LeafSHA256: b.LeafSHA256(), SPKISHA256: b.SPKISHA256(), Bundle: manifest.BundlePath(site),
				Deployer: "files", Target: "web",
			}},
		},
		header: bundle.Header{Certificate: site, Server: "web-1", LeafSHA256: b.LeafSHA256()},
		bundle: b, sealTo: h.server, sealBy: h.sign, signRing: h.root, signManifest: h.sign,
	}
}

// files signs the branch.
func (h *hub) files(b *branch) map[string][]byte {
	h.tb.Helper()
	if b.sealed == nil {
		plain, err := bundle.Encode(b.header, b.bundle)
		h.must(err)
		b.sealed, err = seal.Seal(plain, b.sealTo.Public(), b.sealBy, start)
		h.must(err)
	}
	for i := range b.manifest.Deployments {
		d := &b.manifest.Deployments[i]
		d.BundleSHA256, d.BundleSize = digest(b.sealed), int64(len(b.sealed))
	}
	ring, err := b.ring.Encode()
	h.must(err)
	body, err := b.manifest.Encode()
	h.must(err)
	return map[string][]byte{
		manifest.KeyringFile: ring, manifest.KeyringSigFile: h.signature(manifest.KeyringSignatureDomain, ring, b.signRing),
		manifest.File: body, manifest.SignatureFile: h.signature(manifest.SignatureDomain, body, b.signManifest),
		manifest.BundlePath(site): b.sealed,
	}
}

func (h *hub) signature(domain string, data []byte, by *seal.PrivateKey) []byte {
	h.tb.Helper()
	sig, err := seal.Sign(domain, data, by, start)
	h.must(err)
	return sig
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

// store opens a real repository that the hub's keys write.
func (h *hub) store() *gitstore.Store {
	h.tb.Helper()
	files := h.files(h.branch())
	store, err := gitstore.Open(gitstore.Config{
		Dir: h.tb.TempDir(), RepoID: repoID, Hub: h.sign, Escrow: h.other,
		Keyring: files[manifest.KeyringFile], KeyringSig: files[manifest.KeyringSigFile],
		Committer: gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}, Now: now,
	})
	h.must(err)
	h.tb.Cleanup(func() { h.must(store.Close()) })
	return store
}
