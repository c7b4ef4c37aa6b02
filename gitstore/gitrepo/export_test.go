package gitrepo

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
)

// TraceDisk tells fn what is done to files, until stop is called. One test at a time may trace.
func TraceDisk(fn func(step string, paths ...string)) (stop func()) {
	diskTrace.Store(&fn)
	return func() { diskTrace.Store(nil) }
}

// SwapObject writes the pack that holds h, an object of kind, again with data in the place of h. All checksums are right.
func SwapObject(dir string, h Hash, kind string, data []byte) error {
	t, err := plumbing.ParseObjectType(kind)
	if err != nil {
		return err
	}
	s, err := openPackStore(filepath.Join(dir, "objects"))
	if err != nil {
		return err
	}
	var gone []*pack
	for _, p := range s.packs {
		if _, ok := p.idx.find(h); !ok {
			continue
		}
		w, err := newPackWriter(s.dir())
		if err != nil {
			return err
		}
		for i := range p.idx.count {
			e, err := p.entryAt(i)
			if Hash(p.idx.name(i)) == h {
				e, err = newEntry(t, data, &fast)
			}
			if err == nil {
				err = w.add(Hash(p.idx.name(i)), e)
			}
			if err != nil {
				return err
			}
		}
		swapped, err := w.finish()
		if err != nil {
			return err
		}
		gone = append(gone, p)
		_ = swapped.close()
	}
	if len(gone) == 0 {
		return notExist("object %s", h)
	}
	return errors.Join(s.drop(gone...), s.close())
}

// CheckAll makes sure that each commit in a pack is complete, whether a reference leads to it or not: a push that brings
// one back relies on that.
func (r *Repo) CheckAll(ctx context.Context) error {
	m := &marker{repo: r, marks: map[*pack]bitset{}, loose: map[Hash]struct{}{}}
	for _, p := range r.packs.list() {
		if err := m.pack(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// PackCount returns the number of open packs, and of those that are gone from disk but still read.
func (r *Repo) PackCount() (open, retired int) {
	r.packs.mu.RLock()
	defer r.packs.mu.RUnlock()
	return len(r.packs.packs), len(r.packs.retired)
}

// EndRequests closes the retired packs as time does.
func (r *Repo) EndRequests() {
	r.packs.mu.RLock()
	gone := r.packs.retired
	r.packs.mu.RUnlock()
	r.packs.forget(gone)
}
