// This file does with plain go-git what the store does: loose objects and SetReference, with the same cryptography.

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/go-git/go-billy/v5/osfs"             //nolint:depguard // the peer that is measured
	"github.com/go-git/go-git/v5/plumbing"           //nolint:depguard // the peer that is measured
	"github.com/go-git/go-git/v5/plumbing/cache"     //nolint:depguard // the peer that is measured
	"github.com/go-git/go-git/v5/plumbing/filemode"  //nolint:depguard // the peer that is measured
	"github.com/go-git/go-git/v5/plumbing/object"    //nolint:depguard // the peer that is measured
	"github.com/go-git/go-git/v5/storage/filesystem" //nolint:depguard // the peer that is measured
	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// goGit is a bare repository that go-git writes.
type goGit struct {
	fleet      *fleet
	storer     *filesystem.Storage
	generation uint64
	keyring    plumbing.Hash
	keyringSig plumbing.Hash
}

func newGoGit(f *fleet, dir string) (*goGit, error) {
	g := &goGit{fleet: f, storer: filesystem.NewStorage(osfs.New(dir), cache.NewObjectLRUDefault())}
	err := g.storer.Init()
	if err != nil {
		return nil, err
	}
	if g.keyring, err = g.blob(f.keyring); err != nil {
		return nil, err
	}
	g.keyringSig, err = g.blob(f.keyringSig)
	return g, err
}

// blob writes a file as a loose object.
func (g *goGit) blob(data []byte) (plumbing.Hash, error) {
	o := g.storer.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return g.storer.SetEncodedObject(o)
}

func (g *goGit) tree(entries ...object.TreeEntry) (plumbing.Hash, error) {
	o := g.storer.NewEncodedObject()
	if err := (&object.Tree{Entries: entries}).Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return g.storer.SetEncodedObject(o)
}

// commit writes a signed commit and moves branch to it.
func (g *goGit) commit(branch string, tree plumbing.Hash, message string) error {
	who := object.Signature{Name: "Certferry hub", Email: "hub@example.com", When: clock()}
	c := &object.Commit{Author: who, Committer: who, Message: message, TreeHash: tree}
	name := plumbing.NewBranchReferenceName(branch)
	if old, err := g.storer.Reference(name); err == nil {
		c.ParentHashes = []plumbing.Hash{old.Hash()}
	}
	unsigned := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(unsigned); err != nil {
		return err
	}
	r, err := unsigned.Reader()
	if err != nil {
		return err
	}
	payload, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	sig, err := seal.Sign("", payload, g.fleet.hub, clock())
	if err != nil {
		return err
	}
	c.PGPSignature = string(sig)
	o := g.storer.NewEncodedObject()
	if err := c.Encode(o); err != nil {
		return err
	}
	h, err := g.storer.SetEncodedObject(o)
	if err != nil {
		return err
	}
	return g.storer.SetReference(plumbing.NewHashReference(name, h))
}

// sealed is what is encrypted and signed for one server.
type sealed struct{ bundle, manifest, manifestSig []byte }

// publish renews the certificate on the first n servers: cryptography on all processors, then the writing, which
// go-git's storage allows from one goroutine only.
func (g *goGit) publish(ctx context.Context, b *bundle.Bundle, n int) error {
	g.generation++
	made := make([]sealed, n)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range made {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			made[i], err = g.seal(b, i)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i := range made {
		if err := g.write(g.fleet.servers[i].Server, &made[i]); err != nil {
			return fmt.Errorf("go-git: %w", err)
		}
	}
	return nil
}

func (g *goGit) seal(b *bundle.Bundle, i int) (out sealed, err error) {
	server := &g.fleet.servers[i]
	plain, err := bundle.Encode(bundle.Header{Certificate: certificate, Server: server.Server, LeafSHA256: b.LeafSHA256()}, b)
	if err != nil {
		return out, err
	}
	if out.bundle, err = seal.Seal(plain, server.Key, g.fleet.hub, clock()); err != nil {
		return out, err
	}
	sum := sha256.Sum256(out.bundle)
	now := clock().UTC().Truncate(time.Second)
	m := &manifest.Manifest{
		Format: manifest.Format, RepoID: repoID, Server: server.Server, ServerKeyFpr: server.Key.Fingerprint(), Generation: g.generation,
		IssuedAt: now, FreshUntil: now.Add(7 * 24 * time.Hour), KeyringVersion: 1, MainCommit: plumbing.ZeroHash.String(),
		Deployments: []manifest.Deployment{{
			Certificate: certificate, Names: b.Leaf.DNSNames, NotBefore: b.Leaf.NotBefore.UTC(), NotAfter: b.Leaf.NotAfter.UTC(),
			LeafSHA256: b.LeafSHA256(), SPKISHA256: b.SPKISHA256(), Bundle: manifest.BundlePath(certificate),
			BundleSHA256: hex.EncodeToString(sum[:]), BundleSize: int64(len(out.bundle)), Deployer: "nginx", Target: "default",
		}},
	}
	if g.generation > 1 {
		m.PrevManifestSHA256 = hex.EncodeToString(sum[:])
	}
	if out.manifest, err = m.Encode(); err != nil {
		return out, err
	}
	out.manifestSig, err = seal.Sign(manifest.SignatureDomain, out.manifest, g.fleet.hub, clock())
	return out, err
}

func (g *goGit) write(server string, s *sealed) error {
	var blobs [3]plumbing.Hash
	for i, data := range [][]byte{s.bundle, s.manifest, s.manifestSig} {
		var err error
		if blobs[i], err = g.blob(data); err != nil {
			return err
		}
	}
	bundles, err := g.tree(object.TreeEntry{Name: certificate + ".pgp", Mode: filemode.Regular, Hash: blobs[0]})
	if err != nil {
		return err
	}
	root, err := g.tree(
		object.TreeEntry{Name: manifest.BundleDir, Mode: filemode.Dir, Hash: bundles},
		object.TreeEntry{Name: manifest.KeyringFile, Mode: filemode.Regular, Hash: g.keyring},
		object.TreeEntry{Name: manifest.KeyringSigFile, Mode: filemode.Regular, Hash: g.keyringSig},
		object.TreeEntry{Name: manifest.File, Mode: filemode.Regular, Hash: blobs[1]},
		object.TreeEntry{Name: manifest.SignatureFile, Mode: filemode.Regular, Hash: blobs[2]})
	if err != nil {
		return err
	}
	return g.commit("servers/"+server, root, "deploy "+certificate+"\n")
}

// flatMain lists n folders that stand for certificates, all in one folder as a plain layout has them. Only their
// names and hashes matter for what a commit costs.
func flatMain(n int) ([]object.TreeEntry, error) {
	entries := make([]object.TreeEntry, n)
	for i := range entries {
		entries[i] = object.TreeEntry{Name: mainName(i), Mode: filemode.Dir}
		if _, err := rand.Read(entries[i].Hash[:]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// renewFlat commits new files for the first of the certificates in entries.
func (g *goGit) renewFlat(entries []object.TreeEntry, files map[string][]byte) error {
	var dir []object.TreeEntry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h, err := g.blob(files[name])
		if err != nil {
			return err
		}
		dir = append(dir, object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: h})
	}
	var err error
	if entries[0].Hash, err = g.tree(dir...); err != nil {
		return err
	}
	issued, err := g.tree(entries...)
	if err != nil {
		return err
	}
	root, err := g.tree(object.TreeEntry{Name: "issued", Mode: filemode.Dir, Hash: issued})
	if err != nil {
		return err
	}
	return g.commit("main", root, "renew "+mainName(0)+"\n")
}
