// This file holds the command that checks a working tree of main without the hub, and reads such a tree.

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/certferry/certferry/gitstore/manifest"
)

// treeDirs are the folders of main that people write.
var treeDirs = []string{"certificates", "issuers", "servers"}

// maxTreeFile bounds a file of a working tree, in bytes; the hub takes no larger document.
const maxTreeFile = 1 << 20

func lintCommand() *cli.Command {
	return &cli.Command{
		Name: "lint", Usage: "check the YAML of a working tree, without the hub",
		ArgsUsage: "[DIR]",
		Description: "Checks certificates/, issuers/ and servers/ below DIR (the current folder by default) as the hub would, as far\n" +
			"as the files tell: keys and values, names, references to issuers and servers, and targets that are taken twice.\n" +
			"Faults are printed as path:line:column: what is wrong. Exit code 0: none; 1: some; 3: there is nothing to check.",
		Action: lint,
	}
}

// lintFault is a fault as --output json prints it.
type lintFault struct {
	Path    string `json:"path"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
}

func lint(c *cli.Context) error {
	dir, err := treeArgument(c)
	if err != nil {
		return err
	}
	tree, err := readTree(dir)
	if err != nil {
		return err
	}
	documents := tree.documents()
	if len(documents) == 0 && len(tree.faults) == 0 {
		return errors.Join(errNothingToDo, fmt.Errorf("check %s: there are no files in certificates/, issuers/ and servers/", dir))
	}
	faults := append(tree.faults, manifest.Lint(documents)...)
	out := make([]lintFault, 0, len(faults))
	for _, f := range faults {
		out = append(out, lintFault{Path: f.Path, Line: f.Line, Column: f.Column, Key: f.Key, Message: f.Message})
	}
	err = render(c, out, func(w io.Writer) {
		for _, f := range faults {
			f.Path = filepath.Join(dir, filepath.FromSlash(f.Path))
			_, _ = fmt.Fprintln(w, f)
		}
	})
	if err == nil && len(faults) > 0 {
		err = fmt.Errorf("check %s: %s", dir, count(len(faults), "fault"))
	}
	return err
}

// count writes 1 file or 2 files.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// treeArgument is the folder that a command is about.
func treeArgument(c *cli.Context) (string, error) {
	switch c.NArg() {
	case 0:
		return ".", nil
	case 1:
		return c.Args().First(), nil
	default:
		return "", usageError{errors.New("read arguments: give one folder at most, after the flags")}
	}
}

// workTree is what people wrote: files by their path on main, and what cannot be one of them.
type workTree struct {
	files  map[string][]byte
	faults []manifest.FileFault
}

// documents are the files but README.md.
func (t *workTree) documents() map[string][]byte {
	all := map[string][]byte{}
	for path, data := range t.files {
		if strings.Contains(path, "/") {
			all[path] = data
		}
	}
	return all
}

// readTree reads the files of main that people write from a folder. Folders that are absent are empty.
func readTree(dir string) (*workTree, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("read working tree: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("read working tree: %s is not a folder", dir)
	}
	t := &workTree{files: map[string][]byte{}}
	if err := t.add(dir, "README.md"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, sub := range treeDirs {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read working tree: %w", err)
		}
		for _, e := range entries {
			if leftOver(e.Name()) {
				continue
			}
			if err := t.add(dir, sub+"/"+e.Name()); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// leftOver knows the names of copies that editors leave.
func leftOver(name string) bool {
	return strings.HasSuffix(name, "~") || strings.HasPrefix(name, ".") && (strings.HasSuffix(name, ".swp") || strings.HasSuffix(name, ".swo")) ||
		strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") || strings.HasPrefix(name, ".#")
}

// add reads one file, which must be a plain one: of links, Git would push the link.
func (t *workTree) add(dir, path string) error {
	fault := func(what string) error {
		t.faults = append(t.faults, manifest.FileFault{Path: path, Fault: manifest.Fault{Message: what}})
		return nil
	}
	full := filepath.Join(dir, filepath.FromSlash(path))
	info, err := os.Lstat(full)
	if err != nil {
		return fmt.Errorf("read working tree: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return fault("is not a plain file; the hub takes no links and no folders here")
	case info.Size() > maxTreeFile:
		return fault("is larger than 1 MiB")
	}
	data, err := os.ReadFile(full) //nolint:gosec // the folder is the caller's
	if err != nil {
		return fmt.Errorf("read working tree: %w", err)
	}
	if !utf8.Valid(data) {
		return fault("is not UTF-8")
	}
	t.files[path] = data
	return nil
}
