package hostfs

import "golang.org/x/sys/unix"

// Walk finds path below the folder root as kernels without openat2 do, and returns the inode number found.
func Walk(root, path string) (uint64, error) { return inode(walk, root, path) }

// Find is Walk by openat2.
func Find(root, path string) (uint64, error) { return inode(findBelow, root, path) }

func inode(find func(int, string) (int, error), root, path string) (uint64, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(dir) }()
	fd, err := find(dir, path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return st.Ino, err
}

// Spend counts files and bytes as read.
func (fsys *FS) Spend(files int, bytes int64) { fsys.files, fsys.bytes = files, bytes }
