// This file finds the objects that a remote lacks. It compares each commit with its parents, so that its cost is
// that of the changes and not that of the repository.

package gitrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// sendList collects the objects that a push has to send.
type sendList struct {
	repo *Repo
	// there are commits that the remote has, with all that they need.
	there map[Hash]bool
	// widened says that all ancestors of the commits in there are in it too.
	widened bool
	seen    map[Hash]bool
	objects []Hash
}

// newSendList starts from the commits that a remote has, as far as the repository knows them.
func newSendList(repo *Repo, tips []Hash) *sendList {
	s := &sendList{repo: repo, there: make(map[Hash]bool, len(tips)), seen: map[Hash]bool{}}
	for _, h := range tips {
		if !h.IsZero() && repo.packs.has(h) {
			s.there[h] = true
		}
	}
	return s
}

// add collects what the remote lacks of u.New.
func (s *sendList) add(u RefUpdate) error {
	if u.New.IsZero() {
		return nil
	}
	for queue := []Hash{u.New}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if s.there[h] || s.seen[h] {
			continue
		}
		c, err := s.repo.Commit(h)
		if err != nil {
			return fmt.Errorf("find objects to send: %w", err)
		}
		if len(c.Parents) > 1 {
			// Beside a merge a walk can pass by the commits that the remote names, down to the start of history.
			if err := s.widen(); err != nil {
				return err
			}
		}
		s.seen[h] = true
		s.objects = append(s.objects, h)
		bases, err := s.bases(c, u.Old)
		if err != nil {
			return err
		}
		if err := s.tree(c.Tree, bases, 0); err != nil {
			return fmt.Errorf("find objects to send: %w", err)
		}
		queue = append(queue, c.Parents...)
	}
	return nil
}

// widen adds all ancestors to what the remote has.
func (s *sendList) widen() error {
	if s.widened {
		return nil
	}
	s.widened = true
	var queue []Hash
	for h := range s.there {
		queue = append(queue, h)
	}
	for ; len(queue) > 0; queue = queue[1:] {
		c, err := s.repo.Commit(queue[0])
		if err != nil {
			return fmt.Errorf("find objects to send: %w", err)
		}
		for _, p := range c.Parents {
			if s.there[p] {
				continue
			}
			if len(s.there) > maxWalk {
				return fmt.Errorf("find objects to send: %w: more than %d commits", ErrTooLarge, maxWalk)
			}
			s.there[p] = true
			queue = append(queue, p)
		}
	}
	return nil
}

// bases are the root folders that the remote has, or will have, when it gets c. The first commit of a new epoch has
// no parents, but most of its files are those of the branch before.
func (s *sendList) bases(c *Commit, old Hash) ([]Hash, error) {
	from := c.Parents
	if len(from) == 0 && s.there[old] {
		from = []Hash{old}
	}
	trees := make([]Hash, 0, len(from))
	for _, h := range from {
		p, err := s.repo.Commit(h)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find objects to send: %w", err)
		}
		trees = append(trees, p.Tree)
	}
	return trees, nil
}

// tree collects what h holds that none of bases holds in the same place.
func (s *sendList) tree(h Hash, bases []Hash, depth int) error {
	if s.seen[h] || slices.Contains(bases, h) {
		return nil
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	s.seen[h] = true
	s.objects = append(s.objects, h)
	entries, err := s.repo.tree(h)
	if err != nil {
		return err
	}
	others := make([][]Entry, 0, len(bases))
	for _, b := range bases {
		list, err := s.repo.tree(b)
		if err != nil {
			return err
		}
		others = append(others, list)
	}
	for _, e := range entries {
		below := sameName(others, e)
		switch {
		case s.seen[e.Hash] || slices.Contains(below, e.Hash):
		case e.Dir:
			if err := s.tree(e.Hash, below, depth+1); err != nil {
				return err
			}
		default:
			s.seen[e.Hash] = true
			s.objects = append(s.objects, e.Hash)
		}
	}
	return nil
}

// sameName lists what stands in place of e in other folders.
func sameName(folders [][]Entry, e Entry) (found []Hash) {
	for _, list := range folders {
		if was, ok := findEntry(list, e.Name); ok && was.Dir == e.Dir {
			found = append(found, was.Hash)
		}
	}
	return found
}

// packBytes is how long the pack of the objects is, as WritePack writes it.
func (r *Repo) packBytes(objects []Hash) (int64, error) {
	size := int64(packHeader + hashLen)
	for _, h := range objects {
		e, err := r.packs.entry(h)
		if err != nil {
			return 0, fmt.Errorf("measure pack: %w", err)
		}
		size += int64(len(e.raw))
	}
	return size, nil
}
