package gitrepo

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// Limits on what is read from disk: our own objects are far smaller, and a damaged size must not eat the memory.
const (
	maxObject     = 64 << 20
	maxDeltaChain = 64
)

// pack is an open pack: a file that never changes, and its index.
type pack struct {
	// base is the path without .pack and .idx.
	base string
	file *os.File
	size int64
	idx  *packIndex
}

// openPack opens base.pack and base.idx.
func openPack(base string) (*pack, error) {
	f, err := os.Open(base + ".pack") //nolint:gosec // G304: a file of the repository
	if err != nil {
		return nil, fmt.Errorf("open pack: %w", err)
	}
	p, err := newPack(base, f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open pack %s: %w", filepath.Base(base), err), f.Close())
	}
	return p, nil
}

func newPack(base string, f *os.File) (*pack, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := &pack{base: base, file: f, size: info.Size()}
	if p.size < packHeader+int64(hashLen) {
		return nil, corrupt("pack is cut off")
	}
	var head [packHeader]byte
	var sum Hash
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(sum[:], p.size-int64(hashLen)); err != nil {
		return nil, err
	}
	if string(head[:8]) != "PACK\x00\x00\x00\x02" {
		return nil, corrupt("pack is not of version 2")
	}
	data, err := os.ReadFile(base + ".idx") //nolint:gosec // G304: a file of the repository
	if err != nil {
		return nil, err
	}
	if p.idx, err = parsePackIndex(data, p.size, sum); err != nil {
		return nil, err
	}
	if int(binary.BigEndian.Uint32(head[8:])) != p.idx.count {
		return nil, corrupt("pack and index differ in the number of objects")
	}
	return p, nil
}

// rawEntry is an object as it lies in a pack.
type rawEntry struct {
	kind plumbing.ObjectType
	// size is the inflated size.
	size int64
	// raw is the whole entry, body its compressed part.
	raw  []byte
	body []byte
	crc  uint32
	// base is where the base of an offset delta starts, baseHash the base of a reference delta.
	base     int64
	baseHash Hash
}

// entryAt reads the entry at position i of the index and checks it against the index's CRC.
func (p *pack) entryAt(i int) (*rawEntry, error) {
	e, err := p.read(p.idx.offset(i))
	if err != nil {
		return nil, err
	}
	if e.crc != p.idx.crc(i) {
		return nil, corrupt("object %x in pack %s does not match its CRC", p.idx.name(i), filepath.Base(p.base))
	}
	return e, nil
}

// read reads the entry that starts at offset.
func (p *pack) read(offset int64) (*rawEntry, error) {
	length := p.idx.end(offset, p.size) - offset
	if offset < packHeader || length < 1 || length > maxObject {
		return nil, corrupt("pack %s: entry has a bad length", filepath.Base(p.base))
	}
	raw := make([]byte, length)
	if _, err := p.file.ReadAt(raw, offset); err != nil {
		return nil, fmt.Errorf("read pack %s: %w", filepath.Base(p.base), err)
	}
	e := &rawEntry{raw: raw, crc: crc32.ChecksumIEEE(raw)}
	return e, e.parseHeader(offset)
}

// parseHeader splits the type and size (and a delta's base) from the compressed part.
func (e *rawEntry) parseHeader(offset int64) error {
	e.kind = plumbing.ObjectType(e.raw[0] >> 4 & 7)
	e.size = int64(e.raw[0] & 15)
	n, shift := 1, 4
	for more := e.raw[0]&0x80 != 0; more; n++ {
		if n == len(e.raw) || shift > 32 {
			return corrupt("pack entry has a bad size")
		}
		e.size |= int64(e.raw[n]&0x7f) << shift
		more = e.raw[n]&0x80 != 0
		shift += 7
	}
	if e.size > maxObject {
		return fmt.Errorf("%w: an object has more than %d MiB", ErrTooLarge, maxObject>>20)
	}
	e.body = e.raw[n:]
	switch e.kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return nil
	case plumbing.REFDeltaObject:
		if len(e.body) < hashLen {
			return corrupt("delta is cut off")
		}
		e.baseHash = Hash(e.body[:hashLen])
		e.body = e.body[hashLen:]
		return nil
	case plumbing.OFSDeltaObject:
		return e.parseOffset(offset)
	default:
		return corrupt("pack entry has an unknown type")
	}
}

