// This file follows Include and IncludeOptional: files, folders and patterns.

package apacheconf

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// include reads the files that a directive names.
func (r *reader) include(l line, name string, optional bool) {
	path := r.absolute(name)
	if !isPattern(path) {
		r.load(l, path, optional)
		return
	}
	matches, err := r.files.Glob(path)
	if err != nil {
		r.fault(l, "list %s: %v", path, err)
		return
	}
	matches = visible(path, matches)
	if len(matches) == 0 && !optional {
		r.fault(l, "no file matches %s", path)
	}
	for _, match := range matches {
		r.load(l, match, optional)
	}
}

func isPattern(path string) bool { return strings.ContainsAny(path, "*?[") }

// quote makes a path a pattern for itself alone.
var quote = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// visible leaves out the paths where a wildcard stands for a leading dot, and sorts the others folder by folder.
func visible(pattern string, paths []string) []string {
	parts := strings.Split(pattern, "/")
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		for i, name := range strings.Split(path, "/") {
			if i < len(parts) && strings.HasPrefix(name, ".") && !strings.HasPrefix(parts[i], ".") {
				return true
			}
		}
		return false
	})
	slices.SortFunc(paths, func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
	return paths
}

// load reads one file, or all files below a folder.
func (r *reader) load(l line, path string, optional bool) {
	if len(r.stack) >= includeDepth || slices.Contains(r.stack, path) {
		r.fault(l, "%s is included by itself, or includes are more than %d deep", path, includeDepth)
		return
	}
	data, err := r.files.ReadFile(path)
	if !r.spend(l, len(data)) || !r.enter(l) {
		return
	}
	defer r.leave()
	r.stack = append(r.stack, path)
	defer func() { r.stack = r.stack[:len(r.stack)-1] }()
	if err == nil {
		r.read(&text{lines: lines(path, data)}, "")
		return
	}
	children, isFolder := r.folder(path)
	switch {
	case isFolder:
		for _, child := range children {
			r.load(l, child, optional)
		}
	case optional && errors.Is(err, fs.ErrNotExist):
	default:
		r.fault(l, "include a file: %v", err)
	}
}

// folder lists what lies in a folder, as an Include of it reads it: all, in the order of names.
func (r *reader) folder(path string) (children []string, isFolder bool) {
	entries, err := r.files.ReadDir(path)
	for _, e := range entries {
		children = append(children, filepath.Join(path, e.Name()))
	}
	slices.Sort(children)
	return children, err == nil
}
