// Package hostfs reads files of this machine, or those below another root folder, as a server in there sees them.
// What it reads was written by others: nothing but a regular file is opened, and everything is bounded.
package hostfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The bounds of one file, one folder or pattern, and one FS in all.
const (
	maxFile    = 16 << 20
	maxEntries = 10_000
	maxBytes   = 256 << 20
	maxFiles   = 20_000
)

// ErrBudget says that an FS has read all that it may.
var ErrBudget = errors.New("the scan has read all that it may (256 MiB, 20000 files)")

// FS reads files. It is safe for use by several goroutines. Its bounds are for one scan: make a new one for the next.
type FS struct {
	root string

	mu    sync.Mutex
	bytes int64
	files int
}

// New returns an FS of the files below the folder root, as a process with that root folder sees them: absolute
// symbolic links and ".." stay inside. An empty root is this machine's.
func New(root string) *FS { return &FS{root: root} }

// ReadFile reads a regular file of at most 16 MiB. A folder, a FIFO or a device is an error and is never opened.
func (fsys *FS) ReadFile(path string) ([]byte, error) {
	data, err := fsys.readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

func (fsys *FS) readFile(path string) ([]byte, error) {
	f, info, err := fsys.open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%d bytes are more than %d", info.Size(), maxFile)
	}
	if err := fsys.spend(info.Size()); err != nil {
		return nil, err
	}
	fd, err := reopen(f, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	return readAll(fd, int(info.Size()))
}

// readAll reads by plain system calls: os.File would wait for some files of /proc, which are regular files too.
func readAll(fd, size int) ([]byte, error) {
	data := make([]byte, 0, size+512)
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return data, nil
		}
		data = data[:len(data)+n]
		if len(data) > maxFile {
			return nil, fmt.Errorf("more than %d bytes", maxFile)
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
	}
}

// Stat is os.Stat: it follows symbolic links.
func (fsys *FS) Stat(path string) (fs.FileInfo, error) {
	f, info, err := fsys.open(path)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	return info, f.Close()
}

// ReadDir lists a folder, sorted by name. More than 10,000 entries are an error.
func (fsys *FS) ReadDir(path string) ([]fs.DirEntry, error) {
	entries, err := fsys.readDir(path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	return entries, nil
}

func (fsys *FS) readDir(path string) ([]fs.DirEntry, error) {
	handle, info, err := fsys.open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	if !info.IsDir() {
		return nil, unix.ENOTDIR
	}
	if err := fsys.spend(0); err != nil {
		return nil, err
	}
	fd, err := reopen(handle, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer func() { _ = dir.Close() }()
	var entries []fs.DirEntry
	for {
		some, err := dir.ReadDir(1000)
		entries = append(entries, some...)
		if len(entries) > maxEntries {
			return nil, fmt.Errorf("more than %d entries", maxEntries)
		}
		if len(some) == 0 || err != nil {
			break
		}
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}

// Glob returns the paths that match an absolute pattern as the C library's glob does for servers: sorted, "[!a]"
// negates, a wildcard matches no name that begins with a dot. No match is no error; more than 10,000 are one, and so
// is a folder on the way that cannot be read.
func (fsys *FS) Glob(pattern string) ([]string, error) {
	if !strings.HasPrefix(pattern, "/") {
		return nil, fmt.Errorf("match %s: not an absolute path", pattern)
	}
	found := []string{""} // The root folder; each element is added with a slash before it.
	for part := range strings.SplitSeq(pattern, "/") {
		if part == "" || part == "." {
			continue
		}
		var next []string
		for _, dir := range found {
			more, err := fsys.match(dir, part)
			if err != nil {
				return nil, fmt.Errorf("match %s: %w", pattern, err)
			}
			if next = append(next, more...); len(next) > maxEntries {
				return nil, fmt.Errorf("match %s: more than %d matches", pattern, maxEntries)
			}
		}
		found = next
	}
	if len(found) == 1 && found[0] == "" {
		found[0] = "/"
	}
	slices.Sort(found)
	return found, nil
}

// match returns the entries of dir that one element of a pattern matches.
func (fsys *FS) match(dir, part string) ([]string, error) {
	if !strings.ContainsAny(part, `*?[\`) {
		path := dir + "/" + part
		if _, err := fsys.Stat(path); err != nil {
			return nil, unlessMissing(err)
		}
		return []string{path}, nil
	}
	pattern := strings.ReplaceAll(part, "[!", "[^")
	if _, err := filepath.Match(pattern, ""); err != nil {
		return nil, err
	}
	entries, err := fsys.readDir(dir + "/")
	if err != nil {
		return nil, unlessMissing(err)
	}
	var found []string
	for _, e := range entries {
		if ok, _ := filepath.Match(pattern, e.Name()); ok && (part[0] == '.' || e.Name()[0] != '.') {
			found = append(found, dir+"/"+e.Name())
		}
	}
	return found, nil
}

func unlessMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

// spend counts a file of n bytes.
func (fsys *FS) spend(n int64) error {
	fsys.mu.Lock()
	defer fsys.mu.Unlock()
	if fsys.files+1 > maxFiles || fsys.bytes+n > maxBytes {
		return ErrBudget
	}
	fsys.files++
	fsys.bytes += n
	return nil
}

// open finds a file without opening it for reading, which alone can have effects with a FIFO or a device.
func (fsys *FS) open(path string) (*os.File, fs.FileInfo, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, nil, errors.New("not an absolute path")
	}
	fd, err := fsys.find(path)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (fsys *FS) find(path string) (int, error) {
	if fsys.root == "" {
		return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	root, err := unix.Open(fsys.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the root folder %s: %w", fsys.root, err)
	}
	defer func() { _ = unix.Close(root) }()
	return findBelow(root, path)
}

// reopen opens what handle found.
func reopen(handle *os.File, flags int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(int(handle.Fd())), flags|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
}
