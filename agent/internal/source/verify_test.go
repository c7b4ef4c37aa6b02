package source_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

const commit = "89abcdef0123456789abcdef0123456789abcdef"

func TestVerifyAcceptsAGoodState(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	b := h.branch()
	b.manifest.Deployments[0].StepBack = true
	files := h.files(b)
	sum := digest(files[manifest.File])
	for name, floor := range map[string]source.Floor{
		"nothing seen before":             {},
		"same generation with same bytes": {Generation: 5, ManifestSHA256: sum, KeyringVersion: 3},
		"next generation":                 {Generation: 4, ManifestSHA256: digest([]byte("generation 4")), KeyringVersion: 2},
		"newer keyring, older generation": {Generation: 1<<53 - 1, ManifestSHA256: digest(nil), KeyringVersion: 2},
		"newer keyring, same generation":  {Generation: 5, ManifestSHA256: digest(nil), KeyringVersion: 2},
		"newer keyring, another line":     {Generation: 4, ManifestSHA256: digest(nil), KeyringVersion: 2},
		"missed generations":              {Generation: 2, ManifestSHA256: digest([]byte("whatever")), KeyringVersion: 1},
	} {
		got, err := source.Verify(h.trust(), floor, commit, files, start)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Commit != commit || got.Generation != 5 || got.ManifestSHA256 != sum || got.KeyringVersion != 3 ||
			!got.FreshUntil.Equal(b.manifest.FreshUntil) || len(got.Files) != len(files) {
			t.Errorf("%s: state %+v", name, got)
		}
		d := got.Deployments
		if len(d) != 1 || d[0].Certificate != site || d[0].Deployer != "files" || d[0].Target != "web" || !d[0].StepBack ||
			!slices.Equal(d[0].Names, []string{site}) || d[0].Bundle.LeafSHA256() != b.bundle.LeafSHA256() || d[0].Bundle.Key == nil {
			t.Errorf("%s: deployments %+v", name, d)
		}
	}
}

// A stale state is still the newest known one: its age alone is no reason to refuse it.
// A bundle without a key is the server's own affair only where the manifest says so.
func TestVerifyTellsWhoseTheKeyIs(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for _, custody := range []string{manifest.CustodyServer, ""} {
		b := h.branch()
		b.bundle.Key, b.manifest.Deployments[0].Key = nil, custody
		got, err := source.Verify(h.trust(), source.Floor{}, commit, h.files(b), start)
		if err != nil {
			t.Fatal(err)
		}
		if d := got.Deployments[0]; d.KeyOnServer != (custody != "") || d.Bundle.Key != nil {
			t.Errorf("custody %q: %+v", custody, d)
		}
	}
}

func TestVerifyAcceptsAStaleState(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	if _, err := source.Verify(h.trust(), source.Floor{}, commit, h.files(h.branch()), start.AddDate(0, 0, 30)); err != nil {
		t.Error(err)
	}
}

// refusal is one way in which a remote may lie.
type refusal struct {
	name  string
	bend  func(*branch)
	spoil func(files map[string][]byte) map[string][]byte
	floor source.Floor
	want  string
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	cases := slices.Concat(keyringRefusals(h), manifestRefusals(h), floorRefusals(), bundleRefusals(h), headerRefusals(h))
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			b := h.branch()
			if tc.bend != nil {
				tc.bend(b)
			}
			files := h.files(b)
			if tc.spoil != nil {
				files = tc.spoil(files)
			}
			state, err := source.Verify(h.trust(), tc.floor, commit, files, start)
			if !errors.Is(err, source.ErrRefused) || !strings.Contains(err.Error(), tc.want) || state != nil {
				t.Errorf("state %v, error %v\nwant ErrRefused with %q", state, err, tc.want)
			}
		})
	}
}

func replace(path string, data []byte) func(map[string][]byte) map[string][]byte {
	return func(files map[string][]byte) map[string][]byte { return with(files, path, data) }
}

// resign signs what stands at path with make, after all else was signed.
func resign(path, sig string, sign func(data []byte) []byte) func(map[string][]byte) map[string][]byte {
	return func(files map[string][]byte) map[string][]byte { return with(files, sig, sign(files[path])) }
}