// parseOffset reads how far before offset a delta's base starts (gitformat-pack, "offset encoding").
func (e *rawEntry) parseOffset(offset int64) error {
	var back int64
	for i, c := range e.body {
		if i > 0 {
			back++
		}
		back = back<<7 | int64(c&0x7f)
		last := c&0x80 == 0
		if back >= offset || last && back == 0 {
			break
		}
		if last {
			e.base = offset - back
			e.body = e.body[i+1:]
			return nil
		}
	}
	return corrupt("delta has a bad base")
}

func (e *rawEntry) delta() bool {
	return e.kind == plumbing.OFSDeltaObject || e.kind == plumbing.REFDeltaObject
}

// inflate returns the uncompressed body, which must be of the size that the header says.
func (e *rawEntry) inflate() ([]byte, error) {
	return inflate(e.body, e.size)
}

func inflate(body []byte, size int64) (data []byte, err error) {
	z, err := inflaters.get(bytes.NewReader(body))
	if err != nil {
		return nil, corrupt("object does not inflate: %v", err)
	}
	defer inflaters.put(z)
	data, err = readExactly(z, size)
	if err != nil {
		return nil, corrupt("object does not inflate: %v", err)
	}
	return data, nil
}

// resolve returns the type and bytes of the object that e stands for. lookup finds the base of a reference delta.
func (p *pack) resolve(e *rawEntry, lookup func(Hash) (*pack, *rawEntry, error), depth int) (plumbing.ObjectType, []byte, error) {
	data, err := e.inflate()
	if err != nil || !e.delta() {
		return e.kind, data, err
	}
	if depth >= maxDeltaChain {
		return 0, nil, corrupt("chain of deltas is too long")
	}
	home := p
	var base *rawEntry
	if e.kind == plumbing.OFSDeltaObject {
		base, err = p.read(e.base)
	} else {
		home, base, err = lookup(e.baseHash)
	}
	if err != nil {
		return 0, nil, err
	}
	kind, source, err := home.resolve(base, lookup, depth+1)
	if err != nil {
		return 0, nil, err
	}
	if deltaTarget(data) > maxObject {
		return 0, nil, corrupt("object is larger than %d MiB", maxObject>>20)
	}
	out, err := packfile.PatchDelta(source, data)
	if err != nil {
		return 0, nil, corrupt("delta does not apply: %v", err)
	}
	return kind, out, nil
}

// deltaTarget returns the size that a delta says its result has.
func deltaTarget(delta []byte) uint64 {
	_, n := binary.Uvarint(delta)
	if n <= 0 {
		return 0
	}
	size, _ := binary.Uvarint(delta[n:])
	return size
}

func (p *pack) close() error { return p.file.Close() }

// remove deletes the pack's files, index first, so that no reader sees an index without its pack.
func (p *pack) remove() error {
	if err := remove(p.base + ".idx"); err != nil {
		return err
	}
	siblings, err := filepath.Glob(p.base + ".*")
	if err != nil {
		return err
	}
	for _, name := range siblings {
		if err := remove(name); err != nil {
			return err
		}
	}
	return nil
}

// kept tells whether an operator marked the pack to be left alone.
func (p *pack) kept() bool {
	_, err := os.Lstat(p.base + ".keep")
	return err == nil
}

// entryHeader returns the type and size of an object in the form that starts a pack entry.
func entryHeader(kind plumbing.ObjectType, size int) []byte {
	c := byte(kind&7)<<4 | byte(size&15)
	size >>= 4
	var out []byte
	for size > 0 {
		out = append(out, c|0x80)
		c = byte(size & 0x7f)
		size >>= 7
	}
	return append(out, c)
}

// zlibReader is what compress/zlib's readers are: they can be used again.
type zlibReader interface {
	io.ReadCloser
	zlib.Resetter
}
