package gitrepo

import (
	"context"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
)

// TraceDisk tells fn what is done to files, until stop is called. One test at a time may trace.
func TraceDisk(fn func(step string, paths ...string)) (stop func()) {
	diskTrace.Store(&fn)
	return func() { diskTrace.Store(nil) }
}

// SwapObject puts a pack in front that says that h, an object of kind, holds data.
func SwapObject(dir string, h Hash, kind string, data []byte) error {
	t, err := plumbing.ParseObjectType(kind)
	if err != nil {
		return err
	}
	w, err := newPackWriter(filepath.Join(dir, "objects", "pack"))
	if err != nil {
		return err
	}
	e, err := newEntry(t, data, &fast)
	if err == nil {
		err = w.add(h, e)
	}
	if err != nil {
		w.abort()
		return err
	}
	p, err := w.finish()
	if err != nil {
		return err
	}
	return p.close()
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