func keyringRefusals(h *hub) []refusal {
	const unsigned = "keyring is not signed by the pinned root key"
	return []refusal{
		{name: "an empty branch", spoil: func(map[string][]byte) map[string][]byte { return nil }, want: unsigned},
		{name: "no keyring", spoil: replace(manifest.KeyringFile, nil), want: unsigned},
		{name: "unsigned keyring", spoil: replace(manifest.KeyringSigFile, nil), want: unsigned},
		{name: "keyring signed by the hub", bend: func(b *branch) { b.signRing = h.sign }, want: unsigned},
		{name: "keyring with two signatures", want: unsigned, spoil: resign(manifest.KeyringFile, manifest.KeyringSigFile, func(data []byte) []byte {
			one := h.signature(manifest.KeyringSignatureDomain, data, h.root)
			return slices.Concat(one, one)
		})},
		{name: "keyring signed in another domain", want: unsigned, spoil: resign(manifest.KeyringFile, manifest.KeyringSigFile, func(data []byte) []byte {
			return h.signature(manifest.SignatureDomain, data, h.root)
		})},
		{name: "keyring changed by a byte", want: unsigned, spoil: func(files map[string][]byte) map[string][]byte {
			return with(files, manifest.KeyringFile, append(slices.Clone(files[manifest.KeyringFile]), ' '))
		}},
		{name: "keyring that cannot be read", want: "read keyring", spoil: func(files map[string][]byte) map[string][]byte {
			files = with(files, manifest.KeyringFile, []byte("{}"))
			return with(files, manifest.KeyringSigFile, h.signature(manifest.KeyringSignatureDomain, []byte("{}"), h.root))
		}},
		{name: "keyring of another repository", bend: func(b *branch) { b.ring.RepoID = "repo-2" }, want: "keyring belongs to another repository"},
		{name: "older keyring", floor: source.Floor{KeyringVersion: 4}, want: "keyring version 3 is older than version 4"},
		{name: "key under another fingerprint", bend: func(b *branch) { b.ring.Keys[0].Fingerprint = h.other.Fingerprint() }, want: anyCheck},
		{name: "key that is none", bend: func(b *branch) { b.ring.Keys[0].PublicKey = "no key" }, want: anyCheck},
		{name: "manifest made for another keyring", bend: func(b *branch) { b.manifest.KeyringVersion = 2 }, want: "keyring version 2, the branch holds version 3"},
	}
}

// anyCheck stands where more than one check may be the first to notice.
const anyCheck = ""

func manifestRefusals(h *hub) []refusal {
	const unsigned = "manifest is not signed by a key of the keyring"
	return []refusal{
		{name: "no manifest", spoil: replace(manifest.File, nil), want: unsigned},
		{name: "unsigned manifest", spoil: replace(manifest.SignatureFile, nil), want: unsigned},
		{name: "garbage for a signature", spoil: replace(manifest.SignatureFile, []byte("no signature")), want: unsigned},
		{name: "manifest signed by a stranger", bend: func(b *branch) { b.signManifest = h.other }, want: unsigned},
		{name: "manifest signed by the server itself", bend: func(b *branch) { b.signManifest = h.server }, want: unsigned},
		{name: "manifest signed by the root key", bend: func(b *branch) { b.signManifest = h.root }, want: unsigned},
		{name: "manifest with two signatures", want: unsigned, spoil: resign(manifest.File, manifest.SignatureFile, func(data []byte) []byte {
			return slices.Concat(h.signature(manifest.SignatureDomain, data, h.sign), h.signature(manifest.SignatureDomain, data, h.other))
		})},
		{name: "manifest signed in another domain", want: unsigned, spoil: resign(manifest.File, manifest.SignatureFile, func(data []byte) []byte {
			return h.signature(manifest.KeyringSignatureDomain, data, h.sign)
		})},
		{name: "manifest that cannot be read", want: "read manifest", spoil: func(files map[string][]byte) map[string][]byte {
			files = with(files, manifest.File, []byte("{}"))
			return with(files, manifest.SignatureFile, h.signature(manifest.SignatureDomain, []byte("{}"), h.sign))
		}},
		{name: "another repository", bend: func(b *branch) { b.manifest.RepoID = "repo-2" }, want: "manifest belongs to another repository"},
		{name: "another server's branch", bend: func(b *branch) { b.manifest.Server = "web-2" }, want: "manifest belongs to server web-2"},
		{name: "another key of this server", bend: func(b *branch) { b.manifest.ServerKeyFpr = h.other.Fingerprint() }, want: "another key of this server"},
	}
}

