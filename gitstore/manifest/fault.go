// This file collects what is wrong with a YAML document and finds the lines where it stands, for the person who
// wrote it.

package manifest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// faultError is one thing that is wrong.
type faultError struct {
	kind, key string
	// line and column are where the key stands, 0 where there was no file.
	line, column int
	err          error
}

func (e *faultError) Error() string {
	if e.line > 0 {
		return fmt.Sprintf("check %s: line %d: %s: %s", e.kind, e.line, e.key, e.err)
	}
	return fmt.Sprintf("check %s: %s: %s", e.kind, e.key, e.err)
}

func (e *faultError) Unwrap() error { return e.err }

// faults collects what is wrong with one document.
type faults struct {
	kind string
	errs []error
}

func (f *faults) add(key string, err error) {
	if err != nil {
		f.errs = append(f.errs, &faultError{kind: f.kind, key: key, err: err})
	}
}

func (f *faults) addText(key, what string) { f.add(key, errors.New(what)) }

func (f *faults) header(apiVersion, kind, want, name string) {
	if apiVersion != APIVersion {
		f.addText("apiVersion", "must be "+APIVersion)
	}
	if kind != want {
		f.addText("kind", "must be "+want)
	}
	f.add("name", ValidName(name))
}

func (f *faults) join() error { return errors.Join(f.errs...) }

// withLines adds to what Validate found where each of it stands in the file.
func withLines(err error, tree *yaml.Node) error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok || len(tree.Content) == 0 {
		return err
	}
	for _, one := range list.Unwrap() {
		if f := (*faultError)(nil); errors.As(one, &f) {
			f.line, f.column = positionOf(tree.Content[0], f.key)
		}
	}
	return err
}

// positionOf follows a key such as deployments[1] or renewal.key as far as the file has it.
func positionOf(node *yaml.Node, key string) (line, column int) {
	line, column = node.Line, node.Column
	key, _, _ = strings.Cut(key, ",") // two keys at fault together: the first
	for part := range strings.SplitSeq(key, ".") {
		name, index, listed := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		var at *yaml.Node
		for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				line, column, at = node.Content[i].Line, node.Content[i].Column, node.Content[i+1]
			}
		}
		if at == nil {
			return line, column
		}
		if n, err := strconv.Atoi(index); listed && err == nil && n < len(at.Content) {
			at = at.Content[n]
			line, column = at.Line, at.Column
		}
		node = at
	}
	return line, column
}

// Fault is one thing that is wrong with a document.
type Fault struct {
	// Line and Column are where it stands, from 1; 0 where that is not known.
	Line, Column int
	// Key is such as deployments[1].target; empty for what concerns the document as a whole.
	Key     string
	Message string
}

// String is what stands behind the file's name and line in a list for people.
func (f Fault) String() string {
	if f.Key == "" {
		return f.Message
	}
	return f.Key + ": " + f.Message
}

// Faults takes the error of a decoder apart.
func Faults(err error) []Fault {
	if err == nil {
		return nil
	}
	if list, ok := err.(interface{ Unwrap() []error }); ok {
		var all []Fault
		for _, one := range list.Unwrap() {
			all = append(all, Faults(one)...)
		}
		return all
	}
	if f := (*faultError)(nil); errors.As(err, &f) {
		return []Fault{{Line: f.line, Column: f.column, Key: f.key, Message: f.err.Error()}}
	}
	text := err.Error()
	if what, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(what, "decode ") {
		text = rest
	}
	rest, ok := strings.CutPrefix(text, "line ")
	if !ok {
		return []Fault{{Message: text}}
	}
	var all []Fault
	for part := range strings.SplitSeq(rest, "; line ") {
		digits, message, _ := strings.Cut(part, ": ")
		line, err := strconv.Atoi(digits)
		if err != nil {
			return []Fault{{Message: text}}
		}
		all = append(all, Fault{Line: line, Message: message})
	}
	return all
}

// LineOf finds the line of a key such as deployments[1].target in a document, as far as the document has it; 0 where
// the document cannot be read.
func LineOf(data []byte, key string) int {
	line, _ := find(data, key)
	return line
}

func find(data []byte, key string) (line, column int) {
	var tree yaml.Node
	if yaml.Unmarshal(data, &tree) != nil || len(tree.Content) == 0 {
		return 0, 0
	}
	return positionOf(tree.Content[0], key)
}
