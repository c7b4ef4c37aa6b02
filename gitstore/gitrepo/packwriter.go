package gitrepo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

// smallTree is the size, in bytes, up to which a tree is stored as it is: it is mostly hashes, and compressing it takes
// more time than sealing a bundle, for a few bytes.
const smallTree = 512

// newEntry makes a pack entry of an object.
func newEntry(kind plumbing.ObjectType, data []byte, d *deflaters) (*rawEntry, error) {
	if kind == plumbing.TreeObject && len(data) <= smallTree {
		d = &stored
	}
	var out bytes.Buffer
	out.Grow(len(data) + 64)
	head := entryHeader(kind, len(data))
	out.Write(head)
	if err := d.deflate(&out, data); err != nil {
		return nil, fmt.Errorf("compress object: %w", err)
	}
	raw := out.Bytes()
	return &rawEntry{kind: kind, size: int64(len(data)), raw: raw, body: raw[len(head):], crc: crc32.ChecksumIEEE(raw)}, nil
}

// packWriter writes a pack and its index under temporary names and puts them in place at the end. The number of
// objects stands at the front and the checksum at the back, so the header is mended and the file read once more
// when all is known; nothing has to be held in memory.
type packWriter struct {
	dir    string
	file   *os.File
	buf    *bufio.Writer
	offset int64
	count  uint32
	idx    idxfile.Writer
	err    error
}

func newPackWriter(dir string) (*packWriter, error) {
	f, err := createTemp(dir, "tmp_pack_")
	if err != nil {
		return nil, fmt.Errorf("create pack: %w", err)
	}
	w := &packWriter{dir: dir, file: f, buf: bufio.NewWriterSize(f, 1<<18), offset: packHeader}
	_, err = w.buf.Write(make([]byte, packHeader))
	return w, err
}

// add appends an entry. After a failure nothing more is written.
func (w *packWriter) add(h Hash, e *rawEntry) error {
	if w.err != nil {
		return w.err
	}
	if _, w.err = w.buf.Write(e.raw); w.err != nil {
		return w.err
	}
	w.idx.Add(plumbing.Hash(h), uint64(w.offset), e.crc) //nolint:gosec // G115: an offset is never negative
	w.offset += int64(len(e.raw))
	w.count++
	return nil
}

// abort removes what was written.
func (w *packWriter) abort() {
	_ = w.file.Close()        // nothing of it is wanted
	_ = remove(w.file.Name()) // and the janitor takes what stays
}

// finish puts pack and index in place, safe against power loss, and opens them.
func (w *packWriter) finish() (*pack, error) {
	p, err := w.place()
	if err != nil {
		w.abort()
		return nil, fmt.Errorf("write pack: %w", err)
	}
	return p, nil
}

func (w *packWriter) place() (*pack, error) {
	sum, err := w.seal()
	if err != nil {
		return nil, err
	}
	if err := w.file.Chmod(0o400); err != nil {
		return nil, err
	}
	if err := syncFile(w.file); err != nil {
		return nil, err
	}
	tmpIdx, err := w.writeIndex(sum)
	if err != nil {
		return nil, err
	}
	base := filepath.Join(w.dir, "pack-"+sum.String())
	// Git looks for an index first: by the time there is one, its pack must be complete.
	err = errors.Join(rename(w.file.Name(), base+".pack"), rename(tmpIdx, base+".idx"), syncDir(w.dir))
	if err != nil {
		return nil, errors.Join(err, removeAll(tmpIdx, base+".idx", base+".pack"))
	}
	return newPack(base, w.file)
}

// seal writes the header and the checksum.
func (w *packWriter) seal() (Hash, error) {
	if err := errors.Join(w.err, w.buf.Flush()); err != nil {
		return Hash{}, err
	}
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), w.count)
	if _, err := w.file.WriteAt(head, 0); err != nil {
		return Hash{}, err
	}
	h := hash.New(hash.CryptoType)
	if _, err := io.Copy(h, io.NewSectionReader(w.file, 0, w.offset)); err != nil {
		return Hash{}, err
	}
	sum := Hash(h.Sum(nil))
	_, err := w.file.WriteAt(sum[:], w.offset)
	return sum, err
}

func (w *packWriter) writeIndex(sum Hash) (name string, err error) {
	if err := w.idx.OnFooter(plumbing.Hash(sum)); err != nil {
		return "", err
	}
	index, err := w.idx.Index()
	if err != nil {
		return "", err
	}
	f, err := createTemp(w.dir, "tmp_idx_")
	if err != nil {
		return "", err
	}
	buf := bufio.NewWriterSize(f, 1<<16)
	_, err = idxfile.NewEncoder(buf).Encode(index)
	err = errors.Join(err, buf.Flush(), f.Chmod(0o400), syncFile(f), f.Close())
	if err != nil {
		return "", errors.Join(err, remove(f.Name()))
	}
	return f.Name(), nil
}

// WritePack writes a pack of the objects, as they lie on disk.
func (r *Repo) WritePack(w io.Writer, objects []Hash) error {
	sum := hash.New(hash.CryptoType)
	out := io.MultiWriter(w, sum)
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(objects))) //nolint:gosec // G115: a list in memory
	if _, err := out.Write(head); err != nil {
		return fmt.Errorf("send pack: %w", err)
	}
	for _, h := range objects {
		e, err := r.packs.entry(h)
		if err != nil {
			return fmt.Errorf("send pack: %w", err)
		}
		if _, err := out.Write(e.raw); err != nil {
			return fmt.Errorf("send pack: %w", err)
		}
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("send pack: %w", err)
	}
	return nil
}
