// This file holds objects that came from elsewhere until somebody has decided about them: nothing of a push is
// written anywhere before it is accepted.

package gitrepo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
)

// PushLimits bound what people push, and what is fetched of a remote's main: some ten thousand files at once.
var PushLimits = Limits{PackBytes: 64 << 20, InflatedBytes: 128 << 20, Objects: 100_000, Timeout: DefaultLimits.Timeout}

// Incoming is objects laid over a repository: what is not among them is read from there. They become part of it when
// an Update takes them. The zero Hash, and objects that neither has, are fs.ErrNotExist.
type Incoming struct {
	repo    *Repo
	objects map[Hash]object
}

// ReadIncoming reads a pack against limits (ErrTooLarge). Deltas may refer to earlier objects of the pack and to
// objects of the repository. An empty pack, or no byte at all, is no objects. Objects that Git's rules or this
// package's forbid are ErrCorrupt when they are read, and keep an Update from taking them.
func (r *Repo) ReadIncoming(pack io.Reader, limits Limits) (*Incoming, error) {
	in := &Incoming{repo: r}
	data, err := readCapped(pack, limits.PackBytes)
	if err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	if len(data) == 0 {
		return in, nil
	}
	if in.objects, err = parsePack(data, limits, r.baseOf); err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	return in, nil
}

// baseOf finds the base of a delta that lies outside of its pack.
func (r *Repo) baseOf(h Hash) (object, error) {
	kind, data, err := r.packs.object(h)
	return object{kind: kind, data: data}, err
}

// Len returns how many objects came.
func (in *Incoming) Len() int { return len(in.objects) }

func (in *Incoming) object(h Hash, want plumbing.ObjectType) (data []byte, found bool, err error) {
	o, ok := in.objects[h]
	switch {
	case !ok:
		return nil, false, nil
	case o.kind != want:
		return nil, false, corrupt("object %s is a %s, not a %s", h, o.kind, want)
	}
	return o.data, true, nil
}

// Commit returns the commit h. It is shared: do not change it.
func (in *Incoming) Commit(h Hash) (*Commit, error) {
	data, found, err := in.object(h, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	if !found {
		return in.repo.Commit(h)
	}
	c, err := ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("read commit %s: %w", h, err)
	}
	return c, nil
}

// Tree lists a folder by its hash, as an Entry names it. The list is shared: do not change it.
func (in *Incoming) Tree(h Hash) ([]Entry, error) {
	data, found, err := in.object(h, plumbing.TreeObject)
	if err != nil {
		return nil, err
	}
	if !found {
		return in.repo.Tree(h)
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", h, err)
	}
	return entries, nil
}

// Blob returns the bytes of a file by its hash, as an Entry names it.
func (in *Incoming) Blob(h Hash) ([]byte, error) {
	data, found, err := in.object(h, plumbing.BlobObject)
	if err != nil {
		return nil, err
	}
	if !found {
		return in.repo.Blob(h)
	}
	return data, nil
}

// ReadFile returns the file at path in commit.
func (in *Incoming) ReadFile(commit Hash, path string) ([]byte, error) {
	e, err := stat(in, commit, path)
	if err != nil {
		return nil, err
	}
	if e.Dir {
		return nil, invalid("%s is a folder", path)
	}
	return in.Blob(e.Hash)
}

// ReadDir lists the folder dir ("" for the root) of commit, in Git's order. The list is shared: do not change it.
func (in *Incoming) ReadDir(commit Hash, dir string) ([]Entry, error) {
	e, err := stat(in, commit, dir)
	if err != nil {
		return nil, err
	}
	if !e.Dir {
		return nil, invalid("%s is a file", dir)
	}
	return in.Tree(e.Hash)
}

// Changes is Repo.Changes.
func (in *Incoming) Changes(from, to Hash) ([]FileChange, error) { return changes(in, from, to) }

// MergeBase is Repo.MergeBase.
func (in *Incoming) MergeBase(a, b Hash) (Hash, bool, error) { return mergeBase(in, a, b) }

// Between is Repo.Between.
func (in *Incoming) Between(old, tip Hash) ([]*Commit, error) { return between(in, old, tip) }

// take adds to the batch what tip needs of the incoming objects, and makes sure that nothing is missing: whatever an
// object refers to is among them or, complete, in the repository.
func (b *batch) take(in *Incoming, tip Hash) error {
	err := b.takeAll(in, tip)
	if errors.Is(err, fs.ErrNotExist) {
		return invalid("the pack leaves out what its commits need: %v", err)
	}
	return err
}

func (b *batch) takeAll(in *Incoming, tip Hash) error {
	w := takeWalk{batch: b, in: in, seen: map[Hash]bool{}}
	for queue := []Hash{tip}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if w.seen[h] || b.repo.packs.has(h) {
			continue
		}
		w.seen[h] = true
		c, err := in.Commit(h)
		if err != nil {
			return fmt.Errorf("take commit %s: %w", h.Short(), err)
		}
		if err := w.tree(c.Tree, 0); err != nil {
			return fmt.Errorf("take commit %s: %w", h.Short(), err)
		}
		if err := w.add(h); err != nil {
			return err
		}
		queue = append(queue, c.Parents...)
	}
	return nil
}

type takeWalk struct {
	batch *batch
	in    *Incoming
	seen  map[Hash]bool
}

func (w *takeWalk) tree(h Hash, depth int) error {
	if w.seen[h] || w.batch.repo.packs.has(h) {
		return nil
	}
	w.seen[h] = true
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	entries, err := w.in.Tree(h)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dir {
			if err := w.tree(e.Hash, depth+1); err != nil {
				return err
			}
			continue
		}
		if w.seen[e.Hash] || w.batch.repo.packs.has(e.Hash) {
			continue
		}
		w.seen[e.Hash] = true
		if _, err := w.in.Blob(e.Hash); err != nil {
			return err
		}
		if err := w.add(e.Hash); err != nil {
			return err
		}
	}
	return w.add(h)
}

func (w *takeWalk) add(h Hash) error {
	o, ok := w.in.objects[h]
	if !ok { // it was pruned a moment ago
		return notExist("object %s", h)
	}
	_, err := w.batch.add(o.kind, o.data, true)
	return err
}
