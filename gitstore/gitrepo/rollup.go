package gitrepo

import (
	"fmt"
	"path/filepath"
	"slices"
)

// Each batch is a pack, so packs pile up. From rollUpFrom on, the small ones are merged, such that each pack that
// stays is at least as large as all newer ones together: an object is copied a few times in its life, and the
// number of packs, and of open files, grows with the logarithm of the repository.
const rollUpFrom = 32

// rollUp merges packs when there are many. A failure costs nothing but the wait for the next try, so it is only
// logged: the batch that came before is safe.
func (r *Repo) rollUp() {
	all := r.packs.list()
	if len(all) < rollUpFrom || r.pruning {
		return
	}
	packs := mergeable(all)
	if len(packs) < rollUpFrom/2 {
		return
	}
	slices.SortStableFunc(packs, func(a, b *pack) int { return int(min(max(a.size-b.size, -1), 1)) })
	if err := r.merge(smallest(packs)); err != nil {
		r.opt.Logger.Warn("could not merge packs", "dir", r.packs.dir(), "error", err)
	}
}

// smallest takes from packs, smallest first, as many as are needed for the rest to grow geometrically.
func smallest(packs []*pack) []*pack {
	var sum int64
	n := 0
	for i, p := range packs {
		if i > 0 && p.size < sum {
			n = i + 1
		}
		sum += p.size
	}
	return packs[:max(n, min(len(packs), rollUpFrom/2))]
}

// mergeable leaves out the packs that an operator wants kept.
func mergeable(packs []*pack) []*pack {
	return slices.DeleteFunc(slices.Clone(packs), (*pack).kept)
}

// merge writes the objects of packs into one pack and removes them.
func (r *Repo) merge(packs []*pack) error {
	w, err := newPackWriter(r.packs.dir())
	if err != nil {
		return err
	}
	seen := map[Hash]struct{}{}
	for _, p := range packs {
		if err := r.copyPack(w, p, seen, func(int) bool { return true }); err != nil {
			w.abort()
			return fmt.Errorf("merge pack %s: %w", filepath.Base(p.base), err)
		}
	}
	merged, err := w.finish()
	if err != nil {
		return err
	}
	r.packs.add(merged)
	return r.packs.drop(slices.DeleteFunc(packs, func(p *pack) bool { return p.base == merged.base })...)
}

// copyPack adds what is in p and wanted, by its position in the index, to w, in the order of p.
func (r *Repo) copyPack(w *packWriter, p *pack, seen map[Hash]struct{}, wanted func(int) bool) error {
	var order []int
	for i := range p.idx.count {
		if wanted(i) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(min(max(p.idx.offset(a)-p.idx.offset(b), -1), 1)) })
	for _, i := range order {
		h := Hash(p.idx.name(i))
		if contains(seen, h) {
			continue
		}
		seen[h] = struct{}{}
		e, err := p.entryAt(i)
		if err == nil && e.delta() {
			e, err = r.packs.entry(h)
		}
		if err != nil {
			return err
		}
		if err := w.add(h, e); err != nil {
			return err
		}
	}
	return nil
}
