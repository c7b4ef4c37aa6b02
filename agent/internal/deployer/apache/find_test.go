package apache_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/apache"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
)

// TestFindRunning finds a real httpd with what it serves.
func TestFindRunning(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	s := deployertest.StartApache(t, ca.Issue(t, deployertest.Name))
	found, err := apache.NewFinder(apache.Config{Run: deployer.RunEnv, Root: t.TempDir()}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found, func(i agent.Instance) bool { return i.PID == s.PID() })
	if i < 0 {
		t.Fatalf("httpd %d is not among %v", s.PID(), found)
	}
	got := found[i]
	if got.Version == "" || !strings.HasPrefix(got.Version, "2.4.") {
		t.Errorf("version %q", got.Version)
	}
	got.Version = ""
	want := agent.Instance{
		Software: "apache", PID: s.PID(), Binary: s.Binary, Prefix: s.Dir, Config: s.Config,
		Sites: []agent.Site{{
			Names: []string{"localhost"}, Listeners: []agent.Listener{{Network: "tcp", Address: s.Address}},
			Certificate: s.Certificate, Key: s.Key, Format: agent.FormatPEM, File: s.Config, Line: strings.Count(before(t, s.Config, "SSLCertificateFile"), "\n") + 1,
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// before is what stands in a file before text.
func before(t *testing.T, path, text string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(data), text)
	return head
}

// write writes a file below dir.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

const host = "SSLEngine on\nSSLCertificateFile %s.crt\nSSLCertificateKeyFile %[1]s.key\n"

// TestFindConfigured finds configurations that nothing runs, and the variables that Debian's start script would set.
func TestFindConfigured(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, "usr/sbin/apache2", "")
	write(t, root, "etc/apache2/envvars", "# variables\nunset HOME\nexport APACHE_RUN_DIR=/var/run/apache2$SUFFIX\nexport CERT=\"debian\"\nexport LANG\nif x; then\n")
	write(t, root, "etc/apache2/apache2.conf", fmt.Sprintf(host, "${CERT}"))
	write(t, root, "www/server/apache/conf/httpd.conf", "ServerRoot /www/server/apache\nInclude conf/*.vhost\n")
	write(t, root, "www/server/apache/conf/site.vhost", fmt.Sprintf(host, "/www/cert/site"))
	proc := t.TempDir()
	run := func(context.Context, string, []string, []string) (string, error) {
		t.Error("a program is run for a configuration that nothing runs")
		return "", nil
	}
	found, err := apache.NewFinder(apache.Config{Run: run, Root: root, Proc: proc}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	site := func(file string, line int, base string) []agent.Site {
		return []agent.Site{{Certificate: base + ".crt", Key: base + ".key", Format: agent.FormatPEM, File: file, Line: line}}
	}
	want := []agent.Instance{
		{
			Software: "apache", Root: root, Binary: "/usr/sbin/apache2", Prefix: "/etc/apache2", Config: "/etc/apache2/apache2.conf",
			Sites: site("/etc/apache2/apache2.conf", 2, "/etc/apache2/debian"),
		},
		{
			Software: "apache", Root: root, Prefix: "/www/server/apache", Config: "/www/server/apache/conf/httpd.conf",
			Sites: site("/www/server/apache/conf/site.vhost", 2, "/www/cert/site"),
		},
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

// proc is a made-up /proc.
type proc struct{ dir string }

func newProc(t *testing.T) proc {
	t.Helper()
	p := proc{t.TempDir()}
	p.link(t, "self/ns/mnt", "mnt:[1]")
	return p
}

func (p proc) link(t *testing.T, name, target string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

type fakeParent struct{ args, exe, root, mnt, uid, env, cwd string }

// add makes a process that runs httpd, if nothing else is said.
func (p proc) add(t *testing.T, pid, ppid int, f fakeParent) {
	t.Helper()
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&f.args, "/usr/sbin/httpd -D FOREGROUND")
	def(&f.exe, "/usr/sbin/httpd")
	def(&f.root, "/")
	def(&f.mnt, "mnt:[1]")
	def(&f.cwd, "/")
	def(&f.uid, fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", os.Geteuid()))
	dir := strconv.Itoa(pid) + "/"
	name := filepath.Base(strings.TrimSuffix(f.exe, " (deleted)"))
	write(t, p.dir, dir+"stat", fmt.Sprintf("%d (%s) S %d %[1]d %[1]d 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1", pid, name, ppid))
	write(t, p.dir, dir+"cmdline", strings.ReplaceAll(f.args, " ", "\x00")+"\x00")
	write(t, p.dir, dir+"environ", f.env+"\x00")
	write(t, p.dir, dir+"status", "Name:\thttpd\nUid:\t"+f.uid+"\n")
	p.link(t, dir+"exe", f.exe)
	p.link(t, dir+"root", f.root)
	p.link(t, dir+"cwd", f.cwd)
	p.link(t, dir+"ns/mnt", f.mnt)
}

// about is what a made-up binary says of itself.
func about(config string, argv []string) (string, bool) {
	switch {
	case len(argv) == 2 && argv[1] == "-V": // a real one without an MPM says this and ends with an error
		return "Server version: Apache/2.4.6 (CentOS)\n -D HTTPD_ROOT=\"/etc/httpd\"\n -D SERVER_CONFIG_FILE=\"" + config + "\"", true
	case len(argv) == 2 && argv[1] == "-l":
		return "Compiled in modules:\n  core.c\n  mod_so.c\n", true
	}
	return "", false
}

// TestParentChecks shows which processes the agent believes to be an httpd that it may ask, and what it asks.
func TestParentChecks(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "httpd.conf")
	write(t, filepath.Dir(config), "httpd.conf", "# nothing\n")
	tests := []struct {
		name     string
		parent   fakeParent
		selector agent.Selector
		argv     string // what is run, after the binary
		want     string // part of the error
	}{
		{name: "plain", argv: "-D FOREGROUND"},
		{
			name: "arguments", parent: fakeParent{args: "httpd -k start -DA -D B -d /srv -f " + config + " -X -e debug -Elog -T -C c1 -c c2"},
			argv: "-D A -D B -d /srv -f " + config + " -T -C c1 -c c2",
		},
		{
			name: "relative", parent: fakeParent{args: "httpd -d srv -f x.conf", cwd: filepath.Dir(filepath.Dir(config))},
			selector: agent.Selector{Prefix: filepath.Join(filepath.Dir(filepath.Dir(config)), "srv")}, argv: "-d srv -f x.conf", want: "include a file",
		},
		{name: "built-in paths", selector: agent.Selector{Prefix: "/etc/httpd", Config: config}, argv: "-D FOREGROUND"},
		{name: "other config", selector: agent.Selector{Config: "/opt/httpd.conf"}, want: "start httpd"},
		{name: "replaced", parent: fakeParent{exe: "/usr/sbin/httpd (deleted)"}, selector: agent.Selector{Binary: "/usr/sbin/httpd"}, argv: "-D FOREGROUND"},
		{name: "liar", parent: fakeParent{exe: "/usr/bin/su"}, want: "start httpd"},
		{name: "named otherwise", parent: fakeParent{exe: "/opt/web"}, selector: agent.Selector{Binary: "/opt/web"}, argv: "-D FOREGROUND"},
		{name: "a test", parent: fakeParent{args: "httpd -t"}, want: "start httpd"},
		{name: "a dump", parent: fakeParent{args: "httpd -D DUMP_VHOSTS"}, want: "start httpd"},
		{name: "a stop", parent: fakeParent{args: "httpd -k stop"}, want: "start httpd"},
		{name: "somebody's", parent: fakeParent{uid: "12345\t12345\t12345\t12345"}, want: "does not belong to root"},
		{name: "container", parent: fakeParent{mnt: "mnt:[2]"}, want: "container"},
		{name: "chroot", parent: fakeParent{root: "/srv/jail"}, want: "chroot"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProc(t)
			tt.parent.env = "A=b"
			p.add(t, 41, 1, tt.parent)
			p.add(t, 42, 41, tt.parent) // a child
			var ran []string
			run := func(_ context.Context, _ string, env, argv []string) (string, error) {
				if says, ok := about(config, argv); ok {
					return says, nil
				}
				if !slices.Equal(env, []string{"A=b"}) {
					t.Errorf("environment %q", env)
				}
				ran = argv
				return "Server certificates:\nSyntax OK", nil
			}
			err := apache.New(apache.Config{Proc: p.dir, Run: run}).Test(t.Context(), agent.Target{Instance: tt.selector})
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) || tt.want == "" && err != nil {
				t.Fatalf("error %v after running %q, want %q", err, ran, tt.want)
			}
			if tt.argv == "" {
				if ran != nil {
					t.Errorf("ran %q", ran)
				}
				return
			}
			if got, want := strings.Join(ran, " "), filepath.Join(p.dir, "41/exe")+" "+tt.argv+" -t -D DUMP_CERTS"; got != want {
				t.Errorf("ran %q, want %q", got, want)
			}
		})
	}
}

// TestMissedCertificate: a certificate that httpd lists and the parser did not see fails the test.
func TestMissedCertificate(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "httpd.conf")
	write(t, filepath.Dir(config), "httpd.conf", "SSLCertificateFile /seen.pem\n")
	p := newProc(t)
	p.add(t, 41, 1, fakeParent{})
	for dump, want := range map[string]string{
		"Server certificates:\n  /seen.pem\nSyntax OK":                "",
		"…ut.pem\n  /seen.pem\nSyntax OK":                             "",
		"Server certificates:\n  /seen.pem\n  /missed.pem\nSyntax OK": "/missed.pem",
	} {
		d := apache.New(apache.Config{Proc: p.dir, Run: func(_ context.Context, _ string, _, argv []string) (string, error) {
			if says, ok := about(config, argv); ok {
				return says, nil
			}
			return dump, nil
		}})
		err := d.Test(t.Context(), agent.Target{})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("dump %q: error %v, want %q", dump, err, want)
		}
	}
}

// TestFindForeign reads the configuration of a container through its root folder, and runs nothing of it.
func TestFindForeign(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	jail := t.TempDir()
	write(t, jail, "usr/local/apache2/conf/httpd.conf", fmt.Sprintf(host, "${CERT}"))
	p.add(t, 41, 1, fakeParent{exe: "/usr/local/apache2/bin/httpd", mnt: "mnt:[2]", root: jail, env: "CERT=conf/x", uid: "12345\t0\t0\t0"})
	p.add(t, 51, 1, fakeParent{exe: "/srv/x/bin/httpd", args: "httpd -d /srv/x", uid: "12345\t12345\t12345\t12345"})
	run := func(context.Context, string, []string, []string) (string, error) {
		t.Error("a program of somebody else is run")
		return "", nil
	}
	found, err := apache.NewFinder(apache.Config{Proc: p.dir, Run: run, Root: t.TempDir()}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || len(found[0].Sites) != 1 || len(found[0].Faults) != 0 {
		t.Fatalf("found %+v", found)
	}
	if got := found[0]; got.Root != filepath.Join(p.dir, "41/root") || got.Sites[0].Certificate != "/usr/local/apache2/conf/x.crt" {
		t.Errorf("found %+v", got)
	}
	if got := found[1]; got.Config != "/srv/x/conf/httpd.conf" || len(got.Faults) != 2 {
		t.Errorf("found %+v", got)
	}
}
