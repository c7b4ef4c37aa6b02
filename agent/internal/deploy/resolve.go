// This file finds where a target's file really stands, and refuses places that somebody other than root could
// bend: the agent writes as root, and a folder or link in other hands would let it write anywhere.

package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const maxLinks = 40

// resolve follows every symbolic link of the absolute path and returns the plain path of the file, which need not
// exist. allowed are the users that may own a file that a link leads to, beside root and the running user.
func resolve(path string, allowed ...int) (string, error) {
	resolved, linked, err := walk(path)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	if tool := managedBy(resolved); tool != "" {
		return "", fmt.Errorf("%s is managed by %s; name a file of its own in the policy, or take it over first", resolved, tool)
	}
	if info, err := os.Lstat(resolved); err == nil && linked {
		if err := checkOwner(info, allowed...); err != nil {
			return "", fmt.Errorf("resolve %s: %s %w", path, resolved, err)
		}
	}
	return resolved, nil
}

// walk goes down path one component at a time, so that every folder and link on the way is looked at.
func walk(path string) (resolved string, linked bool, err error) {
	todo := components(path)
	at := "/"
	if err := checkFolder(at); err != nil {
		return "", false, err
	}
	for links := 0; len(todo) > 0; {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		last := len(todo) == 0
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist) && last:
			return next, linked, checkParent(at)
		case err != nil:
			return "", false, err
		case info.Mode().Type() == fs.ModeSymlink:
			linked = true
			if links++; links > maxLinks {
				return "", false, syscall.ELOOP
			}
			target, err := follow(next, info)
			if err != nil {
				return "", false, err
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			todo = append(components(target), todo...)
		case info.IsDir() && !last:
			if err := checkFolder(next); err != nil {
				return "", false, err
			}
			at = next
		case info.Mode().IsRegular() && last:
			return next, linked, checkParent(at)
		default:
			return "", false, fmt.Errorf("%s is not a regular file", next)
		}
	}
	return "", false, fmt.Errorf("%s is a folder", at)
}

// components splits a path; ".." stays, for behind a link it means something else than filepath.Clean thinks.
func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func follow(link string, info fs.FileInfo) (string, error) {
	if err := checkOwner(info); err != nil {
		return "", fmt.Errorf("the link %s %w", link, err)
	}
	return os.Readlink(link)
}

// checkFolder refuses a folder on the way in which somebody else may rename things.
func checkFolder(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := checkOwner(info); err != nil {
		return fmt.Errorf("the folder %s %w", dir, err)
	}
	return checkWritable(dir, info, info.Mode()&fs.ModeSticky != 0)
}

// checkParent is stricter than checkFolder: in a world-writable folder with the sticky bit, such as /tmp,
// somebody else could make the file before the agent does.
func checkParent(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	return checkWritable(dir, info, false)
}

func checkWritable(dir string, info fs.FileInfo, sticky bool) error {
	perm := info.Mode().Perm()
	if sticky || perm&0o022 == 0 {
		return nil
	}
	if perm&0o002 != 0 {
		return fmt.Errorf("the folder %s may be written by everybody (mode %04o); run chmod o-w", dir, perm)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (st.Gid == 0 || int(st.Gid) == os.Getegid()) {
		return nil
	}
	return fmt.Errorf("the folder %s may be written by its group (mode %04o), who could lead the agent to other files; run chmod g-w", dir, perm)
}

func checkOwner(info fs.FileInfo, allowed ...int) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("has no owner that could be checked")
	}
	uid := int(st.Uid)
	if uid == 0 || uid == os.Geteuid() {
		return nil
	}
	if slices.Contains(allowed, uid) {
		return nil
	}
	return fmt.Errorf("belongs to user %d, who could lead the agent to other files; it must belong to root", uid)
}

// managedBy names the tool that will write path itself at its next renewal, or is empty.
func managedBy(path string) string {
	if strings.HasPrefix(path, "/etc/letsencrypt/") {
		return "certbot"
	}
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		switch {
		case holds(dir, "live", "archive", "renewal"):
			return "certbot"
		case filepath.Base(dir) == ".acme.sh" || holds(dir, "acme.sh", "account.conf"):
			return "acme.sh"
		}
	}
	return ""
}

func holds(dir string, names ...string) bool {
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}
