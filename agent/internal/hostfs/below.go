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
	w := way{root: root}
	defer w.close()
	todo := strings.Split(path, "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == "" || name == "." {
			continue
		}
		target, err := w.step(name)
		if err != nil {
			return 0, err
		}
		if target == "" {
			continue
		}
		if links++; links > maxLinks {
			return 0, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			w.close()
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return unix.FcntlInt(uintptr(w.here()), unix.F_DUPFD_CLOEXEC, 0)
}

// way is the folders that lead from a root to where a walk stands.
type way struct {
	root int
	fds  []int
}

func (w *way) here() int {
	if len(w.fds) == 0 {
		return w.root
	}
	return w.fds[len(w.fds)-1]
}

// close goes back to the root.
func (w *way) close() {
	for len(w.fds) > 0 {
		w.back()
	}
}

func (w *way) back() {
	if n := len(w.fds); n > 0 {
		_ = unix.Close(w.fds[n-1])
		w.fds = w.fds[:n-1]
	}
}

// step goes on by one element, or returns the target of a symbolic link.
func (w *way) step(name string) (target string, err error) {
	if name == ".." {
		if kind, err := kindOf(w.here()); err != nil || kind != unix.S_IFDIR {
			return "", cmp.Or(err, error(unix.ENOTDIR))
		}
		w.back()
		return "", nil
	}
	fd, err := unix.Openat(w.here(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	kind, err := kindOf(fd)
	if err == nil && kind != unix.S_IFLNK {
		w.fds = append(w.fds, fd)
		return "", nil
	}
	defer func() { _ = unix.Close(fd) }()
	if err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(buf[:max(n, 0)]), err
}

func kindOf(fd int) (uint32, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT, err
}
