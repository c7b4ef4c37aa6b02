// Package atomicfile replaces files so that a reader, a crash or a full disk sees the whole old file or the whole
// new one, never something between.
//
// A file is written under another name in its own folder, given its owner, mode and extended attributes, and
// fsynced; a rename puts it in place, and the folder is fsynced. Every replacement has a new inode and a fresh
// modification time: nginx 1.27 and later keep the old certificate when both are unchanged.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MaxSize is the largest file that Read takes; certificates and keys are a thousand times smaller.
const MaxSize = 4 << 20

// Attributes are what a file has beside its bytes.
type Attributes struct {
	// Mode is the permission bits; no other bit is ever set on a staged file.
	Mode fs.FileMode `json:"mode"`
	UID  int         `json:"uid"`
	GID  int         `json:"gid"`
	// Xattrs are the extended attributes that survive a replacement: POSIX ACL, SELinux label, user attributes.
	Xattrs map[string][]byte `json:"xattrs,omitempty"`
}

// Write replaces the file at path by data. It belongs to the running user.
func Write(path string, data []byte, mode fs.FileMode) error {
	temp := filepath.Join(filepath.Dir(path), ".certferry-"+rand.Text())
	attr := Attributes{Mode: mode, UID: os.Geteuid(), GID: os.Getegid()}
	if err := Stage(temp, data, attr); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// Stage writes data to the new file temp and fsyncs it. The file is closed to everybody else until it has its
// owner, so that no mode is ever wider than asked for. After an error nothing is left behind.
func Stage(temp string, data []byte, attr Attributes) (err error) {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600) //nolint:gosec // the caller vouches for the folder
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temp))
		}
	}()
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := setAttributes(f, attr); err != nil {
		return err
	}
	return f.Sync()
}

// setAttributes gives f its owner before its mode (a change of owner clears bits), and its access control list
// before its mode too: the mode's group bits are the list's mask.
func setAttributes(f *os.File, attr Attributes) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uid, gid := owner(info); uid != attr.UID || gid != attr.GID {
		if err := f.Chown(attr.UID, attr.GID); err != nil {
			return err
		}
	}
	if err := setXattrs(f, attr.Xattrs); err != nil {
		return err
	}
	return f.Chmod(attr.Mode & fs.ModePerm)
}

// Read returns the bytes and attributes of the regular file at path. It follows no symbolic link at the end of
// path and does not wait for a named pipe.
func Read(path string) ([]byte, Attributes, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0) //nolint:gosec // the caller vouches for the path
	if err != nil {
		return nil, Attributes{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, Attributes{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, Attributes{}, fmt.Errorf("read %s: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, Attributes{}, err
	}
	if len(data) > MaxSize {
		return nil, Attributes{}, fmt.Errorf("read %s: larger than %d bytes", path, MaxSize)
	}
	xattrs, err := readXattrs(f)
	if err != nil {
		return nil, Attributes{}, err
	}
	uid, gid := owner(info)
	return data, Attributes{Mode: info.Mode().Perm(), UID: uid, GID: gid, Xattrs: xattrs}, nil
}

// SyncDir makes the renames in the folder dir last through a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the caller vouches for the path
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

func owner(info fs.FileInfo) (uid, gid int) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid), int(st.Gid)
	}
	return os.Geteuid(), os.Getegid()
}
