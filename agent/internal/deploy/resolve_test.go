package deploy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/certferry/certferry/agent/internal/deploy"
)

// tree makes folders (name/), links (name -> target) and files below a new folder.
func tree(t *testing.T, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		name, target, link := strings.Cut(e, " -> ")
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case link:
			err = errors.Join(err, os.Symlink(strings.ReplaceAll(target, "$DIR", dir), path))
		case strings.HasSuffix(name, "/"):
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		default:
			err = errors.Join(err, os.WriteFile(path, []byte(name), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestResolve follows links, and nobody who is not root leads it.
func TestResolve(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		tree  []string
		spoil func(dir string) error
		path  string
		want  string // relative to the folder
		err   string
		root  bool // only root can make this
	}{
		{name: "file", tree: []string{"ssl/a.pem"}, path: "ssl/a.pem", want: "ssl/a.pem"},
		{name: "new file", tree: []string{"ssl/"}, path: "ssl/a.pem", want: "ssl/a.pem"},
		{name: "link", tree: []string{"ssl/a.pem -> ../data/b.pem", "data/b.pem"}, path: "ssl/a.pem", want: "data/b.pem"},
		{name: "absolute link", tree: []string{"ssl/a.pem -> $DIR/data/b.pem", "data/b.pem"}, path: "ssl/a.pem", want: "data/b.pem"},
		{name: "chain of links", tree: []string{"a -> b", "b -> c", "c -> d.pem", "d.pem"}, path: "a", want: "d.pem"},
		{name: "linked folder", tree: []string{"ssl -> data/./x/..", "data/x/", "data/a.pem"}, path: "ssl/a.pem", want: "data/a.pem"},
		{name: "link to a new file", tree: []string{"ssl/a.pem -> ../data/b.pem", "data/"}, path: "ssl/a.pem", want: "data/b.pem"},
		{name: "group of root may write", tree: []string{"ssl/"}, path: "ssl/a.pem", want: "ssl/a.pem", spoil: func(dir string) error {
			return os.Chmod(filepath.Join(dir, "ssl"), 0o775)
		}},

		{name: "no folder", path: "ssl/a.pem", err: "no such file or directory"},
		{name: "folder", tree: []string{"ssl/"}, path: "ssl", err: "not a regular file"},
		{name: "file as folder", tree: []string{"ssl"}, path: "ssl/a.pem", err: "not a regular file"},
		{name: "link to a folder", tree: []string{"a -> ssl", "ssl/"}, path: "a", err: "not a regular file"},
		{name: "link to the root folder", tree: []string{"a -> /"}, path: "a", err: "is a folder"},
		{name: "loop", tree: []string{"a -> b", "b -> a"}, path: "a", err: "too many levels"},
		{name: "pipe", path: "a", err: "not a regular file", spoil: func(dir string) error {
			return syscall.Mkfifo(filepath.Join(dir, "a"), 0o600)
		}},
		{name: "world-writable folder", tree: []string{"ssl/a.pem"}, path: "ssl/a.pem", err: "may be written by everybody", spoil: func(dir string) error {
			return os.Chmod(filepath.Join(dir, "ssl"), 0o777)
		}},
		{name: "sticky folder", tree: []string{"tmp/"}, path: "tmp/a.pem", err: "may be written by everybody", spoil: func(dir string) error {
			return os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky)
		}},
		{name: "below a sticky folder", tree: []string{"tmp/ssl/"}, path: "tmp/ssl/a.pem", want: "tmp/ssl/a.pem", spoil: func(dir string) error {
			return os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky)
		}},
		{name: "world-writable folder on the way", tree: []string{"open/ssl/a.pem"}, path: "open/ssl/a.pem", err: "may be written by everybody", spoil: func(dir string) error {
			return os.Chmod(filepath.Join(dir, "open"), 0o777)
		}},
		{name: "folder of a group", tree: []string{"ssl/a.pem"}, path: "ssl/a.pem", err: "may be written by its group", root: true, spoil: func(dir string) error {
			return errors.Join(os.Chown(filepath.Join(dir, "ssl"), 0, 12345), os.Chmod(filepath.Join(dir, "ssl"), 0o775))
		}},
		{name: "somebody's folder", tree: []string{"ssl/a.pem"}, path: "ssl/a.pem", err: "belongs to user 12345", root: true, spoil: func(dir string) error {
			return os.Chown(filepath.Join(dir, "ssl"), 12345, 0)
		}},
		{name: "somebody's link", tree: []string{"a -> b", "b"}, path: "a", err: "belongs to user 12345", root: true, spoil: func(dir string) error {
			return os.Lchown(filepath.Join(dir, "a"), 12345, 0)
		}},
		{name: "link to somebody's file", tree: []string{"a -> b", "b"}, path: "a", err: "belongs to user 12345", root: true, spoil: func(dir string) error {
			return os.Chown(filepath.Join(dir, "b"), 12345, 0)
		}},
		{name: "link to a service's file", tree: []string{"a -> b", "b"}, path: "a", want: "b", root: true, spoil: func(dir string) error {
			return os.Chown(filepath.Join(dir, "b"), 33, 0)
		}},
		{name: "a service's file", tree: []string{"a"}, path: "a", want: "a", root: true, spoil: func(dir string) error {
			return os.Chown(filepath.Join(dir, "a"), 12345, 0)
		}},

		{
			name: "certbot", tree: []string{"ssl/a.pem -> ../le/live/x/fullchain.pem", "le/live/x/fullchain.pem -> ../../archive/x/1.pem", "le/archive/x/1.pem", "le/renewal/x.conf"},
			path: "ssl/a.pem", err: "le/archive/x/1.pem is managed by certbot",
		},
		{name: "acme.sh", tree: []string{"acme/acme.sh", "acme/account.conf", "acme/x/fullchain.cer"}, path: "acme/x/fullchain.cer", err: "managed by acme.sh"},
		{name: "acme.sh's usual home", tree: []string{".acme.sh/x/fullchain.cer"}, path: ".acme.sh/x/fullchain.cer", err: "managed by acme.sh"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.root && os.Geteuid() != 0 {
				t.Skip("SKIP: only root can give files away")
			}
			dir := tree(t, tt.tree...)
			if tt.spoil != nil {
				if err := tt.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			got, err := deploy.Resolve(filepath.Join(dir, tt.path), 33)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != filepath.Join(dir, tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestManagedBy knows the usual homes of other tools.
func TestManagedBy(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/etc/letsencrypt/live/x/privkey.pem": "certbot",
		"/etc/letsencrypt.pem":                "",
		"/root/.acme.sh/x/x.key":              "acme.sh",
		"/etc/nginx/ssl/x.key":                "",
	} {
		if got := deploy.ManagedBy(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
