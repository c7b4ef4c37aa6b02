// This file drops what no reference leads to any more: packs are written again without it. What a crash leaves of
// that is finished at the next start.

package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// goneName is the file that lists the packs which a prune is about to remove. The list is complete and the packs that
// replace them are safe on disk before the first one goes: a start that finds the list only has to go on.
const goneName = "certferry-gone"

// PruneOptions say what Prune does.
type PruneOptions struct {
	// MinShare is the share of the packs' bytes that must be garbage for packs to be written again, 0 for any.
	MinShare float64
	// DryRun only counts.
	DryRun bool
}

// Pruned says what Prune found. Sizes are in bytes of packs.
type Pruned struct {
	// Objects and Bytes are all that was there, GarbageObjects and GarbageBytes what no reference led to.
	Objects        int
	Bytes          int64
	GarbageObjects int
	GarbageBytes   int64
	// Packs is how many packs were written again or removed; 0 if nothing was worth it.
	Packs int
}

// Prune drops the objects that no reference leads to, nor a commit in a pack that an operator marked to be kept. It
// looks for them while others go on writing, and stops writers only for copying. Requests under way go on reading
// what was dropped for a while.
func (r *Repo) Prune(ctx context.Context, opt PruneOptions) (Pruned, error) {
	if err := r.beginPrune(); err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	defer r.endPrune()
	m := &marker{repo: r, marks: map[*pack]bitset{}, loose: map[Hash]struct{}{}}
	if err := m.begin(ctx); err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	r.write.Lock()
	defer r.write.Unlock()
	if r.closed {
		return Pruned{}, ErrClosed
	}
	if err := m.refs(ctx); err != nil { // what came in the meantime
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	found, packs := m.sum()
	if opt.DryRun || len(packs) == 0 || float64(found.GarbageBytes) < opt.MinShare*float64(found.Bytes) {
		return found, nil
	}
	found.Packs = len(packs)
	if err := r.replace(packs, m.marks); err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	return found, nil
}

// errBusy says that marks are being set already.
var errBusy = errors.New("a prune or a count is under way already: try again when it is done")

// beginPrune keeps packs from being merged: marks are kept by pack.
func (r *Repo) beginPrune() error {
	r.write.Lock()
	defer r.write.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.pruning:
		return errBusy
	}
	r.pruning = true
	return nil
}

func (r *Repo) endPrune() {
	r.write.Lock()
	defer r.write.Unlock()
	r.pruning = false
}

// replace writes what is marked of packs into one pack and retires them.
func (r *Repo) replace(packs []*pack, marks map[*pack]bitset) error {
	w, err := newPackWriter(r.packs.dir())
	if err != nil {
		return err
	}
	seen := map[Hash]struct{}{}
	for _, p := range packs {
		if err := r.copyPack(w, p, seen, marks[p].has); err != nil {
			w.abort()
			return fmt.Errorf("copy pack %s: %w", filepath.Base(p.base), err)
		}
	}
	var fresh []*pack
	if w.count == 0 {
		w.abort()
	} else {
		survivors, err := w.finish()
		if err != nil {
			return err
		}
		same := func(p *pack) bool { return p.base == survivors.base } // a prune that was killed wrote it before
		if !slices.ContainsFunc(r.packs.list(), same) {
			fresh = append(fresh, survivors)
		}
		packs = slices.DeleteFunc(packs, same)
		r.packs.add(survivors)
	}
	listed, err := writeGone(r.path(goneName), packs)
	if err != nil && !listed {
		return errors.Join(err, r.packs.drop(fresh...))
	}
	if err != nil {
		return err // the next start goes by the list: what replaces its packs must stay
	}
	if err := r.packs.retire(packs...); err != nil {
		return err
	}
	return remove(r.path(goneName))
}

func writeGone(path string, packs []*pack) (written bool, err error) {
	return writeFile(path, func(w io.Writer) error {
		for _, p := range packs {
			if _, err := fmt.Fprintln(w, filepath.Base(p.base)); err != nil {
				return err
			}
		}
		return nil
	})
}

var packName = regexp.MustCompile(`^pack-[0-9a-f]{40}$`)

// finishPrune removes the packs that a prune which was killed had replaced.
func (r *Repo) finishPrune() error {
	data, err := os.ReadFile(r.path(goneName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(data)) {
		if !packName.MatchString(name) {
			return corrupt("%s names something other than packs; remove it", goneName)
		}
		p := pack{base: r.path("objects/pack/" + name)}
		if p.kept() {
			continue
		}
		if err := p.remove(); err != nil {
			return err
		}
		r.opt.Logger.Warn("removed a pack that a killed process had replaced", "pack", name)
	}
	// The list must outlive what it lists, in a power cut too.
	if err := errors.Join(remove(r.path("objects/pack/multi-pack-index")), syncDir(r.path("objects/pack"))); err != nil {
		return err
	}
	return remove(r.path(goneName))
}

// bitset marks objects by their position in a pack's index.
type bitset []uint64

func (b bitset) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b bitset) set(i int)      { b[i/64] |= 1 << (i % 64) }

