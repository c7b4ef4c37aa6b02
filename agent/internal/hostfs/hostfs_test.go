package hostfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/agent/internal/hostfs"
)

// tree makes files (content), folders ("/" at the end of the name) and symbolic links ("-> target").
func tree(t *testing.T, dir string, entries map[string]string) {
	t.Helper()
	for name, content := range entries {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = errors.Join(err, os.Symlink(target, path))
		} else if strings.HasSuffix(name, "/") {
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(content), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadFile is run on this machine's root folder and on another one.
func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, map[string]string{"plain": "hello", "empty": "", "link": "-> plain", "loop": "-> loop", "folder/": ""})
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"limit": 16 << 20, "huge": 16<<20 + 1} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), nil, 0o600), os.Truncate(filepath.Join(dir, name), size)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, want, err string }{
		{name: "plain", want: "hello"},
		{name: "empty"},
		{name: "link", want: "hello"},
		{name: "folder/../plain", want: "hello"},
		{name: "limit", want: strings.Repeat("\x00", 16<<20)},
		{name: "huge", err: "more than"},
		{name: "fifo", err: "not a regular file"},
		{name: "folder", err: "not a regular file"},
		{name: "loop", err: "too many levels"},
		{name: "none", err: "no such file"},
		{name: "plain/x", err: "not a directory"},
	}
	for root, fsys := range map[string]*hostfs.FS{dir: hostfs.New(""), "": hostfs.New(dir)} {
		for _, tt := range tests {
			path := root + "/" + tt.name
			data, err := fsys.ReadFile(path)
			if tt.err == "" && (err != nil || string(data) != tt.want) {
				t.Errorf("%s: %d bytes, %v", path, len(data), err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), path)) {
				t.Errorf("%s: error %v, want %q", path, err, tt.err)
			}
		}
		if _, err := fsys.ReadFile("plain"); err == nil {
			t.Error("a relative path is accepted")
		}
		if _, err := fsys.Stat(root + "/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat: %v", err)
		}
		if info, err := fsys.Stat(root + "/link"); err != nil || info.Size() != 5 {
			t.Errorf("stat: %v, %v", info, err)
		}
	}
}

