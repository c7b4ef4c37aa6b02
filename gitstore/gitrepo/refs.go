package gitrepo

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	refPrefix        = "refs/"
	packedRefsHeader = "# pack-refs with: peeled fully-peeled sorted \n"
)

// refState is all references at one moment. It is never changed, only replaced.
type refState struct {
	hashes map[string]Hash
	// names are the keys of hashes in order.
	names []string
	seq   uint64
	// changed is closed when the next state takes over.
	changed chan struct{}
}

func newRefState(hashes map[string]Hash, seq uint64) *refState {
	return &refState{hashes: hashes, names: slices.Sorted(maps.Keys(hashes)), seq: seq, changed: make(chan struct{})}
}

// with returns the state after moves; a reference that moves to the zero Hash is removed.
func (s *refState) with(moves map[string]Hash) *refState {
	next := &refState{hashes: maps.Clone(s.hashes), names: s.names, seq: s.seq + 1, changed: make(chan struct{})}
	added := false
	for name, h := range moves {
		_, existed := s.hashes[name]
		if added = added || !existed; h.IsZero() {
			delete(next.hashes, name)
		} else {
			next.hashes[name] = h
		}
	}
	if added || len(next.hashes) != len(s.hashes) {
		next.names = slices.Sorted(maps.Keys(next.hashes))
	}
	return next
}

// encode writes the state as packed-refs.
func (s *refState) encode(w io.Writer) error {
	out := make([]byte, 0, len(packedRefsHeader)+len(s.names)*80)
	out = append(out, packedRefsHeader...)
	for _, name := range s.names {
		h := s.hashes[name]
		out = hex.AppendEncode(out, h[:])
		out = append(out, ' ')
		out = append(out, name...)
		out = append(out, '\n')
	}
	_, err := w.Write(out)
	return err
}

// collides tells whether name cannot stand beside the references of s: Git keeps references as files, and a file
// cannot be a folder.
func (s *refState) collides(name string) bool {
	i, _ := slices.BinarySearch(s.names, name+"/")
	if i < len(s.names) && strings.HasPrefix(s.names[i], name+"/") {
		return true
	}
	for i := range name {
		if name[i] == '/' {
			if _, ok := s.hashes[name[:i]]; ok {
				return true
			}
		}
	}
	return false
}

// parsePackedRefs parses a packed-refs file. A peeled line ("^…") is refused with all else that this package does not
// write: tags have no place here, and a flipped bit makes such a line of one that names a branch.
func parsePackedRefs(data []byte) (map[string]Hash, error) {
	refs := map[string]Hash{}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		return nil, corrupt("packed-refs is cut off")
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text := strings.TrimSuffix(string(line), "\n")
		if n == 1 && text+"\n" == packedRefsHeader {
			continue
		}
		digits, name, ok := strings.Cut(text, " ")
		h, err := ParseHash(digits)
		if !ok || err != nil || checkRefName(name) != nil {
			return nil, corrupt("packed-refs line %d is malformed", n)
		}
		if _, ok := refs[name]; ok {
			return nil, corrupt("packed-refs line %d names a reference twice", n)
		}
		refs[name] = h
	}
	return refs, nil
}

// checkRefName accepts the names that both git and every file system take: refs/, then plain names with slashes.
func checkRefName(name string) error {
	rest, ok := strings.CutPrefix(name, refPrefix)
	if !ok || !strings.Contains(rest, "/") || len(name) > 400 {
		return invalid("reference name %q", name)
	}
	for part := range strings.SplitSeq(rest, "/") {
		if !plainName(part) || part[0] == '.' || part[0] == '-' || strings.HasSuffix(part, ".") ||
			strings.HasSuffix(part, ".lock") || strings.Contains(part, "..") {
			return invalid("reference name %q", name)
		}
	}
	return nil
}

// fileStamp tells whether a file is still the one that this process wrote or read.
type fileStamp struct {
	size  int64
	mtime time.Time
	info  fs.FileInfo
}

func stampOf(path string) (fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{size: info.Size(), mtime: info.ModTime(), info: info}, nil
}

func (s fileStamp) same(o fileStamp) bool {
	return s.info != nil && o.info != nil && os.SameFile(s.info, o.info) && s.size == o.size && s.mtime.Equal(o.mtime)
}

// moveRefs replaces packed-refs by next. moved tells whether it is in place, which it may be even when err is set.
func (r *Repo) moveRefs(next *refState) (moved bool, err error) {
	if err := r.checkForeignRefs(); err != nil {
		return false, err
	}
	moved, err = writeFile(r.path("packed-refs"), next.encode)
	if moved {
		stamp, e := stampOf(r.path("packed-refs"))
		r.stamp = stamp
		err = errors.Join(err, e)
	}
	return moved, err
}

// checkForeignRefs makes sure that no other program's change of the references would be overwritten. Another
// program's rewriting of the same content, as by git pack-refs, does no harm.
func (r *Repo) checkForeignRefs() error {
	stamp, err := stampOf(r.path("packed-refs"))
	if err != nil {
		return fmt.Errorf("check packed-refs: %w", err)
	}
	if r.stamp.same(stamp) {
		return nil
	}
	data, err := os.ReadFile(r.path("packed-refs"))
	if err != nil {
		return fmt.Errorf("check packed-refs: %w", err)
	}
	refs, err := parsePackedRefs(data)
	if err != nil {
		return err
	}
	if !maps.Equal(refs, r.refs.Load().hashes) {
		return fmt.Errorf("%w: another program changed packed-refs; stop the hub, look at the change, start it again", ErrStale)
	}
	return nil
}

// Ref returns where the reference called name stands.
func (r *Repo) Ref(name string) (Hash, bool) {
	h, ok := r.refs.Load().hashes[name]
	return h, ok
}

// Refs returns a copy of all references.
func (r *Repo) Refs() map[string]Hash { return maps.Clone(r.refs.Load().hashes) }

// RefSeq returns a number that grows with each change of references.
func (r *Repo) RefSeq() uint64 { return r.refs.Load().seq }

// Changed returns a channel that is closed at the next change of references.
func (r *Repo) Changed() <-chan struct{} { return r.refs.Load().changed }
