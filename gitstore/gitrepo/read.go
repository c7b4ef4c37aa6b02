package gitrepo

import (
	"fmt"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// RawObject returns the type ("commit", "tree", "blob" or "tag") and the bytes of an object.
func (r *Repo) RawObject(h Hash) (typ string, data []byte, err error) {
	kind, data, err := r.packs.object(h)
	if err != nil {
		return "", nil, err
	}
	return kind.String(), data, nil
}

// object reads an object of one kind and makes sure that it is the one that h names: what a damaged disk or somebody's
// hand put in its place must go no further. A hash costs a few microseconds; trees and commits are read once.
func (r *Repo) object(h Hash, want plumbing.ObjectType) ([]byte, error) {
	data, err := r.typed(h, want)
	if err != nil {
		return nil, err
	}
	if got := hashObject(want, data); got != h {
		return nil, corrupt("%s %s hashes to %s", want, h, got)
	}
	return data, nil
}

// typed reads an object of one kind and does not check its hash.
func (r *Repo) typed(h Hash, want plumbing.ObjectType) ([]byte, error) {
	kind, data, err := r.packs.object(h)
	if err != nil {
		return nil, err
	}
	if kind != want {
		return nil, corrupt("object %s is a %s, not a %s", h, kind, want)
	}
	return data, nil
}

// Commit returns the commit h. It is shared: do not change it.
func (r *Repo) Commit(h Hash) (*Commit, error) {
	if c, ok := r.log.get(h); ok {
		return c, nil
	}
	data, err := r.typed(h, plumbing.CommitObject) // parsing it computes the hash
	if err != nil {
		return nil, fmt.Errorf("read commit: %w", err)
	}
	c, err := ParseCommit(data)
	if err != nil {
		return nil, fmt.Errorf("read commit %s: %w", h, err)
	}
	if c.Hash != h {
		return nil, fmt.Errorf("read commit: %w", corrupt("object %s hashes to %s", h, c.Hash))
	}
	r.log.put(h, c, 1)
	return c, nil
}

// tree returns the entries of the tree h. They are shared: do not change them.
func (r *Repo) tree(h Hash) ([]Entry, error) {
	if entries, ok := r.trees.get(h); ok {
		return entries, nil
	}
	data, err := r.object(h, plumbing.TreeObject)
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", h, err)
	}
	r.trees.put(h, entries, len(entries)+1)
	return entries, nil
}

// Stat returns the entry at path in commit; "" is the root folder.
func (r *Repo) Stat(commit Hash, path string) (Entry, error) { return stat(r, commit, path) }

// findEntry looks name up in a tree, where a file and a folder sort differently.
func findEntry(entries []Entry, name string) (Entry, bool) {
	for _, dir := range []bool{false, true} {
		want := Entry{Name: name, Dir: dir}
		i := sort.Search(len(entries), func(i int) bool { return !less(entries[i], want) })
		if i < len(entries) && entries[i].Name == name {
			return entries[i], true
		}
	}
	return Entry{}, false
}

// ReadFile returns the file at path in commit.
func (r *Repo) ReadFile(commit Hash, path string) ([]byte, error) {
	e, err := r.Stat(commit, path)
	if err != nil {
		return nil, err
	}
	if e.Dir {
		return nil, invalid("%s is a folder", path)
	}
	return r.Blob(e.Hash)
}

// Blob returns the bytes of a file by its hash, as an Entry names it.
func (r *Repo) Blob(h Hash) ([]byte, error) {
	data, err := r.object(h, plumbing.BlobObject)
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	return data, nil
}

// ReadDir lists the folder dir ("" for the root) of commit, in Git's order. The list is shared: do not change it.
func (r *Repo) ReadDir(commit Hash, dir string) ([]Entry, error) {
	e, err := r.Stat(commit, dir)
	if err != nil {
		return nil, err
	}
	if !e.Dir {
		return nil, invalid("%s is a file", dir)
	}
	return r.tree(e.Hash)
}

// Tree lists a folder by its hash, as an Entry names it. The list is shared: do not change it.
func (r *Repo) Tree(h Hash) ([]Entry, error) { return r.tree(h) }

// Walk calls fn for each file below dir ("" for all) in commit, in Git's order, until it fails.
func (r *Repo) Walk(commit Hash, dir string, fn func(path string, data []byte) error) error {
	e, err := r.Stat(commit, dir)
	if err != nil {
		return err
	}
	if !e.Dir {
		return invalid("%s is a file", dir)
	}
	if dir != "" {
		dir += "/"
	}
	return r.walk(e.Hash, dir, fn)
}

func (r *Repo) walk(tree Hash, prefix string, fn func(path string, data []byte) error) error {
	if strings.Count(prefix, "/") > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	entries, err := r.tree(tree)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dir {
			if err := r.walk(e.Hash, prefix+e.Name+"/", fn); err != nil {
				return err
			}
			continue
		}
		data, err := r.Blob(e.Hash)
		if err != nil {
			return err
		}
		if err := fn(prefix+e.Name, data); err != nil {
			return err
		}
	}
	return nil
}

// Log returns from and its ancestors along first parents, newest first, at most limit (0 for all).
func (r *Repo) Log(from Hash, limit int) ([]*Commit, error) {
	var out []*Commit
	for h := from; limit <= 0 || len(out) < limit; {
		c, err := r.Commit(h)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		if len(c.Parents) == 0 {
			break
		}
		h = c.Parents[0]
	}
	return out, nil
}
