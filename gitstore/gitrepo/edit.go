package gitrepo

import (
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// maxDepth is how many folders deep a path may lie.
const maxDepth = 8

// ValidPath tells whether path may be a file in the repository: slash-separated plain names, not too deep.
func ValidPath(path string) error {
	names := strings.Split(path, "/")
	if len(names) > maxDepth {
		return invalid("path is more than %d folders deep", maxDepth)
	}
	for _, name := range names {
		if !plainName(name) {
			return invalid("path %q: only letters, digits, dot, dash and underscore may be in a name", path)
		}
	}
	return nil
}

// editNode is a folder in which something changes.
type editNode struct {
	files map[string]*Edit
	dirs  map[string]*editNode
}

func newEditNode() *editNode {
	return &editNode{files: map[string]*Edit{}, dirs: map[string]*editNode{}}
}

// planEdits sorts edits into folders and refuses those that contradict each other.
func planEdits(edits []Edit) (*editNode, error) {
	root := newEditNode()
	for i := range edits {
		e := &edits[i]
		if err := ValidPath(e.Path); err != nil {
			return nil, err
		}
		node := root
		names := strings.Split(e.Path, "/")
		last := len(names) - 1
		for _, name := range names[:last] {
			if node.files[name] != nil {
				return nil, invalid("path %q runs through a file that is edited too", e.Path)
			}
			if node.dirs[name] == nil {
				node.dirs[name] = newEditNode()
			}
			node = node.dirs[name]
		}
		if node.files[names[last]] != nil || node.dirs[names[last]] != nil {
			return nil, invalid("path %q is edited twice", e.Path)
		}
		node.files[names[last]] = e
	}
	return root, nil
}

// applyEdits changes the folder whose tree is base (zero for none) as node says and returns its new tree, zero if
// nothing is left in it.
func (b *batch) applyEdits(node *editNode, base Hash, dir string) (Hash, error) {
	var old []Entry
	if !base.IsZero() {
		var err error
		if old, err = b.repo.tree(base); err != nil {
			return Hash{}, err
		}
	}
	kept := make([]Entry, 0, len(old)+len(node.files)+len(node.dirs))
	found := map[string]Hash{}
	for _, e := range old {
		file, sub := node.files[e.Name], node.dirs[e.Name]
		switch {
		case file == nil && sub == nil:
			kept = append(kept, e)
		case file != nil && e.Dir:
			return Hash{}, invalid("path %q is a folder", dir+e.Name)
		case sub != nil && !e.Dir:
			return Hash{}, invalid("path %q is a file", dir+e.Name)
		default:
			found[e.Name] = e.Hash
		}
	}
	kept, err := b.applyChanges(kept, node, found, dir)
	if err != nil || len(kept) == 0 {
		return Hash{}, err
	}
	sort.Slice(kept, func(i, j int) bool { return less(kept[i], kept[j]) })
	h, err := b.add(plumbing.TreeObject, encodeTree(kept), true)
	if err == nil {
		b.repo.trees.put(h, kept, len(kept)+1)
	}
	return h, err
}

// applyChanges adds to entries what node writes; found holds what was there before.
func (b *batch) applyChanges(entries []Entry, node *editNode, found map[string]Hash, dir string) ([]Entry, error) {
	for name, e := range node.files {
		_, existed := found[name]
		if e.Delete && !existed {
			return nil, notExist("remove %s", e.Path)
		}
		if e.Delete {
			continue
		}
		// What is sealed or signed does not compress; trying would only cost time.
		h, err := b.add(plumbing.BlobObject, e.Data, !strings.HasSuffix(name, ".pgp") && !strings.HasSuffix(name, ".sig"))
		if err != nil {
			return nil, err
		}
		entries = append(entries, Entry{Name: name, Hash: h})
	}
	for name, sub := range node.dirs {
		h, err := b.applyEdits(sub, found[name], dir+name+"/")
		if err != nil {
			return nil, err
		}
		if !h.IsZero() {
			entries = append(entries, Entry{Name: name, Dir: true, Hash: h})
		}
	}
	return entries, nil
}