// marker finds what references lead to. An object that lies in two packs is marked in the first only.
type marker struct {
	repo  *Repo
	marks map[*pack]bitset
	loose map[Hash]struct{}
}

// first marks h and tells whether it was not marked before.
func (m *marker) first(h Hash) (bool, error) {
	for _, p := range m.repo.packs.list() {
		i, ok := p.idx.find(h)
		if !ok {
			continue
		}
		if m.marks[p] == nil {
			m.marks[p] = make(bitset, p.idx.count/64+1)
		}
		if m.marks[p].has(i) {
			return false, nil
		}
		m.marks[p].set(i)
		return true, nil
	}
	if contains(m.loose, h) {
		return false, nil
	}
	m.loose[h] = struct{}{}
	if !m.repo.packs.has(h) {
		return false, corrupt("object %s is missing", h)
	}
	return true, nil
}

// begin marks what kept packs and references lead to.
func (m *marker) begin(ctx context.Context) error {
	if err := m.kept(ctx); err != nil {
		return err
	}
	return m.refs(ctx)
}

// refs marks all that the references of this moment lead to.
func (m *marker) refs(ctx context.Context) error {
	state := m.repo.refs.Load()
	for _, name := range state.names {
		if err := m.commits(ctx, state.hashes[name]); err != nil {
			return fmt.Errorf("follow %s: %w", name, err)
		}
	}
	return nil
}

// kept marks what the commits in packs that are not to be touched lead to: whoever wants a pack kept wants it whole.
func (m *marker) kept(ctx context.Context) error {
	for _, p := range m.repo.packs.list() {
		if !p.kept() {
			continue
		}
		if err := m.pack(ctx, p); err != nil {
			return fmt.Errorf("follow kept pack %s: %w", filepath.Base(p.base), err)
		}
	}
	return nil
}

// pack marks what the commits in p lead to.
func (m *marker) pack(ctx context.Context, p *pack) error {
	for i := range p.idx.count {
		h := Hash(p.idx.name(i))
		kind, _, err := m.repo.packs.object(h)
		if err == nil && kind == plumbing.CommitObject {
			err = m.commits(ctx, h)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *marker) commits(ctx context.Context, tip Hash) error {
	for stack := []Hash{tip}; len(stack) > 0; {
		h := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if isNew, err := m.first(h); err != nil || !isNew {
			if err != nil {
				return err
			}
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := m.repo.object(h, plumbing.CommitObject)
		if err != nil {
			return err
		}
		c, err := ParseCommit(data)
		if err != nil {
			return fmt.Errorf("commit %s: %w", h, err)
		}
		if err := m.tree(c.Tree, 0); err != nil {
			return fmt.Errorf("commit %s: %w", h, err)
		}
		stack = append(stack, c.Parents...)
	}
	return nil
}

// tree marks a tree and what is in it. It goes past the cache, which others need more.
func (m *marker) tree(h Hash, depth int) error {
	isNew, err := m.first(h)
	if err != nil || !isNew {
		return err
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	data, err := m.repo.object(h, plumbing.TreeObject)
	if err != nil {
		return err
	}
	entries, err := parseTree(data)
	if err != nil {
		return fmt.Errorf("tree %s: %w", h, err)
	}
	for _, e := range entries {
		if e.Dir {
			err = m.tree(e.Hash, depth+1)
		} else {
			_, err = m.first(e.Hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sum counts, and lists the packs that hold garbage and may be touched.
func (m *marker) sum() (Pruned, []*pack) {
	var found Pruned
	var packs []*pack
	for _, p := range m.repo.packs.list() {
		found.Objects += p.idx.count
		found.Bytes += p.size
		if p.kept() {
			continue
		}
		marks := m.marks[p]
		if marks == nil {
			marks = make(bitset, p.idx.count/64+1)
			m.marks[p] = marks
		}
		garbage := 0
		for i := range p.idx.count {
			if !marks.has(i) {
				garbage++
				at := p.idx.offset(i)
				found.GarbageBytes += p.idx.end(at, p.size) - at
			}
		}
		if found.GarbageObjects += garbage; garbage > 0 {
			packs = append(packs, p)
		}
	}
	return found, packs
}
