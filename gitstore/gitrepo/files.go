// This file holds the few file operations on which the promise rests that a crash leaves the old state or the new.

package gitrepo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// diskTrace, if a test sets it, is told each step whose loss in a power cut would matter, after it was done: create,
// sync, rename, remove and syncdir, with the paths that it was done to.
var diskTrace atomic.Pointer[func(step string, paths ...string)]

func trace(step string, paths ...string) {
	if fn := diskTrace.Load(); fn != nil {
		(*fn)(step, paths...)
	}
}

// createTemp makes a new file in dir.
func createTemp(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err == nil {
		trace("create", f.Name())
	}
	return f, err
}

// syncFile makes what was written to f survive a power cut.
func syncFile(f *os.File) error {
	err := f.Sync()
	if err == nil {
		trace("sync", f.Name())
	}
	return err
}

// rename gives a file its final name, replacing what had it.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		trace("rename", from, to)
	}
	return err
}

// remove removes a file that may be absent.
func remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		trace("remove", path)
	}
	return err
}

// syncDir makes renames in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // G304: a folder of the repository
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	trace("syncdir", dir)
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
	trace("create", lock)
	if err = write(f); err == nil {
		err = syncFile(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = rename(lock, path)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("write %s: %w", filepath.Base(path), err), remove(lock))
	}
	return true, syncDir(filepath.Dir(path))
}

// removeAll removes files that may be absent.
func removeAll(names ...string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, remove(name))
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
