package gitrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
)

// packStore holds the open packs, newest first. Readers hold the lock for one object at a time, never while they
// write to a client, so that packs can be merged under them.
type packStore struct {
	objects string // the folder objects
	// loose says that somebody else's git had left loose objects when the store was opened. Where there are none, has
	// need not ask the disk for each object of a batch; an object that comes later is written once more, in a pack.
	loose bool

	mu    sync.RWMutex
	packs []*pack
	// retired packs are gone from disk; requests that were under way when they were replaced still read them.
	retired []*pack
	timers  []*time.Timer
}

// retiredFor is how long a request may take that reads what was pruned in the meantime.
const retiredFor = 10 * time.Minute

// openPackStore opens all packs below the folder objects.
func openPackStore(objects string) (*packStore, error) {
	s := &packStore{objects: objects}
	names, err := filepath.Glob(filepath.Join(objects, "pack", "pack-*.idx"))
	if err != nil {
		return nil, err
	}
	fans, err := filepath.Glob(filepath.Join(objects, "[0-9a-f][0-9a-f]"))
	if err != nil {
		return nil, err
	}
	s.loose = len(fans) > 0
	for _, name := range names {
		p, err := openPack(name[:len(name)-len(".idx")])
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.packs = append(s.packs, p)
	}
	slices.SortFunc(s.packs, func(a, b *pack) int { return int(b.size/2 - a.size/2) })
	return s, nil
}

func (s *packStore) dir() string { return filepath.Join(s.objects, "pack") }

func (s *packStore) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, t := range s.timers {
		t.Stop()
	}
	for _, p := range slices.Concat(s.packs, s.retired) {
		errs = append(errs, p.close())
	}
	s.packs, s.retired, s.timers = nil, nil, nil
	return errors.Join(errs...)
}

// add puts a new pack in front.
func (s *packStore) add(p *pack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packs = append([]*pack{p}, s.packs...)
}

// drop closes packs and deletes their files.
func (s *packStore) drop(gone ...*pack) error {
	s.mu.Lock()
	s.packs = slices.DeleteFunc(slices.Clone(s.packs), func(p *pack) bool { return slices.Contains(gone, p) })
	s.mu.Unlock()
	// Nobody reads outside of the lock, so nobody holds a dropped pack any more.
	errs := make([]error, 0, 2*len(gone)+1)
	// A multi-pack index would name the packs that go; git makes it anew when asked to.
	errs = append(errs, remove(filepath.Join(s.dir(), "multi-pack-index")))
	for _, p := range gone {
		errs = append(errs, p.close(), p.remove())
	}
	return errors.Join(errs...)
}

// retire deletes the files of packs, but goes on reading them for a while.
func (s *packStore) retire(gone ...*pack) error {
	s.mu.Lock()
	s.packs = slices.DeleteFunc(slices.Clone(s.packs), func(p *pack) bool { return slices.Contains(gone, p) })
	s.retired = append(slices.Clone(s.retired), gone...)
	s.timers = append(s.timers, time.AfterFunc(retiredFor, func() { s.forget(gone) }))
	s.mu.Unlock()
	errs := []error{remove(filepath.Join(s.dir(), "multi-pack-index"))}
	for _, p := range gone {
		errs = append(errs, p.remove())
	}
	return errors.Join(append(errs, syncDir(s.dir()))...)
}

// forget closes retired packs.
func (s *packStore) forget(gone []*pack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range gone {
		if i := slices.Index(s.retired, p); i >= 0 {
			s.retired = slices.Delete(slices.Clone(s.retired), i, i+1)
			_ = p.close() // it was only read
		}
	}
}

// list returns the packs of this moment.
func (s *packStore) list() []*pack {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.packs
}

// lookup finds the entry of h. The caller holds the lock.
func (s *packStore) lookup(h Hash) (*pack, *rawEntry, error) {
	for _, packs := range [][]*pack{s.packs, s.retired} {
		for _, p := range packs {
			if i, ok := p.idx.find(h); ok {
				e, err := p.entryAt(i)
				return p, e, err
			}
		}
	}
	return nil, nil, notExist("object %s", h)
}

// has tells whether h is there to stay: what only a retired pack holds is not.
func (s *packStore) has(h Hash) bool {
	s.mu.RLock()
	for _, p := range s.packs {
		if _, ok := p.idx.find(h); ok {
			s.mu.RUnlock()
			return true
		}
	}
	s.mu.RUnlock()
	if !s.loose {
		return false
	}
	_, err := os.Lstat(s.loosePath(h))
	return err == nil
}

// object returns the type and bytes of h, as they are: see Repo.object for checking the hash.
func (s *packStore) object(h Hash) (plumbing.ObjectType, []byte, error) {
	kind, data, err := s.packed(h)
	if errors.Is(err, fs.ErrNotExist) {
		return s.readLoose(h)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read object %s: %w", h, err)
	}
	return kind, data, nil
}

func (s *packStore) packed(h Hash) (plumbing.ObjectType, []byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, e, err := s.lookup(h)
	if err != nil {
		return 0, nil, err
	}
	return p.resolve(e, s.lookup, 0)
}

// entry returns h as a pack entry without deltas: the bytes on disk where they are that already.
func (s *packStore) entry(h Hash) (*rawEntry, error) {
	s.mu.RLock()
	_, e, err := s.lookup(h)
	s.mu.RUnlock()
	if err == nil && !e.delta() {
		return e, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kind, data, err := s.object(h)
	if err != nil {
		return nil, err
	}
	return newEntry(kind, data, &fast)
}

func (s *packStore) loosePath(h Hash) string {
	name := h.String()
	return filepath.Join(s.objects, name[:2], name[2:])
}

// readLoose reads an object that somebody else's git wrote. This package writes none.
func (s *packStore) readLoose(h Hash) (kind plumbing.ObjectType, data []byte, err error) {
	f, err := os.Open(s.loosePath(h))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, notExist("object %s", h)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("open loose object: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := objfile.NewReader(f)
	if err != nil {
		return 0, nil, corrupt("loose object %s: %v", h, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	kind, size, err := r.Header()
	if err != nil || size < 0 || size > maxObject {
		return 0, nil, corrupt("loose object %s has a bad header", h)
	}
	data, err = readExactly(r, size)
	if err != nil {
		return 0, nil, corrupt("loose object %s: %v", h, err)
	}
	return kind, data, nil
}
