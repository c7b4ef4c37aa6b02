package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/agent/internal/atomicfile"
)

// TestWrite: a replacement has a new inode and a fresh time.
func TestWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	old := time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o644), os.Chtimes(path, old, old)); err != nil {
		t.Fatal(err)
	}
	before := stat(t, path)
	if err := atomicfile.Write(path, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	data, attr, err := atomicfile.Read(path)
	if err != nil || string(data) != "new" || attr.Mode != 0o640 || attr.UID != os.Geteuid() || attr.GID != os.Getegid() {
		t.Errorf("read %q %+v %v", data, attr, err)
	}
	after := stat(t, path)
	if after.Ino == before.Ino || after.Mtim.Sec <= before.Mtim.Sec {
		t.Error("the replacement keeps inode or time")
	}
	alone(t, path)
}

func stat(t *testing.T, path string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// alone wants nothing beside path in its folder.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

// TestWriteFails leaves nothing behind.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := atomicfile.Write(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	folder := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(folder, []byte("x"), 0o600); err == nil {
		t.Error("a folder is replaced")
	}
	alone(t, folder)
	if err := atomicfile.SyncDir(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing folder is synced")
	}
}

// TestStageRefusesWhatIsThere: nobody can lay a link where a file will be staged.
func TestStageRefusesWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, temp := filepath.Join(dir, "victim"), filepath.Join(dir, "temp")
	if err := errors.Join(os.WriteFile(victim, []byte("safe"), 0o600), os.Symlink(victim, temp)); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Stage(temp, []byte("x"), atomicfile.Attributes{Mode: 0o600}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("stage over a link: %v", err)
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "safe" {
		t.Errorf("the link's target is %q, %v", data, err)
	}
}

// TestReadRefuses what is no plain file of sensible size.
func TestReadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, link, large := filepath.Join(dir, "fifo"), filepath.Join(dir, "link"), filepath.Join(dir, "large")
	if err := errors.Join(
		syscall.Mkfifo(fifo, 0o600),
		os.Symlink("large", link),
		os.WriteFile(large, bytes.Repeat([]byte{1}, atomicfile.MaxSize+1), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	unreadable := "/proc/self/mem" // has no byte at address 0
	for _, path := range []string{fifo, link, large, dir, filepath.Join(dir, "none"), unreadable} {
		if _, _, err := atomicfile.Read(path); err == nil {
			t.Errorf("%s is read", filepath.Base(path))
		}
	}
}

// TestAttributes carries owner, group, mode, access control list and user attributes to the replacement.
func TestAttributes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can give files away")
	}
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "file"), filepath.Join(dir, "temp")
	// Version 2: user::rw-, user:33:r--, group::---, mask::r--, other::---.
	acl := []byte{
		2, 0, 0, 0,
		1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,
		2, 0, 4, 0, 33, 0, 0, 0,
		4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
		16, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
		32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
	}
	if err := errors.Join(os.WriteFile(path, []byte("old"), 0o600), os.Chown(path, 12345, 54321)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		unix.Setxattr(path, "system.posix_acl_access", acl, 0),
		unix.Setxattr(path, "user.note", []byte("keep me"), 0),
		unix.Setxattr(path, "trusted.note", []byte("leave me"), 0),
	); err != nil {
		t.Skipf("SKIP: this file system has no extended attributes: %v", err)
	}
	_, attr, err := atomicfile.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(attr.Xattrs) != 2 || attr.UID != 12345 || attr.GID != 54321 || attr.Mode != 0o640 {
		t.Fatalf("attributes %+v", attr)
	}
	if err := atomicfile.Stage(temp, []byte("new"), attr); err != nil {
		t.Fatal(err)
	}
	if _, again, err := atomicfile.Read(temp); err != nil || again.Mode != attr.Mode || again.UID != attr.UID ||
		again.GID != attr.GID || !bytes.Equal(again.Xattrs["system.posix_acl_access"], acl) || string(again.Xattrs["user.note"]) != "keep me" {
		t.Errorf("attributes %+v, %v", again, err)
	}
	attr.Xattrs = map[string][]byte{"system.posix_acl_access": {1, 2, 3}}
	other := filepath.Join(dir, "other")
	if err := atomicfile.Stage(other, nil, attr); err == nil || !strings.Contains(err.Error(), "system.posix_acl_access") {
		t.Errorf("a damaged list is accepted: %v", err)
	}
	if _, err := os.Lstat(other); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a failed stage leaves its file behind")
	}
}

// TestModeIsNeverWider: bits beyond the permissions are not set, whatever is asked for.
func TestModeIsNeverWider(t *testing.T) {
	t.Parallel()
	temp := filepath.Join(t.TempDir(), "temp")
	attr := atomicfile.Attributes{
		Mode: 0o640 | fs.ModeSetuid | fs.ModeSetgid, UID: os.Geteuid(), GID: os.Getegid(),
		Xattrs: map[string][]byte{"security.capability": {1}},
	}
	if err := atomicfile.Stage(temp, []byte("x"), attr); err != nil {
		t.Fatal(err)
	}
	if mode := stat(t, temp).Mode &^ syscall.S_IFMT; mode != 0o640 {
		t.Errorf("mode %o", mode)
	}
}

// TestFullDisk: a full disk leaves the file as it was.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skipf("SKIP: no right to mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "file")
	if err := atomicfile.Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(path, make([]byte, 64<<10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write to a full disk: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("the file is %q, %v", data, err)
	}
	alone(t, path)
}

// TestForeignOwner: who may not give a file away is told so, and nothing is left behind.
func TestForeignOwner(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("SKIP: root may give files away")
	}
	temp := filepath.Join(t.TempDir(), "temp")
	if err := atomicfile.Stage(temp, nil, atomicfile.Attributes{Mode: 0o600}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Lstat(temp); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a failed stage leaves its file behind")
	}
}
