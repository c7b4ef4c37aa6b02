// This file counts what a repository holds, for people who wonder where the space went.

package gitrepo

import (
	"context"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// largestFiles is how many of the largest files Stats lists.
const largestFiles = 10

// Stats says what a repository holds. Bytes are of packs.
type Stats struct {
	References int
	Packs      int
	Objects    int
	Bytes      int64
	Groups     []GroupStats
	// GarbageObjects and GarbageBytes are what no reference leads to.
	GarbageObjects int
	GarbageBytes   int64
	// Largest are the largest files, the largest first.
	Largest []LargeFile
}

// GroupStats counts the references of a kind, and the objects that they lead to and no group before does.
type GroupStats struct {
	Name       string
	References int
	Commits    int
	Objects    int
	Bytes      int64
}

// LargeFile is a file as the first commit that was found to have it names it.
type LargeFile struct {
	Ref    string
	Commit Hash
	Path   string
	Bytes  int64
}

// Stats counts, by the groups that names lists in order; group says to which of them a reference belongs.
func (r *Repo) Stats(ctx context.Context, names []string, group func(ref string) string) (Stats, error) {
	if err := r.beginPrune(); err != nil { // packs must not be merged meanwhile here either
		return Stats{}, fmt.Errorf("count objects: %w", err)
	}
	defer r.endPrune()
	state := r.refs.Load()
	stats := Stats{References: len(state.names)}
	w := statsWalk{marker: &marker{repo: r, marks: map[*pack]bitset{}, loose: map[Hash]struct{}{}}}
	for _, name := range names {
		w.group = GroupStats{Name: name}
		for _, ref := range state.names {
			if group(ref) != name {
				continue
			}
			w.group.References++
			if err := w.commits(ctx, ref, state.hashes[ref]); err != nil {
				return Stats{}, fmt.Errorf("count objects of %s: %w", ref, err)
			}
		}
		stats.Groups = append(stats.Groups, w.group)
	}
	found, _ := w.marker.sum()
	stats.Packs, stats.Objects, stats.Bytes = len(r.packs.list()), found.Objects, found.Bytes
	stats.GarbageObjects, stats.GarbageBytes = found.GarbageObjects, found.GarbageBytes
	stats.Largest = w.largest
	return stats, nil
}

// statsWalk counts the objects of one group after the other.
type statsWalk struct {
	marker  *marker
	group   GroupStats
	ref     string
	commit  Hash
	largest []LargeFile
}

// count counts h if nothing led to it before.
func (w *statsWalk) count(h Hash) (isNew bool, size int64, err error) {
	if isNew, err = w.marker.first(h); err != nil || !isNew {
		return false, 0, err
	}
	for _, p := range w.marker.repo.packs.list() {
		if i, ok := p.idx.find(h); ok {
			at := p.idx.offset(i)
			size = p.idx.end(at, p.size) - at
			break
		}
	}
	w.group.Objects++
	w.group.Bytes += size
	return true, size, nil
}

func (w *statsWalk) commits(ctx context.Context, ref string, tip Hash) error {
	for stack := []Hash{tip}; len(stack) > 0; {
		h := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		isNew, _, err := w.count(h)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if !isNew {
			continue
		}
		w.group.Commits++
		data, err := w.marker.repo.object(h, plumbing.CommitObject)
		if err != nil {
			return err
		}
		c, err := ParseCommit(data)
		if err != nil {
			return err
		}
		w.ref, w.commit = ref, h
		if err := w.tree(c.Tree, "", 0); err != nil {
			return err
		}
		stack = append(stack, c.Parents...)
	}
	return nil
}

func (w *statsWalk) tree(h Hash, prefix string, depth int) error {
	isNew, _, err := w.count(h)
	if err != nil || !isNew {
		return err
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	data, err := w.marker.repo.object(h, plumbing.TreeObject)
	if err != nil {
		return err
	}
	entries, err := parseTree(data)
	if err != nil {
		return fmt.Errorf("tree %s: %w", h, err)
	}
	for _, e := range entries {
		if e.Dir {
			err = w.tree(e.Hash, prefix+e.Name+"/", depth+1)
		} else {
			err = w.file(e.Hash, prefix, e.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *statsWalk) file(h Hash, prefix, name string) error {
	isNew, size, err := w.count(h)
	if err != nil || !isNew {
		return err
	}
	if len(w.largest) == largestFiles && size <= w.largest[largestFiles-1].Bytes {
		return nil
	}
	i, _ := slices.BinarySearchFunc(w.largest, size, func(f LargeFile, size int64) int {
		if f.Bytes >= size {
			return -1
		}
		return 1
	})
	w.largest = slices.Insert(w.largest, i, LargeFile{Ref: w.ref, Commit: w.commit, Path: prefix + name, Bytes: size})
	w.largest = w.largest[:min(len(w.largest), largestFiles)]
	return nil
}
