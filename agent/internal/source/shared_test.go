package source_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// share seals the branch's bundle for this server and another one, and lets the manifest name the body
// and hold the key packet.
func (h *hub) share(b *branch) (files map[string][]byte, others []byte) {
	h.tb.Helper()
	b.header.Server = ""
	return h.shareAs(b)
}

func (h *hub) shareAs(b *branch) (files map[string][]byte, others []byte) {
	h.tb.Helper()
	plain, err := bundle.Encode(b.header, b.bundle)
	h.must(err)
	body, keys, err := seal.SealShared(plain, []*seal.PublicKey{b.sealTo.Public(), h.other.Public()}, b.sealBy, start)
	h.must(err)
	b.sealed = body
	b.manifest.Deployments[0].BundleKey = keys[0]
	return h.files(b), keys[1]
}

func TestVerifyOpensASharedBody(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	b := h.branch()
	files, _ := h.share(b)
	got, err := source.Verify(h.trust(), source.Floor{}, commit, files, start)
	h.must(err)
	if d := got.Deployments; len(d) != 1 || d[0].Bundle.LeafSHA256() != b.bundle.LeafSHA256() || d[0].Bundle.Key == nil {
		t.Errorf("deployments %+v", d)
	}
}

func TestVerifyRefusesSharedBodies(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	for name, tt := range map[string]struct {
		files func() map[string][]byte
		want  string
	}{
		"no key packet": {func() map[string][]byte {
			b := h.branch()
			h.share(b)
			b.manifest.Deployments[0].BundleKey = nil
			return h.files(b)
		}, "open bundle"},
		"another server's key packet": {func() map[string][]byte {
			b := h.branch()
			_, others := h.share(b)
			b.manifest.Deployments[0].BundleKey = others
			return h.files(b)
		}, "open bundle"},
		"no body": {func() map[string][]byte {
			files, _ := h.share(h.branch())
			return with(files, manifest.BundlePath(site), nil)
		}, "bundle of certificate example.com is missing"},
		"body of the same issue, sealed again": {func() map[string][]byte {
			b, again := h.branch(), h.branch()
			files, _ := h.share(b)
			again.bundle, again.header = b.bundle, b.header
			others, _ := h.share(again)
			return with(files, manifest.BundlePath(site), others[manifest.BundlePath(site)])
		}, "is not the one that the manifest names"},
		"key packet for another server": {func() map[string][]byte {
			b := h.branch()
			b.sealTo = h.key("web-2")
			files, _ := h.share(b)
			return files
		}, "open bundle"},
		"body of a stranger": {func() map[string][]byte {
			b := h.branch()
			b.sealBy = h.other
			files, _ := h.share(b)
			return files
		}, "open bundle"},
		"body that names this server": {func() map[string][]byte {
			files, _ := h.shareAs(h.branch())
			return files
		}, "was made for another server"},
		"body that names another server": {func() map[string][]byte {
			b := h.branch()
			b.header.Server = "web-2"
			files, _ := h.shareAs(b)
			return files
		}, "was made for another server"},
		"another certificate's body": {func() map[string][]byte {
			b := h.branch()
			b.header.Certificate = "other.com"
			files, _ := h.share(b)
			return files
		}, "holds certificate other.com"},
		// Each of the sharers could hand the body on to a server that it was not made for: nothing but the manifest
		// says who may have it.
		"body without its packet as if sealed to one": {func() map[string][]byte {
			b := h.branch()
			h.share(b)
			whole := slices.Concat(b.manifest.Deployments[0].BundleKey, b.sealed)
			alone := h.branch()
			alone.header.Server, alone.sealed = "", whole
			return h.files(alone)
		}, "open bundle"},
		"sealed to one as if shared": {func() map[string][]byte {
			b := h.branch()
			b.header.Server = ""
			plain, err := bundle.Encode(b.header, b.bundle)
			h.must(err)
			whole, err := seal.Seal(plain, h.server.Public(), h.sign, start)
			h.must(err)
			packet := whole[:2+int(whole[1])]
			b.sealed, b.manifest.Deployments[0].BundleKey = whole[len(packet):], packet
			return h.files(b)
		}, "open bundle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state, err := source.Verify(h.trust(), source.Floor{}, commit, tt.files(), start)
			if !errors.Is(err, source.ErrRefused) || !strings.Contains(err.Error(), tt.want) || state != nil {
				t.Errorf("state %v, error %v\nwant ErrRefused with %q", state, err, tt.want)
			}
		})
	}
}

// TestRecoveryFromAStolenSigningKey: whoever has the signing key pushes the generation to its end, so that nothing
// could follow; the next keyring recovers the server, and what the thief made is refused from then on.
func TestRecoveryFromAStolenSigningKey(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	trust := h.trust()
	see := func(b *branch, floor source.Floor) (source.Floor, error) {
		s, err := source.Verify(trust, floor, commit, h.files(b), start)
		if err != nil {
			return floor, err
		}
		return source.Floor{Generation: s.Generation, ManifestSHA256: s.ManifestSHA256, KeyringVersion: s.KeyringVersion}, nil
	}
	honest, err := see(h.branch(), source.Floor{})
	h.must(err)
	for _, generation := range []uint64{1<<53 - 1, 1<<63 - 1} {
		thief := h.branch()
		thief.manifest.Generation = generation
		floor, err := see(thief, honest)
		h.must(err) // nobody can tell yet
		next := h.branch()
		next.manifest.Generation = 6
		if _, err := see(next, floor); !errors.Is(err, source.ErrRefused) {
			t.Fatalf("generation 6 after %d under the same keyring: %v", generation, err)
		}

		stolen, fresh := h.sign, h.key("hub anew")
		public, err := fresh.Public().Armor()
		h.must(err)
		rotate := func(b *branch) *branch {
			b.ring.Version, b.manifest.KeyringVersion = 4, 4
			b.ring.Keys = []manifest.KeyringKey{{Fingerprint: fresh.Fingerprint(), PublicKey: string(public)}}
			b.signManifest, b.sealBy = fresh, fresh
			return b
		}
		next = rotate(h.branch())
		next.manifest.Generation = 6
		recovered, err := see(next, floor)
		if err != nil || recovered.Generation != 6 || recovered.KeyringVersion != 4 {
			t.Fatalf("recovery from generation %d: %+v %v", generation, recovered, err)
		}
		for name, b := range map[string]*branch{
			"what the thief had shown": thief,
			"a still higher one": func() *branch {
				b := h.branch()
				b.manifest.Generation = 1<<63 - 1
				return b
			}(),
			"the stolen key beside the new keyring": func() *branch {
				b := rotate(h.branch())
				b.manifest.Generation, b.signManifest = 7, stolen
				return b
			}(),
			"a keyring of the thief": func() *branch {
				b := h.branch()
				b.ring.Version, b.manifest.KeyringVersion, b.manifest.Generation, b.signRing = 5, 5, 7, stolen
				return b
			}(),
			"a bundle of the thief": func() *branch {
				b := rotate(h.branch())
				b.manifest.Generation, b.sealBy, b.sealed = 7, stolen, nil
				return b
			}(),
		} {
			if _, err := see(b, recovered); !errors.Is(err, source.ErrRefused) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