// TestGrowing: files of /proc have the size 0 and a content all the same; a device is never opened.
func TestGrowing(t *testing.T) {
	t.Parallel()
	fsys := hostfs.New("")
	if data, err := fsys.ReadFile("/proc/self/status"); err != nil || !strings.Contains(string(data), "Uid:") {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := fsys.ReadFile("/dev/null"); err == nil {
		t.Error("a device is read")
	}
}

// TestBelow: below another root folder, no link leads out of it; the walk by hand finds what the kernel finds.
func TestBelow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	tree(t, dir, map[string]string{
		"etc/secret":          "of the host",
		"root/etc/secret":     "of the container",
		"root/etc/absolute":   "-> /etc/secret",
		"root/etc/relative":   "-> ../../../../etc/secret",
		"root/etc/folder":     "-> /srv/deep/er",
		"root/srv/deep/er/x":  "deep",
		"root/srv/up":         "-> deep/er/..",
		"root/srv/deep/y":     "y",
		"root/srv/top":        "-> /",
		"root/srv/chain":      "-> chain2",
		"root/srv/chain2":     "-> /srv/top/etc/absolute",
		"root/srv/loop":       "-> /srv/loop",
		"root/srv/dangling":   "-> /none",
		"root/etc/through":    "-> /etc/secret/x",
		"root/proc/self/root": "-> /",
	})
	fsys := hostfs.New(root)
	tests := []struct{ path, want string }{
		{"/etc/secret", "of the container"},
		{"/../etc/secret", "of the container"},
		{"/etc/absolute", "of the container"},
		{"/etc/relative", "of the container"},
		{"/srv/chain", "of the container"},
		{"/srv/top/srv/top/etc/secret", "of the container"},
		{"/etc/folder/x", "deep"},
		{"/etc/folder/../y", "y"},
		{"/srv/up/y", "y"},
		{"/proc/self/root/etc/secret", "of the container"},
		{"//srv/./deep//er/x", "deep"},
	}
	for _, tt := range tests {
		data, err := fsys.ReadFile(tt.path)
		if err != nil || string(data) != tt.want {
			t.Errorf("%s: %q, %v", tt.path, data, err)
		}
		byHand, err := hostfs.Walk(root, tt.path)
		kernel, err2 := hostfs.Find(root, tt.path)
		if err := errors.Join(err, err2); err != nil || byHand != kernel {
			t.Errorf("%s: by hand %d, by the kernel %d, %v", tt.path, byHand, kernel, err)
		}
	}
	for _, path := range []string{"/srv/loop", "/srv/dangling", "/none", "/etc/secret/x", "/etc/through", "/etc/secret/../secret"} {
		_, err := hostfs.Walk(root, path)
		_, err2 := hostfs.Find(root, path)
		if err == nil || !errors.Is(err, err2) {
			t.Errorf("%s: by hand %v, by the kernel %v", path, err, err2)
		}
	}
	for _, path := range []string{"/", "/srv/top", "/.."} {
		got, err := hostfs.Walk(root, path)
		if want, _ := hostfs.Find(root, "/"); got != want || err != nil {
			t.Errorf("%s: %d, %v", path, got, err)
		}
	}
	if _, err := hostfs.New(filepath.Join(dir, "none")).ReadFile("/x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing root folder: %v", err)
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, map[string]string{
		"a/1.conf": "", "a/2.conf": "", "a/.hidden.conf": "", "a/3.txt": "", "b/1.conf": "", "b/deep/9.conf": "", "c": "file",
		"a/[x].conf": "", "b/dangling.conf": "-> none", "d": "-> a",
	})
	tests := []struct {
		pattern string
		want    []string
	}{
		{"/a/*.conf", []string{"/a/1.conf", "/a/2.conf", "/a/[x].conf"}},
		{"/*/1.conf", []string{"/a/1.conf", "/b/1.conf", "/d/1.conf"}},
		{"/*/*/*.conf", []string{"/b/deep/9.conf"}},
		{"/a/.*.conf", []string{"/a/.hidden.conf"}},
		{"/a/[!1].conf", []string{"/a/2.conf"}},
		{"/a/[12].conf", []string{"/a/1.conf", "/a/2.conf"}},
		{`/a/\[x\].conf`, []string{"/a/[x].conf"}},
		{"/a/?.txt", []string{"/a/3.txt"}},
		{"/b/d*.conf", []string{"/b/dangling.conf"}},
		{"/a/1.conf", []string{"/a/1.conf"}},
		{"/", []string{"/"}},
		{"/d/../c", []string{"/d/../c"}},
		{"/a/none.conf", nil},
		{"/none/*.conf", nil},
		{"/c/*.conf", nil},
	}
	for _, tt := range tests {
		got, err := hostfs.New(dir).Glob(tt.pattern)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", tt.pattern, err, diff)
		}
	}
	for _, bad := range []string{"a/*", "/a/[", "/["} {
		if _, err := hostfs.New(dir).Glob(bad); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, map[string]string{"file": "0123456789"})
	many := filepath.Join(dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 10_001 {
		if err := os.Symlink("x", filepath.Join(many, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	fsys := hostfs.New(dir)
	if _, err := fsys.ReadDir("/many"); err == nil || !strings.Contains(err.Error(), "more than 10000") {
		t.Errorf("10,001 entries: %v", err)
	}
	if _, err := fsys.Glob("/many/*"); err == nil {
		t.Error("10,001 matches are accepted")
	}
	if entries, err := fsys.ReadDir("/"); err != nil || len(entries) != 2 || entries[0].Name() != "file" {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := fsys.ReadDir("/file"); err == nil {
		t.Error("a file is listed")
	}
	fsys.Spend(19_999, 256<<20-10)
	if _, err := fsys.ReadFile("/file"); err != nil {
		t.Errorf("the last file: %v", err)
	}
	if _, err := fsys.ReadFile("/file"); !errors.Is(err, hostfs.ErrBudget) {
		t.Errorf("a file too many: %v", err)
	}
	fsys.Spend(0, 256<<20-9)
	if _, err := fsys.ReadFile("/file"); !errors.Is(err, hostfs.ErrBudget) {
		t.Errorf("a byte too many: %v", err)
	}
}
