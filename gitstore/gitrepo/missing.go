package gitrepo

import (
	"fmt"
	"slices"
)

// Missing returns the objects that a client lacks which wants the commits in wants and already has those in haves
// with all their files. A depth above 0 stops that many commits down; shallow lists the commits whose parents
// were left out.
//
// With a depth the walk does not stop at haves, so that a shallow client can be given more history; without one it
// does. Files are left out only if a commit of haves itself holds them: a shallow client need not have what lies
// further back.
func (r *Repo) Missing(wants, haves []Hash, depth int) (objects, shallow []Hash, err error) {
	w := &missingWalk{repo: r, known: map[Hash]struct{}{}}
	if err := w.exclude(haves); err != nil {
		return nil, nil, fmt.Errorf("find missing objects: %w", err)
	}
	if depth > 0 {
		err = w.downTo(wants, depth)
	} else {
		err = w.all(wants, haves)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find missing objects: %w", err)
	}
	return w.objects, w.shallow, nil
}

// missingWalk collects objects that are not known yet.
type missingWalk struct {
	repo    *Repo
	known   map[Hash]struct{}
	objects []Hash
	shallow []Hash
}

// see tells whether h is new, and makes it known.
func (w *missingWalk) see(h Hash) bool {
	if _, ok := w.known[h]; ok {
		return false
	}
	w.known[h] = struct{}{}
	return true
}

// exclude makes known what the client has: the commits in haves and their files.
func (w *missingWalk) exclude(haves []Hash) error {
	for _, h := range haves {
		c, err := w.repo.Commit(h)
		if err != nil {
			return err
		}
		if w.see(h) {
			if err := w.tree(c.Tree, 0); err != nil {
				return err
			}
		}
	}
	w.objects = nil
	return nil
}

// tree collects a tree and what is below it.
func (w *missingWalk) tree(h Hash, depth int) error {
	if !w.see(h) {
		return nil
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	w.objects = append(w.objects, h)
	entries, err := w.repo.tree(h)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Dir {
			if err := w.tree(e.Hash, depth+1); err != nil {
				return err
			}
		} else if w.see(e.Hash) {
			w.objects = append(w.objects, e.Hash)
		}
	}
	return nil
}

// all collects the commits between haves and wants.
func (w *missingWalk) all(wants, haves []Hash) error {
	old, err := w.ancestors(wants, haves)
	if err != nil {
		return err
	}
	visited := map[Hash]struct{}{}
	for queue := slices.Clone(wants); len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if contains(visited, h) || contains(old, h) {
			continue
		}
		visited[h] = struct{}{}
		c, err := w.commit(h)
		if err != nil {
			return err
		}
		queue = append(queue, c.Parents...)
	}
	return nil
}

// ancestors returns what the client has of the history. In a linear history, the common case, the walk from wants
// meets a have first and nothing further back matters.
func (w *missingWalk) ancestors(wants, haves []Hash) (map[Hash]struct{}, error) {
	old := make(map[Hash]struct{}, len(haves))
	for _, h := range haves {
		old[h] = struct{}{}
	}
	if len(haves) == 0 || w.linearTo(wants, old) {
		return old, nil
	}
	for queue := slices.Clone(haves); len(queue) > 0; queue = queue[1:] {
		c, err := w.repo.Commit(queue[0])
		if err != nil {
			return nil, err
		}
		for _, p := range c.Parents {
			if !contains(old, p) {
				old[p] = struct{}{}
				queue = append(queue, p)
			}
		}
	}
	return old, nil
}

// linearTo tells whether each want leads to a have, or to the start, by single parents.
func (w *missingWalk) linearTo(wants []Hash, old map[Hash]struct{}) bool {
	for _, h := range wants {
		for !contains(old, h) {
			c, err := w.repo.Commit(h)
			if err != nil || len(c.Parents) > 1 {
				return false
			}
			if len(c.Parents) == 0 {
				break
			}
			h = c.Parents[0]
		}
	}
	return true
}

// downTo collects the commits that are fewer than depth steps from wants.
func (w *missingWalk) downTo(wants []Hash, depth int) error {
	visited := map[Hash]struct{}{}
	level := wants
	for n := 1; n <= depth && len(level) > 0; n++ {
		var next []Hash
		for _, h := range level {
			if contains(visited, h) {
				continue
			}
			visited[h] = struct{}{}
			c, err := w.commit(h)
			if err != nil {
				return err
			}
			if n == depth && len(c.Parents) > 0 {
				w.shallow = append(w.shallow, h)
			}
			next = append(next, c.Parents...)
		}
		level = next
	}
	return nil
}

// commit collects a commit and its files unless the client has them.
func (w *missingWalk) commit(h Hash) (*Commit, error) {
	c, err := w.repo.Commit(h)
	if err != nil {
		return nil, err
	}
	if !w.see(h) {
		return c, nil
	}
	w.objects = append(w.objects, h)
	return c, w.tree(c.Tree, 0)
}

func contains(set map[Hash]struct{}, h Hash) bool {
	_, ok := set[h]
	return ok
}
