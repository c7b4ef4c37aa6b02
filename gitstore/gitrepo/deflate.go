package gitrepo

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"sync"
)

// The compressors' tables are large and most objects small: making them anew would dominate a batch.
var (
	stored    = deflaters{level: zlib.NoCompression}
	fast      = deflaters{level: zlib.BestSpeed}
	inflaters inflaterPool
)

// deflaters hands out zlib writers of one level.
type deflaters struct {
	level int
	pool  sync.Pool
}

// deflate appends the compressed data to out.
func (d *deflaters) deflate(out *bytes.Buffer, data []byte) error {
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
