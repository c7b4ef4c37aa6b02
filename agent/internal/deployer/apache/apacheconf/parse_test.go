package apacheconf_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
)

// memory is a Files of a map: absolute paths, and no links.
type memory struct{ fstest.MapFS }

func newMemory(files map[string]string) memory {
	m := memory{make(fstest.MapFS)}
	for path, content := range files {
		m.MapFS[strings.TrimPrefix(path, "/")] = &fstest.MapFile{Data: []byte(content)}
	}
	return m
}

func (m memory) ReadFile(path string) ([]byte, error) {
	return m.MapFS.ReadFile(strings.TrimPrefix(path, "/"))
}

func (m memory) ReadDir(path string) ([]fs.DirEntry, error) {
	return m.MapFS.ReadDir(strings.TrimPrefix(path, "/"))
}

func (m memory) Glob(pattern string) ([]string, error) {
	matches, err := m.MapFS.Glob(strings.TrimPrefix(pattern, "/"))
	for i := range matches {
		matches[i] = "/" + matches[i]
	}
	return matches, err
}

// disk is a Files of this machine.
type disk struct{}

func (disk) ReadFile(path string) ([]byte, error)       { return os.ReadFile(path) }
func (disk) ReadDir(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (disk) Glob(pattern string) ([]string, error)      { return filepath.Glob(pattern) }

// describe writes a configuration as text, one site in a line, without the folder dir.
func describe(c *apacheconf.Configuration, dir string) string {
	var out strings.Builder
	for _, s := range c.Sites {
		var listeners []string
		for _, l := range s.Listeners {
			listeners = append(listeners, l.Network+"/"+l.Address)
		}
		fmt.Fprintf(&out, "%s:%d names=%q listeners=%q\n\tcertificate=%s key=%s", s.File, s.Line, s.Names, listeners, s.Certificate, s.Key)
		if s.Chain != "" {
			fmt.Fprintf(&out, " chain=%s", s.Chain)
		}
		if s.Client {
			out.WriteString(" client")
		}
		out.WriteString("\n")
	}
	tell := func(kind string, all []agent.Fault) {
		for _, f := range all {
			fmt.Fprintf(&out, "%s %s:%d: %s\n", kind, f.File, f.Line, f.Message)
		}
	}
	tell("fault", c.Faults)
	tell("note", c.Notes)
	if dir == "" {
		return out.String()
	}
	return strings.ReplaceAll(out.String(), dir+"/", "")
}

// treeOptions are those under which the tree of testdata is read.
func treeOptions(dir string) apacheconf.Options {
	return apacheconf.Options{
		Config: filepath.Join(dir, "apache2.conf"), ServerRoot: dir, Version: "2.4.71", Defines: []string{"TREE_ON"},
		Environment: []string{"TREE=" + dir, "MODULES=/usr/lib/apache2/modules", "ENV_CERT=" + filepath.Join(dir, "tls/env.crt")},
	}
}

// tree copies the tree of testdata to a temporary folder and lays empty files where it names certificates that
// its conditions ask for.
func tree(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "tree")
	if err := os.CopyFS(dir, os.DirFS("testdata/tree")); err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "tls"), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tls/condition.crt"), []byte("\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func TestTree(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	got := describe(apacheconf.Parse(disk{}, treeOptions(dir)), dir)
	const golden = "testdata/tree.golden"
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}
