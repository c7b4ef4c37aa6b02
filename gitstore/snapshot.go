package gitstore

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// snapshotCache keeps the last snapshot and what it was made of, so that the next one decodes only what changed.
type snapshotCache struct {
	mu           sync.Mutex
	last         *Snapshot
	certificates folder[manifest.Certificate]
	servers      folder[manifest.Server]
	issuers      folder[manifest.Issuer]
	rollouts     folder[manifest.Rollout]
	issued       map[string]folder[manifest.IssuedCertificate] // by the two digits
}

// folder is a decoded folder.
type folder[T any] struct {
	hash  gitrepo.Hash
	items map[string]item[T]
}

// item is a decoded file, or why it could not be decoded.
type item[T any] struct {
	hash  gitrepo.Hash
	path  string
	value *T
	err   error
}

// Snapshot returns the branch main, decoded.
func (s *Store) Snapshot() (*Snapshot, error) {
	c := &s.view
	c.mu.Lock()
	defer c.mu.Unlock()
	head, ok := s.repo.Ref(manifest.MainBranch)
	if !ok {
		return nil, fmt.Errorf("read main: %w", fs.ErrNotExist)
	}
	if c.last != nil && c.last.Commit == head.String() {
		return c.last, nil
	}
	root, err := s.repo.ReadDir(head, "")
	if err != nil {
		return nil, fmt.Errorf("read main: %w", err)
	}
	snap := &Snapshot{Commit: head.String()}
	next := snapshotCache{issued: map[string]folder[manifest.IssuedCertificate]{}}
	for _, e := range root {
		if err := s.loadTop(c, &next, snap, e); err != nil {
			return nil, fmt.Errorf("read main: %w", err)
		}
	}
	snap.Certificates = values(next.certificates, snap)
	snap.Servers = values(next.servers, snap)
	snap.Issuers = values(next.issuers, snap)
	snap.Rollouts = values(next.rollouts, snap)
	snap.Issued = map[string]*manifest.IssuedCertificate{}
	for _, shard := range next.issued {
		collect(shard, snap.Issued, snap)
	}
	snap.addSeconds()
	slices.SortFunc(snap.Faults, func(a, b Fault) int { return strings.Compare(a.Path, b.Path) })
	c.certificates, c.servers, c.issuers, c.rollouts = next.certificates, next.servers, next.issuers, next.rollouts
	c.issued, c.last = next.issued, snap
	return snap, nil
}

// loadTop loads one entry of main's root folder.
func (s *Store) loadTop(old, next *snapshotCache, snap *Snapshot, e gitrepo.Entry) (err error) {
	switch {
	case e.Name == readme && !e.Dir:
	case e.Name == certificatesDir && e.Dir:
		next.certificates, err = loadFiles(s.repo, e, old.certificates, decodeCertificate)
	case e.Name == serversDir && e.Dir:
		next.servers, err = loadFiles(s.repo, e, old.servers, decodeServer)
	case e.Name == issuersDir && e.Dir:
		next.issuers, err = loadFiles(s.repo, e, old.issuers, decodeIssuer)
	case e.Name == rolloutsDir && e.Dir:
		next.rollouts, err = loadFiles(s.repo, e, old.rollouts, decodeRollout)
	case e.Name == issuedDir && e.Dir:
		err = s.loadIssued(old, next, snap, e)
	default:
		snap.Faults = append(snap.Faults, Fault{Path: e.Name, Err: errUnexpected})
	}
	return err
}

// loadFiles decodes the files of a flat folder, reusing from old what is unchanged.
func loadFiles[T any](repo *gitrepo.Repo, dir gitrepo.Entry, old folder[T], decode decoder[T]) (folder[T], error) {
	if old.hash == dir.Hash {
		return old, nil
	}
	entries, err := repo.Tree(dir.Hash)
	if err != nil {
		return folder[T]{}, err
	}
	next := folder[T]{hash: dir.Hash, items: make(map[string]item[T], len(entries))}
	for _, e := range entries {
		if before, ok := old.items[e.Name]; ok && before.hash == e.Hash {
			next.items[e.Name] = before
			continue
		}
		now := item[T]{hash: e.Hash, path: dir.Name + "/" + e.Name}
		name, isYAML := strings.CutSuffix(e.Name, ".yaml")
		if e.Dir || !isYAML {
			now.err = errUnexpected
		} else {
			data, err := repo.Blob(e.Hash)
			if err != nil {
				return folder[T]{}, err
			}
			now.value, now.err = decode(name, data)
		}
		next.items[e.Name] = now
	}
	return next, nil
}

// loadIssued decodes the folders issued/<xx>.
func (s *Store) loadIssued(old, next *snapshotCache, snap *Snapshot, dir gitrepo.Entry) error {
	shards, err := s.repo.Tree(dir.Hash)
	if err != nil {
		return err
	}
	for _, e := range shards {
		if !e.Dir {
			snap.Faults = append(snap.Faults, Fault{Path: issuedDir + "/" + e.Name, Err: errUnexpected})
			continue
		}
		if next.issued[e.Name], err = s.loadShard(e, old.issued[e.Name]); err != nil {
			return err
		}
	}
	return nil
}

// loadShard decodes the certificate.yaml of each folder in issued/<xx>.
func (s *Store) loadShard(dir gitrepo.Entry, old folder[manifest.IssuedCertificate]) (folder[manifest.IssuedCertificate], error) {
	if old.hash == dir.Hash {
		return old, nil
	}
	entries, err := s.repo.Tree(dir.Hash)
	if err != nil {
		return old, err
	}
	next := folder[manifest.IssuedCertificate]{hash: dir.Hash, items: make(map[string]item[manifest.IssuedCertificate], len(entries))}
	for _, e := range entries {
		now, ok := old.items[e.Name]
		if !ok || now.hash != e.Hash {
			now = item[manifest.IssuedCertificate]{hash: e.Hash, path: strings.Join([]string{issuedDir, dir.Name, e.Name}, "/")}
			if now.value, now.err, err = s.loadOneIssued(now.path, e); err != nil {
				return old, err
			}
		}
		next.items[e.Name] = now
	}
	return next, nil
}

// loadOneIssued decodes the certificate.yaml in the folder dir. fault is the file's, err the repository's.
func (s *Store) loadOneIssued(path string, dir gitrepo.Entry) (value *manifest.IssuedCertificate, fault, err error) {
	if !dir.Dir || path != manifest.IssuedDir(dir.Name) {
		return nil, errUnexpected, nil
	}
	files, err := s.repo.Tree(dir.Hash)
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		if f.Name == certificateFile && !f.Dir {
			data, err := s.repo.Blob(f.Hash)
			if err != nil {
				return nil, nil, err
			}
			value, fault = decodeIssued(dir.Name, data)
			return value, fault, nil
		}
	}
	return nil, errors.New(certificateFile + " is missing"), nil
}

// values returns the decoded values of f by name, and adds its faults to snap.
func values[T any](f folder[T], snap *Snapshot) map[string]*T {
	out := make(map[string]*T, len(f.items))
	collect(f, out, snap)
	return out
}

func collect[T any](f folder[T], out map[string]*T, snap *Snapshot) {
	for name, it := range f.items {
		if it.err != nil {
			snap.Faults = append(snap.Faults, Fault{Path: it.path, Err: it.err})
			continue
		}
		out[strings.TrimSuffix(name, ".yaml")] = it.value
	}
}