func floorRefusals() []refusal {
	sum := digest([]byte("something else"))
	return []refusal{
		{name: "older generation", floor: source.Floor{Generation: 6, ManifestSHA256: sum, KeyringVersion: 3}, want: "generation 5 is older than generation 6"},
		{name: "same generation with other bytes", floor: source.Floor{Generation: 5, ManifestSHA256: sum, KeyringVersion: 3}, want: "generation 5 comes with other content"},
		{name: "next generation of another line", floor: source.Floor{Generation: 4, ManifestSHA256: sum, KeyringVersion: 3}, want: "generation 5 does not follow"},
	}
}

func bundleRefusals(h *hub) []refusal {
	path := manifest.BundlePath(site)
	return []refusal{
		{name: "no bundle", spoil: replace(path, nil), want: "bundle of certificate example.com is missing"},
		{name: "cut bundle", want: "the manifest says", spoil: func(files map[string][]byte) map[string][]byte {
			return with(files, path, files[path][:len(files[path])-1])
		}},
		{name: "swapped bundle of the same size", want: "is not the one that the manifest names", spoil: func(files map[string][]byte) map[string][]byte {
			swapped := slices.Clone(files[path])
			swapped[len(swapped)-1] ^= 1
			return with(files, path, swapped)
		}},
		{name: "bundle sealed to another server", bend: func(b *branch) { b.sealTo = h.other }, want: "open bundle"},
		{name: "bundle signed by a stranger", bend: func(b *branch) { b.sealBy = h.other }, want: "open bundle"},
		{name: "bundle that is not sealed", bend: func(b *branch) { b.sealed = []byte("plain") }, want: "open bundle"},
	}
}

func headerRefusals(h *hub) []refusal {
	first := func(b *branch) *manifest.Deployment { return &b.manifest.Deployments[0] }
	return []refusal{
		{name: "another certificate sealed again", bend: func(b *branch) { b.header.Certificate = "other.com" }, want: "holds certificate other.com"},
		{name: "another server's bundle sealed again", bend: func(b *branch) { b.header.Server = "web-2" }, want: "was made for another server"},
		{name: "escrow copy sealed again", bend: func(b *branch) { b.header.Server = "" }, want: "was made for another server"},
		{name: "an earlier issue", want: "another issue", bend: func(b *branch) {
			b.bundle = h.ca.Issue(h.tb, site)
			b.header = bundle.Header{Certificate: site, Server: "web-1", LeafSHA256: b.bundle.LeafSHA256()}
		}},
		{name: "header that names another leaf", want: anyCheck, bend: func(b *branch) {
			plain, err := bundle.Encode(b.header, b.bundle)
			h.must(err)
			plain = bytes.Replace(plain, []byte(b.header.LeafSHA256), []byte(digest(nil)), 1)
			b.sealed, err = seal.Seal(plain, h.server.Public(), h.sign, start)
			h.must(err)
		}},
		{name: "another key", bend: func(b *branch) { first(b).SPKISHA256 = digest(nil) }, want: "another key"},
		{name: "a key that should be the server's own", bend: func(b *branch) { first(b).Key = manifest.CustodyServer }, want: "holds a private key"},
		{name: "another end", bend: func(b *branch) { first(b).NotAfter = first(b).NotAfter.Add(time.Hour) }, want: "other dates"},
		{name: "another begin", bend: func(b *branch) { first(b).NotBefore = first(b).NotBefore.Add(-time.Hour) }, want: "other dates"},
	}
}
