// This file finds paths below another root folder.

package hostfs

import (
	"cmp"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links one path may lead over; the kernel's bound is the same.
const maxLinks = 40

// findBelow opens path as a process whose root folder is root would find it.
func findBelow(root int, path string) (int, error) {
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return walk(root, path) // A kernel before 5.6, or a container that hides the call.
	}
	return fd, err
}

// walk is findBelow by hand, element by element. It goes back up only the way that it came down, and so never above
// the root.
func walk(root int, path string) (int, error) {
	var way []int
	defer func() {
		for _, fd := range way {
			_ = unix.Close(fd)
		}
	}()
	pop := func() {
		if len(way) > 0 {
			_ = unix.Close(way[len(way)-1])
			way = way[:len(way)-1]
		}
	}
	todo := strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		here := root
		if len(way) > 0 {
			here = way[len(way)-1]
		}
		switch name {
		case "", ".":
			continue
		case "..":
			if kind, err := kindOf(here); err != nil || kind != unix.S_IFDIR {
				return 0, cmp.Or(err, error(unix.ENOTDIR))
			}
			pop()
			continue
		}
		fd, target, err := step(here, name)
		if err != nil {
			return 0, err
		}
		if target == "" {
			way = append(way, fd)
			continue
		}
		if links++; links > maxLinks {
			return 0, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			for len(way) > 0 {
				pop()
			}
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	if len(way) == 0 {
		return unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	}
	fd := way[len(way)-1]
	way = way[:len(way)-1]
	return fd, nil
}

// step opens one element below a folder, or reads it where it is a symbolic link.
func step(dir int, name string) (int, string, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, "", err
	}
	kind, err := kindOf(fd)
	if err == nil && kind != unix.S_IFLNK {
		return fd, "", nil
	}
	defer func() { _ = unix.Close(fd) }()
	if err != nil {
		return 0, "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return 0, string(buf[:max(n, 0)]), err
}

func kindOf(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT, err
}
