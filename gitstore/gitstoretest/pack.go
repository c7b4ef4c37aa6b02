// This file writes objects and packs, the good ones and those that no honest server would.

package gitstoretest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// Kinds of pack entries beside those that plumbing names (gitformat-pack).
const (
	blob     = plumbing.BlobObject
	tree     = plumbing.TreeObject
	commit   = plumbing.CommitObject
	ofsDelta = plumbing.OFSDeltaObject
	refDelta = plumbing.REFDeltaObject
)

// Modes of tree entries.
const (
	modeFile      = "100644"
	modeFolder    = "40000"
	modeSymlink   = "120000"
	modeSubmodule = "160000"
)

// id is the name of an object.
type id = plumbing.Hash

// pack collects entries.
type pack struct {
	body  bytes.Buffer
	count uint32
}

// object adds an honest entry and returns the object's name.
func (p *pack) object(kind plumbing.ObjectType, data []byte) id {
	p.raw(kind, int64(len(data)), nil, deflate(data))
	return plumbing.ComputeHash(kind, data)
}

// raw adds an entry that says it has size bytes. prefix names the base of a delta.
func (p *pack) raw(kind plumbing.ObjectType, size int64, prefix, deflated []byte) {
	first := byte(kind)<<4 | byte(size&15) //nolint:gosec // G115: kinds have three bits
	for size >>= 4; size > 0; size >>= 7 {
		p.body.WriteByte(first | 0x80)
		first = byte(size & 0x7f)
	}
	p.body.WriteByte(first)
	p.body.Write(prefix)
	p.body.Write(deflated)
	p.count++
}

// bytes returns the pack with its header and checksum.
func (p *pack) bytes() []byte {
	return summed(slices.Concat(binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.count), p.body.Bytes()))
}

// summed appends the checksum.
func summed(body []byte) []byte {
	sum := hash.New(hash.CryptoType)
	_, _ = sum.Write(body) // a hash takes everything
	return append(body, sum.Sum(nil)...)
}

// deflaters are kept: a new one costs more than what it deflates here.
var deflaters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}

func deflate(data []byte) []byte {
	var out bytes.Buffer
	z, ok := deflaters.Get().(*zlib.Writer)
	if !ok {
		return nil // nothing else is put there
	}
	defer deflaters.Put(z)
	z.Reset(&out)
	_, _ = z.Write(data) // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// zeros is a stream that inflates to n mebibytes of zeros, made without deflating them all: a block that ends on a byte
// can be repeated, as what it refers back to is zeros again.
func zeros(mebibytes int) []byte {
	const block = 1 << 20
	var head, chunk bytes.Buffer
	z := zlib.NewWriter(&head)
	_, _ = z.Write(make([]byte, block)) // a buffer takes everything
	_ = z.Flush()
	start := head.Len()
	_, _ = z.Write(make([]byte, block))
	_ = z.Flush()
	chunk.Write(head.Bytes()[start:])
	out := slices.Clone(head.Bytes()[:start])
	for range mebibytes - 1 {
		out = append(out, chunk.Bytes()...)
	}
	// An empty last block, then the checksum (RFC 1950): of zeros the first half stays 1, the second counts them.
	out = append(out, 1, 0, 0, 0xff, 0xff)
	count := uint32(int64(mebibytes) * block % 65521) //nolint:gosec // less than 65521
	return binary.BigEndian.AppendUint32(out, count<<16|1)
}

// entry is one line of a folder.
type entry struct {
	mode, name string
	id         id
}

func treeData(entries ...entry) []byte {
	var out bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&out, "%s %s\x00%s", e.mode, e.name, e.id[:])
	}
	return out.Bytes()
}

func commitData(root id, more string) []byte {
	const person = "Certferry hub <hub@example.com> 1795435200 +0000\n"
	return fmt.Appendf(nil, "tree %s\n%sauthor %scommitter %s\nnew state\n", root, more, person, person)
}

// folder adds files, and folders for the slashes in their paths, and returns the folder's entries.
func (p *pack) folder(files map[string][]byte) []entry {
	below := map[string]map[string][]byte{}
	var entries []entry
	for _, path := range slices.Sorted(maps.Keys(files)) {
		dir, rest, deep := strings.Cut(path, "/")
		if !deep {
			entries = append(entries, entry{modeFile, path, p.object(blob, files[path])})
			continue
		}
		if below[dir] == nil {
			below[dir] = map[string][]byte{}
		}
		below[dir][rest] = files[path]
	}
	for dir, inside := range below {
		entries = append(entries, entry{modeFolder, dir, p.object(tree, treeData(p.folder(inside)...))})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.sortName(), b.sortName()) })
	return entries
}

// sortName is by what git sorts: folders as if they ended in a slash.
func (e entry) sortName() string {
	if e.mode == modeFolder {
		return e.name + "/"
	}
	return e.name
}

// Pack makes one commit with files and returns its name, 40 hex digits, and a pack of all its objects.
func Pack(files map[string][]byte) (tip string, data []byte) {
	h, p := packed(files)
	return hex.EncodeToString(h[:]), p.bytes()
}

func packed(files map[string][]byte) (id, *pack) {
	p := &pack{}
	root := p.object(tree, treeData(p.folder(files)...))
	return p.object(commit, commitData(root, "")), p
}
