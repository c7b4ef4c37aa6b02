package gitrepo

import (
	"context"
	"errors"
	"io"
)

var errUnfinished = errors.New("not built yet")

// Repo is an open repository. All methods may be called from several goroutines; Apply calls run one after another.
type Repo struct{}

// Open opens the bare repository in dir and makes it if it is absent. It takes the process lock (ErrLocked if
// another process has it), removes what a killed process left behind, and checks that every reference leads to a
// complete commit whose objects hash to their names.
func Open(dir string, opt Options) (*Repo, error) { return nil, errUnfinished }

// Close gives up the lock.
func (r *Repo) Close() error { return nil }

// Apply makes the commits of a batch in one pack and moves all their references at once: all or nothing. The
// hashes come back in the order of the updates. beforeRefs, if not nil, runs when the objects are safe on disk and
// the references have not moved; its error stops the batch.
func (r *Repo) Apply(ctx context.Context, updates []Update, beforeRefs func([]Hash) error) ([]Hash, error) {
	return nil, errUnfinished
}

// Ref returns where the reference called name stands.
func (r *Repo) Ref(name string) (Hash, bool) { return Hash{}, false }

// Refs returns a copy of all references.
func (r *Repo) Refs() map[string]Hash { return nil }

// RefSeq returns a number that grows with each change of references.
func (r *Repo) RefSeq() uint64 { return 0 }

// Changed returns a channel that is closed at the next change of references.
func (r *Repo) Changed() <-chan struct{} { return nil }

// ReadFile returns the file at path in commit.
func (r *Repo) ReadFile(commit Hash, path string) ([]byte, error) { return nil, errUnfinished }

// ReadDir lists the folder dir ("" for the root) of commit, in Git's order.
func (r *Repo) ReadDir(commit Hash, dir string) ([]Entry, error) { return nil, errUnfinished }

// Stat returns the entry at path in commit.
func (r *Repo) Stat(commit Hash, path string) (Entry, error) { return Entry{}, errUnfinished }

// Walk calls fn for each file below dir ("" for all) in commit, in Git's order, until it fails.
func (r *Repo) Walk(commit Hash, dir string, fn func(path string, data []byte) error) error {
	return errUnfinished
}

// Commit returns the commit h.
func (r *Repo) Commit(h Hash) (*Commit, error) { return nil, errUnfinished }

// Log returns from and its ancestors along first parents, newest first, at most max (0 for all).
func (r *Repo) Log(from Hash, max int) ([]*Commit, error) { return nil, errUnfinished }

// Missing returns the objects that a client lacks which wants the commits in wants and already has those in haves
// with all their files. A depth above 0 stops that many commits down; shallow lists the commits whose parents
// were left out. With a depth the walk does not stop at haves, so that a shallow client can be given more history.
func (r *Repo) Missing(wants, haves []Hash, depth int) (objects, shallow []Hash, err error) {
	return nil, nil, errUnfinished
}

// RawObject returns the type ("commit", "tree", "blob" or "tag") and the bytes of an object.
func (r *Repo) RawObject(h Hash) (typ string, data []byte, err error) { return "", nil, errUnfinished }

// WritePack writes a pack of the objects, as they lie on disk.
func (r *Repo) WritePack(w io.Writer, objects []Hash) error { return errUnfinished }

// Verify checks every reference: commit, history, trees and blobs are there and hash to their names.
func (r *Repo) Verify(ctx context.Context) error { return errUnfinished }

// ParseCommit parses the bytes of a commit object. It refuses what would let two readers see two things: doubled
// headers, two signatures, missing or misplaced lines.
func ParseCommit(data []byte) (*Commit, error) { return nil, errUnfinished }
