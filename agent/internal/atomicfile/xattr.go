// This file carries extended attributes from a file to its replacement: an access control list that lets a
// service's user read a key must survive a renewal.

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kept says which attributes belong to the file as the administrator sees it. Capabilities and integrity
// signatures belong to its bytes and are not carried over.
func kept(name string) bool {
	return name == "system.posix_acl_access" || name == "security.selinux" || strings.HasPrefix(name, "user.")
}

func readXattrs(f *os.File) (map[string][]byte, error) {
	list, err := sized(func(buf []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), buf) })
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) {
			return nil, nil
		}
		return nil, fmt.Errorf("list attributes of %s: %w", f.Name(), err)
	}
	var attrs map[string][]byte
	for raw := range bytes.SplitSeq(list, []byte{0}) {
		name := string(raw)
		if !kept(name) {
			continue
		}
		value, err := sized(func(buf []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), name, buf) })
		if err != nil {
			return nil, fmt.Errorf("read attribute %s of %s: %w", name, f.Name(), err)
		}
		if attrs == nil {
			attrs = make(map[string][]byte)
		}
		attrs[name] = value
	}
	return attrs, nil
}

func setXattrs(f *os.File, attrs map[string][]byte) error {
	for name, value := range attrs {
		if !kept(name) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), name, value, 0); err != nil {
			return fmt.Errorf("set attribute %s of %s: %w", name, f.Name(), err)
		}
	}
	return nil
}

// sized calls read with a buffer that is large enough: the kernel limits lists and values to 64 KiB.
func sized(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 1<<16)
	n, err := read(buf)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(buf[:n]), nil
}
