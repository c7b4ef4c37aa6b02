// Installing: an archive from anywhere is good, as each file is held against its sum before any of them is put in place.

package distribution

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Install unpacks the files of the sums from a tar archive, compressed by gzip or not, and puts them at dir in one step,
// read-only. What is there already is replaced where it is a folder of acme.sh, and stays when anything goes wrong. Other
// files of the archive are left out.
func (s Sums) Install(archive io.Reader, dir string) (err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("install acme.sh: %w", err)
	}
	if err := replaceable(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // as below /usr/local
		return fmt.Errorf("install acme.sh: %w", err)
	}
	next, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return fmt.Errorf("install acme.sh: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(next)) }()
	if err := s.unpack(archive, next); err != nil {
		return err
	}
	if err := s.Verify(next); err != nil {
		return fmt.Errorf("check archive: %w", err)
	}
	if err := os.Chmod(next, 0o755); err != nil { //nolint:gosec // acme.sh runs as a user of its own, who reads it
		return fmt.Errorf("install acme.sh: %w", err)
	}
	return swap(next, dir)
}

// replaceable refuses folders that hold anything but acme.sh: a slip of the pen must not cost somebody's files.
func replaceable(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Name() != Script && e.Name() != "dnsapi" {
			return fmt.Errorf("install acme.sh to %s: %s is there, which is no part of it: name another folder", dir, e.Name())
		}
	}
	return nil
}

// swap puts next into dir's place.
func swap(next, dir string) error {
	old := next + ".old"
	err := os.Rename(dir, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set old acme.sh aside: %w", err)
	}
	had := err == nil
	if err := os.Rename(next, dir); err != nil {
		if had {
			err = errors.Join(err, os.Rename(old, dir))
		}
		return fmt.Errorf("put acme.sh into its place: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove old acme.sh: %w", err)
	}
	return nil
}

// unpack writes the files that the sums list, as far as they are in the archive.
func (s Sums) unpack(archive io.Reader, dir string) error {
	plain, err := decompress(archive)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	files := tar.NewReader(plain)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w: it must be a .tar.gz of acme.sh", err)
		}
		name, ok := s.named(header)
		if !ok {
			continue
		}
		if header.Size > maxFile {
			return fmt.Errorf("read archive: %s holds more than %d bytes", name, maxFile)
		}
		if err := s.write(root, name, files); err != nil {
			return err
		}
	}
}

// decompress reads what gzip made, and what it did not, to a limit.
func decompress(archive io.Reader) (io.Reader, error) {
	in := bufio.NewReader(io.LimitReader(archive, maxArchive))
	if magic, err := in.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return in, nil //nolint:nilerr // tar says what is wrong with it
	}
	plain, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	return io.LimitReader(plain, maxArchive), nil
}

// named is an entry's path in the sums. Archives of a commit put all into one folder.
func (s Sums) named(header *tar.Header) (string, bool) {
	if header.Typeflag != tar.TypeReg {
		return "", false
	}
	name := path.Clean(header.Name)
	if _, ok := s[name]; ok {
		return name, true
	}
	_, name, _ = strings.Cut(name, "/")
	_, ok := s[name]
	return name, ok
}

// write writes a file that is as it was published. Each name is written once: a second entry of it is an error.
func (s Sums) write(root *os.Root, name string, from io.Reader) error {
	if folder := path.Dir(name); folder != "." {
		// What the umask took away is given back: another user reads it.
		if err := errors.Join(root.MkdirAll(folder, 0o755), root.Chmod(folder, 0o755)); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err != nil {
		return fmt.Errorf("read archive: %s: %w", name, err)
	}
	if sum := sha256.Sum256(data); sum != s[name] {
		return fmt.Errorf("check archive: %w", &ChangedError{Files: []string{name}})
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, modeOf(name))
	if err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(modeOf(name)), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}

func modeOf(name string) fs.FileMode {
	if name == Script {
		return 0o555
	}
	return 0o444
}
