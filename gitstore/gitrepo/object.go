package gitrepo

import (
	"bytes"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The two file modes that a tree may hold. Links, executables and submodules have no place in this repository.
const (
	modeFile = "100644"
	modeDir  = "40000"
)

// hashObject returns the name of an object, by the SHA-1 that detects collisions.
func hashObject(t plumbing.ObjectType, data []byte) Hash {
	return Hash(plumbing.ComputeHash(t, data))
}

// less is Git's order of the names in a tree: folders stand as if they ended in a slash.
func less(a, b Entry) bool {
	n := min(len(a.Name), len(b.Name))
	if c := strings.Compare(a.Name[:n], b.Name[:n]); c != 0 {
		return c < 0
	}
	return a.byteAt(n) < b.byteAt(n)
}

// byteAt returns the byte of the name at i, and what stands for its end.
func (e Entry) byteAt(i int) int {
	switch {
	case i < len(e.Name):
		return int(e.Name[i])
	case e.Dir:
		return '/'
	default:
		return -1
	}
}

// encodeTree encodes entries, which must be in Git's order.
func encodeTree(entries []Entry) []byte {
	size := 0
	for _, e := range entries {
		size += len(modeFile) + len(e.Name) + 2 + len(e.Hash)
	}
	out := make([]byte, 0, size)
	for _, e := range entries {
		mode := modeFile
		if e.Dir {
			mode = modeDir
		}
		out = append(out, mode...)
		out = append(out, ' ')
		out = append(out, e.Name...)
		out = append(out, 0)
		out = append(out, e.Hash[:]...)
	}
	return out
}

// parseTree parses a tree object. It refuses modes other than those of plain files and folders, names that mean
// something to a file system, doubled names and a wrong order.
func parseTree(data []byte) ([]Entry, error) {
	entries := make([]Entry, 0, len(data)/40+1)
	for len(data) > 0 {
		head, rest, ok := bytes.Cut(data, []byte{0})
		if !ok || len(rest) < len(Hash{}) {
			return nil, corrupt("tree entry %d is cut off", len(entries)+1)
		}
		mode, name, _ := strings.Cut(string(head), " ")
		if mode != modeFile && mode != modeDir {
			return nil, corrupt("tree entry %d has a mode other than file or folder", len(entries)+1)
		}
		if !plainName(name) {
			return nil, corrupt("tree entry %d has a forbidden name", len(entries)+1)
		}
		e := Entry{Name: name, Dir: mode == modeDir, Hash: Hash(rest[:len(Hash{})])}
		if n := len(entries); n > 0 && !less(entries[n-1], e) {
			return nil, corrupt("tree entry %d is doubled or out of order", n+1)
		}
		entries = append(entries, e)
		data = rest[len(Hash{}):]
	}
	return entries, checkTwins(entries)
}

// checkTwins refuses a file and a folder of one name, which Git's order does not bring together.
func checkTwins(entries []Entry) error {
	for _, e := range entries {
		if !e.Dir {
			continue
		}
		file := Entry{Name: e.Name}
		i := sort.Search(len(entries), func(i int) bool { return !less(entries[i], file) })
		if i < len(entries) && entries[i].Name == e.Name && !entries[i].Dir {
			return corrupt("tree has a file and a folder of one name")
		}
	}
	return nil
}

// plainName tells whether a tree may hold name: letters, digits, dot, dash and underscore, and nothing that means
// "here", "up" or Git's own folder.
func plainName(name string) bool {
	if name == "" || len(name) > 255 || name == "." || name == ".." || strings.EqualFold(name, ".git") {
		return false
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
