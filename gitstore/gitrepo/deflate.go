package gitrepo

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/adler32"
	"io"
	"sync"
)

// The compressors' tables are large and most objects small: making them anew would dominate a batch.
var (
	stored    = deflaters{level: zlib.NoCompression}
	fast      = deflaters{level: zlib.BestSpeed}
	small     = deflaters{level: zlib.DefaultCompression}
	inflaters inflaterPool
)

// smallObject is the size in bytes up to which a file or commit is compressed well: there may be ten thousand of them in a batch,
// of which each byte counts, and they take microseconds.
const smallObject = 4 << 10

// deflaters hands out zlib writers of one level.
type deflaters struct {
	level int
	pool  sync.Pool
}

// storedBlock is the most that one stored block holds (RFC 1951, section 3.2.4).
const storedBlock = 0xffff

// store appends data as it is in zlib's form (RFC 1950). The compressor would add an empty block to the end.
func store(out *bytes.Buffer, data []byte) {
	out.Write([]byte{0x78, 0x01})
	for rest := data; ; {
		n := min(len(rest), storedBlock)
		last := byte(0)
		if n == len(rest) {
			last = 1
		}
		size := uint16(n)
		out.Write(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16([]byte{last}, size), ^size))
		out.Write(rest[:n])
		if rest = rest[n:]; last == 1 {
			break
		}
	}
	_ = binary.Write(out, binary.BigEndian, adler32.Checksum(data)) // a buffer takes everything
}

// deflate appends the compressed data to out.
func (d *deflaters) deflate(out *bytes.Buffer, data []byte) error {
	if d.level == zlib.NoCompression {
		store(out, data)
		return nil
	}
	z, ok := d.pool.Get().(*zlib.Writer)
	if ok {
		z.Reset(out)
	} else {
		var err error
		if z, err = zlib.NewWriterLevel(out, d.level); err != nil {
			return err
		}
	}
	defer d.pool.Put(z)
	_, err := z.Write(data)
	return errors.Join(err, z.Close())
}

type inflaterPool struct{ pool sync.Pool }

func (p *inflaterPool) get(r io.Reader) (zlibReader, error) {
	if z, ok := p.pool.Get().(zlibReader); ok {
		return z, z.Reset(r, nil)
	}
	z, err := zlib.NewReader(r)
	if err != nil {
		return nil, err
	}
	zr, ok := z.(zlibReader)
	if !ok {
		return nil, errors.New("zlib reader cannot be reset")
	}
	return zr, nil
}

func (p *inflaterPool) put(z zlibReader) { p.pool.Put(z) }
