// This file compares commits and walks history. It works on the repository and on objects that are not part of it
// yet alike.

package gitrepo

import (
	"fmt"
	"slices"
	"strings"
)

// maxWalk bounds how many commits a walk through history looks at.
const maxWalk = 100_000

// reader reads objects; a Repo and an Incoming are readers.
type reader interface {
	Commit(h Hash) (*Commit, error)
	Tree(h Hash) ([]Entry, error)
	Blob(h Hash) ([]byte, error)
}

// FileChange is a file that differs between two commits.
type FileChange struct {
	Path string
	// Old and New name the file's content before and after, as an Entry does; zero where the file is absent.
	Old Hash
	New Hash
}

// Changes returns the files that differ between two commits, sorted by path. The zero from stands for no files.
func (r *Repo) Changes(from, to Hash) ([]FileChange, error) { return changes(r, from, to) }

// MergeBase returns a newest commit that a and b have in common; false if they have none.
func (r *Repo) MergeBase(a, b Hash) (Hash, bool, error) { return mergeBase(r, a, b) }

// Between returns the commits that lead to tip and not to old, newest first; the zero old excludes none.
func (r *Repo) Between(old, tip Hash) ([]*Commit, error) { return between(r, old, tip) }

// stat finds path in commit.
func stat(r reader, commit Hash, path string) (Entry, error) {
	c, err := r.Commit(commit)
	if err != nil {
		return Entry{}, err
	}
	at := Entry{Dir: true, Hash: c.Tree}
	if path == "" {
		return at, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if !at.Dir {
			return Entry{}, notExist("find %s in commit %s", path, commit.Short())
		}
		entries, err := r.Tree(at.Hash)
		if err != nil {
			return Entry{}, err
		}
		var ok bool
		if at, ok = findEntry(entries, name); !ok {
			return Entry{}, notExist("find %s in commit %s", path, commit.Short())
		}
	}
	return at, nil
}

func changes(r reader, from, to Hash) ([]FileChange, error) {
	w := changeWalk{reader: r}
	var old Hash
	if !from.IsZero() {
		c, err := r.Commit(from)
		if err != nil {
			return nil, fmt.Errorf("compare commits: %w", err)
		}
		old = c.Tree
	}
	c, err := r.Commit(to)
	if err == nil {
		err = w.trees(old, c.Tree, "", 0)
	}
	if err != nil {
		return nil, fmt.Errorf("compare commits: %w", err)
	}
	slices.SortFunc(w.found, func(a, b FileChange) int { return strings.Compare(a.Path, b.Path) })
	return w.found, nil
}

type changeWalk struct {
	reader reader
	found  []FileChange
}

// trees compares two folders; equal ones are not looked into, and zero stands for none.
func (w *changeWalk) trees(old, now Hash, prefix string, depth int) error {
	if old == now {
		return nil
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	before, err := w.list(old)
	if err != nil {
		return err
	}
	after, err := w.list(now)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		var a, b Entry
		switch {
		case len(after) == 0 || len(before) > 0 && less(before[0], after[0]):
			a, before = before[0], before[1:]
		case len(before) == 0 || less(after[0], before[0]):
			b, after = after[0], after[1:]
		default:
			a, before = before[0], before[1:]
			b, after = after[0], after[1:]
		}
		if err := w.entry(a, b, prefix, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *changeWalk) list(tree Hash) ([]Entry, error) {
	if tree.IsZero() {
		return nil, nil
	}
	return w.reader.Tree(tree)
}

// entry compares two entries of one name and kind; one of them may be missing.
func (w *changeWalk) entry(a, b Entry, prefix string, depth int) error {
	name := prefix + max(a.Name, b.Name)
	switch {
	case a.Hash == b.Hash:
		return nil
	case a.Dir || b.Dir:
		return w.trees(a.Hash, b.Hash, name+"/", depth+1)
	}
	w.found = append(w.found, FileChange{Path: name, Old: a.Hash, New: b.Hash})
	return nil
}

// ancestry is all commits that lead to tip, tip included.
func ancestry(r reader, tip Hash, within func(*Commit) bool) (map[Hash]*Commit, error) {
	found := map[Hash]*Commit{}
	for queue := []Hash{tip}; len(queue) > 0; queue = queue[1:] {
		if _, ok := found[queue[0]]; ok {
			continue
		}
		if len(found) == maxWalk {
			return nil, fmt.Errorf("walk history: %w: more than %d commits", ErrTooLarge, maxWalk)
		}
		c, err := r.Commit(queue[0])
		if err != nil {
			return nil, fmt.Errorf("walk history: %w", err)
		}
		if !within(c) {
			continue
		}
		found[c.Hash] = c
		queue = append(queue, c.Parents...)
	}
	return found, nil
}

func mergeBase(r reader, a, b Hash) (Hash, bool, error) {
	ours, err := ancestry(r, a, func(*Commit) bool { return true })
	if err != nil {
		return Hash{}, false, err
	}
	// Breadth first from b: the first commit that a has too is a best one where history does not criss-cross, and a
	// common one where it does.
	seen := map[Hash]bool{}
	for queue := []Hash{b}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if _, common := ours[h]; common {
			return h, true, nil
		}
		if seen[h] {
			continue
		}
		if seen[h] = true; len(seen) > maxWalk {
			return Hash{}, false, fmt.Errorf("walk history: %w: more than %d commits", ErrTooLarge, maxWalk)
		}
		c, err := r.Commit(h)
		if err != nil {
			return Hash{}, false, fmt.Errorf("walk history: %w", err)
		}
		queue = append(queue, c.Parents...)
	}
	return Hash{}, false, nil
}

func between(r reader, old, tip Hash) ([]*Commit, error) {
	known := map[Hash]*Commit{}
	if !old.IsZero() {
		var err error
		if known, err = ancestry(r, old, func(*Commit) bool { return true }); err != nil {
			return nil, err
		}
	}
	found, err := ancestry(r, tip, func(c *Commit) bool { return known[c.Hash] == nil })
	if err != nil {
		return nil, err
	}
	return childrenFirst(found, tip), nil
}

// childrenFirst orders commits such that each stands before its parents.
func childrenFirst(commits map[Hash]*Commit, tip Hash) []*Commit {
	var out []*Commit
	done := map[Hash]bool{}
	type step struct {
		commit *Commit
		next   int
	}
	var stack []step
	push := func(h Hash) {
		if c := commits[h]; c != nil && !done[h] {
			done[h] = true
			stack = append(stack, step{commit: c})
		}
	}
	push(tip)
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next < len(top.commit.Parents) {
			top.next++
			push(top.commit.Parents[len(top.commit.Parents)-top.next])
			continue
		}
		out = append(out, top.commit)
		stack = stack[:len(stack)-1]
	}
	slices.Reverse(out)
	return out
}
