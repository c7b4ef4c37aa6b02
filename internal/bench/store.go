package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// goGitServers bounds how many servers plain go-git has to serve: its time grows with their number, and all 10,000
// would take minutes.
const goGitServers = 1000

// benchStore measures what the hub writes, against plain go-git doing the same.
func benchStore(ctx context.Context, r *Report) (err error) {
	dir, err := os.MkdirTemp("", "certferry-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return errors.Join(benchFanOut(ctx, r, filepath.Join(dir, "fleet")), benchMain(ctx, r, filepath.Join(dir, "main")))
}

// fanOut is one certificate on many servers, in our store and in go-git's.
type fanOut struct {
	fleet *fleet
	store *gitstore.Store
	main  string
	dir   string
	git   *goGit
	peers int
	// bytes that the last renewal took for each server.
	ourBytes, peerBytes float64
}

func newFanOut(ctx context.Context, r *Report, dir string) (*fanOut, error) {
	n := r.Size(10_000)
	b := &fanOut{dir: dir, peers: min(n, goGitServers)}
	var err error
	if b.fleet, err = newFleet(n); err != nil {
		return nil, err
	}
	if b.store, err = b.fleet.open(filepath.Join(dir, "ours")); err != nil {
		return nil, err
	}
	if b.git, err = newGoGit(b.fleet, filepath.Join(dir, "peer")); err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	h, _ := b.store.Repo().Ref(manifest.MainBranch)
	b.main = h.String()
	// The first publication makes the branches; renewals are what is measured.
	if _, err = b.ours(ctx); err == nil {
		_, err = b.peer(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	return b, nil
}

func (b *fanOut) ours(ctx context.Context) (float64, error) {
	renewed, err := b.fleet.renew(certificate)
	if err != nil {
		return 0, err
	}
	states := b.fleet.wish(renewed)
	before, err := sizeOf(b.dir, "ours/objects")
	if err != nil {
		return 0, err
	}
	ms, err := timed(func() error { return b.publish(ctx, states) })
	if err != nil {
		return 0, err
	}
	after, err := sizeOf(b.dir, "ours/objects")
	b.ourBytes = float64(after-before) / float64(len(states))
	return ms, err
}

func (b *fanOut) publish(ctx context.Context, states []gitstore.ServerState) error {
	got, err := b.store.Publish(ctx, b.main, states)
	if err != nil {
		return err
	}
	for i := range got {
		if got[i].Err != nil || !got[i].Changed {
			return fmt.Errorf("server %s was not renewed: %w", got[i].Server, got[i].Err)
		}
	}
	return nil
}

// peer returns the time that go-git would take for all servers.
func (b *fanOut) peer(ctx context.Context) (float64, error) {
	renewed, err := b.fleet.renew(certificate)
	if err != nil {
		return 0, err
	}
	before, err := sizeOf(b.dir, "peer/objects")
	if err != nil {
		return 0, err
	}
	ms, err := timed(func() error { return b.git.publish(ctx, renewed, b.peers) })
	if err != nil {
		return 0, err
	}
	after, err := sizeOf(b.dir, "peer/objects")
	b.peerBytes = float64(after-before) / float64(b.peers)
	return ms * float64(len(b.fleet.servers)) / float64(b.peers), err
}

// one renews the certificate on a single server, beside all the others.
func (b *fanOut) one(ctx context.Context) (float64, error) {
	renewed, err := b.fleet.renew(certificate)
	if err != nil {
		return 0, err
	}
	states := b.fleet.wish(renewed)[:1]
	return timed(func() error { return b.publish(ctx, states) })
}

func (b *fanOut) peerOne(ctx context.Context) (float64, error) {
	renewed, err := b.fleet.renew(certificate)
	if err != nil {
		return 0, err
	}
	return timed(func() error { return b.git.publish(ctx, renewed, 1) })
}

func benchFanOut(ctx context.Context, r *Report, dir string) (err error) {
	b, err := newFanOut(ctx, r, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	who := fmt.Sprintf("go-git(%d-of-%d,scaled)", b.peers, len(b.fleet.servers))
	fixed := func(v *float64) Measure { return func(context.Context) (float64, error) { return *v, nil } }
	for _, c := range []Comparison{
		{
			Name: fmt.Sprintf("store.fanout-%d", len(b.fleet.servers)), Unit: "ms", Ours: b.ours, Peer: who, PeerRun: b.peer,
			Goal: Goal{Limit: 1500, Ratio: 10},
		},
		{
			Name: "store.bytes-per-server", Unit: "B", Rounds: 1, Ours: fixed(&b.ourBytes), Peer: "go-git", PeerRun: fixed(&b.peerBytes),
			Goal: Goal{Limit: 1536},
		},
		{
			Name: "store.one-server", Unit: "ms", Rounds: 15, Ours: b.one, Peer: "go-git(no-fsync)", PeerRun: b.peerOne,
			Goal: Goal{Limit: 10},
		},
	} {
		if err := r.Compare(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func mainName(i int) string { return fmt.Sprintf("c%05d.example.com", i) }

// benchMain renews one of 10,000 certificates on main.
func benchMain(ctx context.Context, r *Report, dir string) (err error) {
	f, err := newFleet(0)
	if err != nil {
		return err
	}
	store, err := f.open(filepath.Join(dir, "ours"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	n := r.Size(10_000)
	if err := fillMain(ctx, store.Repo(), n); err != nil {
		return err
	}
	peer, err := newGoGit(f, filepath.Join(dir, "peer"))
	if err != nil {
		return err
	}
	entries, err := flatMain(n)
	if err != nil {
		return err
	}
	var took [2]float64 // milliseconds
	ours := func(ctx context.Context) (bytes float64, err error) {
		renewed, err := f.renew(mainName(0))
		if err != nil {
			return 0, err
		}
		issue := gitstore.Issue{Certificate: mainName(0), Bundle: renewed, Issued: manifest.IssuedCertificate{Issuer: "internal", KeyType: "ecdsa-p256"}}
		return grown(dir, "ours/objects", &took[0], func() error { _, err := store.PutIssued(ctx, issue); return err })
	}
	plain := func(context.Context) (float64, error) {
		files := map[string][]byte{"certificate.yaml": noise(300), "chain.pem": noise(400), "bundle.pgp": noise(1600)}
		return grown(dir, "peer/objects", &took[1], func() error { return peer.renewFlat(entries, files) })
	}
	if err := r.Compare(ctx, Comparison{
		Name: fmt.Sprintf("store.main-bytes-%d", n), Unit: "B", Rounds: 5, Ours: ours, Peer: "go-git(flat-folder)", PeerRun: plain,
		Goal: Goal{Limit: 13 << 10},
	}); err != nil {
		return err
	}
	timeOf := func(run Measure, side int) Measure {
		return func(ctx context.Context) (float64, error) { _, err := run(ctx); return took[side], err }
	}
	return r.Compare(ctx, Comparison{
		Name: fmt.Sprintf("store.main-commit-%d", n), Unit: "ms", Rounds: 15, Ours: timeOf(ours, 0), Peer: "go-git(flat-folder,no-fsync)",
		PeerRun: timeOf(plain, 1), Goal: Goal{Limit: 10},
	})
}

// grown returns by how many bytes a folder grew while fn ran, and sets ms to how long that took.
func grown(dir, sub string, ms *float64, fn func() error) (float64, error) {
	before, err := sizeOf(dir, sub)
	if err != nil {
		return 0, err
	}
	if *ms, err = timed(fn); err != nil {
		return 0, err
	}
	after, err := sizeOf(dir, sub)
	return float64(after - before), err
}

// fillMain puts n issued certificates on main in one commit; the first comes later, with all that belongs to it.
func fillMain(ctx context.Context, repo *gitrepo.Repo, n int) error {
	tip, _ := repo.Ref(manifest.MainBranch)
	hub := gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}
	u := gitrepo.Update{
		Ref: manifest.MainBranch, Base: tip, Parents: []gitrepo.Hash{tip}, Author: hub, Committer: hub, Message: "fill",
	}
	for i := 1; i <= n; i++ {
		name := mainName(i)
		for file, data := range map[string][]byte{
			"certificate.yaml": []byte("name: " + name + "\n"), "chain.pem": []byte("chain\n"), "bundle.pgp": fmt.Append(nil, i),
		} {
			u.Edits = append(u.Edits, gitrepo.Edit{Path: path.Join(manifest.IssuedDir(name), file), Data: data})
		}
	}
	_, err := repo.Apply(ctx, []gitrepo.Update{u}, nil)
	return err
}

// sizeOf sums up the bytes of the files below a folder.
func sizeOf(dir, sub string) (int64, error) {
	var sum int64
	err := fs.WalkDir(os.DirFS(filepath.Join(dir, filepath.FromSlash(sub))), ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// noise returns n bytes that do not compress, as sealed files.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data) // it never fails
	return data
}
