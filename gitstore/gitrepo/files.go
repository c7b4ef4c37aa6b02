// This file holds the few file operations on which the promise rests that a crash leaves the old state or the new.

package gitrepo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// syncDir makes renames in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: a folder of the repository
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

// writeFile replaces path by way of path.lock, as git does, and syncs file and folder. moved tells whether the new
// content is in place, which it may be even when syncing the folder failed.
func writeFile(path string, write func(io.Writer) error) (moved bool, err error) {
	lock := path + ".lock"
	f, err := os.OpenFile(lock, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // G304: a file of the repository
	if errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("lock %s: another program holds %s", filepath.Base(path), lock)
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", filepath.Base(path), err)
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(lock, path)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("write %s: %w", filepath.Base(path), err), os.Remove(lock))
	}
	return true, syncDir(filepath.Dir(path))
}

// removeAll removes files that may be absent.
func removeAll(names ...string) error {
	var errs []error
	for _, name := range names {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readExactly reads size bytes and then the end.
func readExactly(r io.Reader, size int64) ([]byte, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	var one [1]byte
	if n, err := r.Read(one[:]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, errors.New("more data than announced")
	}
	return data, nil
}
