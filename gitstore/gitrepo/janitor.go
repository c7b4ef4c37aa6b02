// This file mends at start what a killed process, or somebody else's git, left behind. It runs under the process
// lock, so no other Certferry is at work.

package gitrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// clean removes stale locks, temporary files, and packs whose index never came.
func (r *Repo) clean() error {
	var gone []string
	for _, pattern := range []string{
		"*.lock", "packed-refs.new", "objects/tmp_*", "objects/??/tmp_*", "objects/pack/tmp_*", "objects/pack/.tmp-*",
	} {
		names, err := filepath.Glob(r.path(pattern))
		if err != nil {
			return err
		}
		gone = append(gone, names...)
	}
	for _, half := range []struct{ has, lacks string }{{".pack", ".idx"}, {".idx", ".pack"}} {
		names, err := r.halves(half.has, half.lacks)
		if err != nil {
			return err
		}
		gone = append(gone, names...)
	}
	err := filepath.WalkDir(r.path("refs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".lock") {
			gone = append(gone, path)
		}
		return ignoreMissing(err)
	})
	if err != nil {
		return err
	}
	for _, path := range gone {
		if filepath.Base(path) == lockName {
			continue
		}
		if err := remove(path); err != nil {
			return err
		}
		r.opt.Logger.Warn("removed what a killed process left behind", "file", path)
	}
	return nil
}

// halves lists the pack files that have one half of their pair only and are not marked to be kept.
func (r *Repo) halves(has, lacks string) ([]string, error) {
	names, err := filepath.Glob(r.path("objects/pack/pack-*" + has))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		base := strings.TrimSuffix(name, has)
		_, other := os.Lstat(base + lacks)
		_, keep := os.Lstat(base + ".keep")
		if errors.Is(other, fs.ErrNotExist) && errors.Is(keep, fs.ErrNotExist) {
			out = append(out, name)
		}
	}
	return out, nil
}

// absorbLoose moves references that somebody else's git wrote as files into packed-refs, where git, too, would
// take the file's word. An empty file, as a crash of such a git leaves it, gives way to the packed value.
func (r *Repo) absorbLoose() error {
	loose, files, err := r.looseRefs()
	if err != nil || len(files) == 0 {
		return err
	}
	old := r.refs.Load()
	next := old.with(loose)
	if _, err := r.moveRefs(next); err != nil {
		return err
	}
	r.refs.Store(next)
	if err := removeAll(files...); err != nil {
		return err
	}
	for name, h := range loose {
		r.opt.Logger.Warn("took over a reference that another program wrote", "ref", name, "commit", h.String(),
			"before", old.hashes[name].String())
	}
	return nil
}

// looseRefs reads the references that lie as files below refs.
func (r *Repo) looseRefs() (refs map[string]Hash, files []string, err error) {
	refs = map[string]Hash{}
	err = filepath.WalkDir(r.path("refs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		data, err := os.ReadFile(path) //nolint:gosec // G122: the folder belongs to this process
		if err != nil {
			return err
		}
		files = append(files, path)
		if _, packed := r.Ref(name); packed && strings.Trim(string(data), "\x00\n") == "" {
			r.opt.Logger.Warn("removed an empty reference file; the packed value counts", "ref", name)
			return nil
		}
		h, err := ParseHash(strings.TrimSuffix(string(data), "\n"))
		if err != nil || checkRefName(name) != nil {
			return corrupt("reference file %s does not hold a commit; remove it if nothing needs it", name)
		}
		refs[name] = h
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read references: %w", err)
	}
	return refs, files, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
