package gitrepo

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"github.com/go-git/go-git/v5/plumbing/hash"
)

// Layout of a version 2 pack index (gitformat-pack): magic, version, fan-out, names, CRCs, offsets, large offsets,
// the pack's checksum and its own.
const (
	idxMagic     = "\xfftOc\x00\x00\x00\x02"
	idxFanout    = len(idxMagic)
	idxNames     = idxFanout + 256*4
	idxTrailer   = 2 * len(Hash{})
	packHeader   = 12
	largeOffset  = 1 << 31
	hashLen      = len(Hash{})
	idxEntrySize = hashLen + 4 + 4
)

// packIndex says where in a pack each object lies. It is read-only after parsePackIndex.
type packIndex struct {
	data  []byte
	count int
	// starts holds all offsets in order: the next one is where an object ends.
	starts []int64
}

// parsePackIndex checks the index of a pack of packSize bytes whose checksum is packSum.
func parsePackIndex(data []byte, packSize int64, packSum Hash) (*packIndex, error) {
	if len(data) < idxNames+idxTrailer || string(data[:idxFanout]) != idxMagic {
		return nil, corrupt("pack index is not of version 2")
	}
	body := len(data) - hashLen
	sum := hash.New(hash.CryptoType)
	_, _ = sum.Write(data[:body]) // a hash takes everything
	if !bytes.Equal(sum.Sum(nil), data[body:]) {
		return nil, corrupt("pack index does not match its checksum")
	}
	if !bytes.Equal(data[body-hashLen:body], packSum[:]) {
		return nil, corrupt("pack index belongs to another pack")
	}
	x := &packIndex{data: data}
	last := 0
	for i := range 256 {
		n := x.fanout(i)
		if n < last {
			return nil, corrupt("pack index has a falling fan-out")
		}
		last = n
	}
	x.count = last
	large := len(data) - idxTrailer - idxNames - x.count*idxEntrySize
	if large < 0 || large%8 != 0 {
		return nil, corrupt("pack index has a wrong size")
	}
	return x, x.readStarts(large/8, packSize)
}

// readStarts collects the offsets and checks that each lies in the pack.
func (x *packIndex) readStarts(large int, packSize int64) error {
	x.starts = make([]int64, x.count)
	for i := range x.count {
		if off := binary.BigEndian.Uint32(x.data[x.offsetAt(i):]); off >= largeOffset && int(off-largeOffset) >= large {
			return corrupt("pack index points outside of itself")
		}
		x.starts[i] = x.offset(i)
		if x.starts[i] < packHeader || x.starts[i] >= packSize-int64(hashLen) {
			return corrupt("pack index points outside of its pack")
		}
	}
	slices.Sort(x.starts)
	return nil
}

func (x *packIndex) fanout(i int) int {
	return int(binary.BigEndian.Uint32(x.data[idxFanout+4*i:]))
}

func (x *packIndex) name(i int) []byte {
	return x.data[idxNames+i*hashLen:][:hashLen]
}

func (x *packIndex) crc(i int) uint32 {
	return binary.BigEndian.Uint32(x.data[idxNames+x.count*hashLen+4*i:])
}

func (x *packIndex) offsetAt(i int) int {
	return idxNames + x.count*(hashLen+4) + 4*i
}

func (x *packIndex) offset(i int) int64 {
	off := binary.BigEndian.Uint32(x.data[x.offsetAt(i):])
	if off < largeOffset {
		return int64(off)
	}
	far := binary.BigEndian.Uint64(x.data[x.offsetAt(x.count)+8*int(off-largeOffset):])
	return int64(min(far, math.MaxInt64))
}

// end returns where the object that starts at offset ends.
func (x *packIndex) end(offset, packSize int64) int64 {
	i, _ := slices.BinarySearch(x.starts, offset+1)
	if i < len(x.starts) {
		return x.starts[i]
	}
	return packSize - int64(hashLen)
}

// find returns the position of h.
func (x *packIndex) find(h Hash) (int, bool) {
	low := 0
	if h[0] > 0 {
		low = x.fanout(int(h[0]) - 1)
	}
	n := x.fanout(int(h[0])) - low
	i := low + sort.Search(n, func(i int) bool { return bytes.Compare(x.name(low+i), h[:]) >= 0 })
	return i, i < low+n && bytes.Equal(x.name(i), h[:])
}
