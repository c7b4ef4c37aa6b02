package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/nginx"
	"github.com/certferry/certferry/gitstore/bundle"
)

func newDeployer() *nginx.Deployer {
	return nginx.New(nginx.Config{Run: deployer.Run, ReloadBudget: 2 * time.Second})
}

func harness(tb testing.TB, b *bundle.Bundle) *deployertest.Harness {
	tb.Helper()
	s := deployertest.StartNginx(tb, b)
	return &deployertest.Harness{
		Deployer: newDeployer(),
		Server:   s,
		Target: agent.Target{
			Name: "site", Deployer: "nginx", Certificate: s.Certificate, Key: s.Key,
			Instance: agent.Selector{Config: s.Config},
		},
		Break:       func() { s.WriteNginxConfig(tb, "no_such_directive on;") },
		Jam:         func() { s.WriteNginxConfig(tb, "server { listen "+takenAddress(tb)+"; }") },
		KnowsServer: true,
	}
}

// takenAddress returns an address that somebody else listens at: nginx's test passes, its reload fails silently.
func takenAddress(tb testing.TB) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// TestConformance on a real nginx.
func TestConformance(t *testing.T) {
	t.Parallel()
	deployertest.Program(t, "nginx")
	deployertest.Run(t, harness)
}

// TestWhichMaster starts two instances and names one of them in each way that a policy can.
func TestWhichMaster(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	one := deployertest.StartNginx(t, ca.Issue(t, deployertest.Name))
	two := deployertest.StartNginx(t, ca.Issue(t, deployertest.Name))
	two.WriteNginxConfig(t, "no_such_directive on;")

	link := filepath.Join(t.TempDir(), "nginx")
	if err := os.Symlink(one.Binary, link); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "nginx.pid")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "nginx.pid")
	if err := os.WriteFile(wrong, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		target  agent.Selector
		want    string // part of the error, empty for success
		stopped bool
	}{
		{name: "config", target: agent.Selector{Config: one.Config}},
		{name: "prefix", target: agent.Selector{Prefix: one.Dir}},
		{name: "pid file", target: agent.Selector{PIDFile: one.PIDFile}},
		{name: "all", target: agent.Selector{PIDFile: one.PIDFile, Prefix: one.Dir, Config: one.Config, Binary: one.Binary}},
		{name: "binary by link", target: agent.Selector{Config: one.Config, Binary: link}},
		{name: "the other", target: agent.Selector{Config: two.Config}, want: "no_such_directive"},
		{name: "ambiguous", target: agent.Selector{Binary: one.Binary}, want: "which of several servers is meant is not clear"},
		{name: "none", target: agent.Selector{Config: "/nowhere/nginx.conf"}, want: "start nginx", stopped: true},
		{name: "other binary", target: agent.Selector{Config: one.Config, Binary: "/usr/bin/env"}, want: "not the policy's /usr/bin/env", stopped: true},
		{name: "no pid file", target: agent.Selector{PIDFile: "/nowhere/nginx.pid"}, want: "pid file", stopped: true},
		{name: "empty pid file", target: agent.Selector{PIDFile: empty}, want: "does not hold a process id", stopped: true},
		{name: "wrong pid file", target: agent.Selector{PIDFile: wrong}, want: "which is no nginx master", stopped: true},
		{name: "pid file and other config", target: agent.Selector{PIDFile: one.PIDFile, Config: two.Config}, want: "start nginx", stopped: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newDeployer().Test(t.Context(), agent.Target{Instance: tt.target})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if errors.Is(err, agent.ErrNotRunning) != tt.stopped {
				t.Errorf("error %v says not running: %v", err, !tt.stopped)
			}
		})
	}
}

// TestReplacedBinary: after an upgrade removed the binary, the running master is tested by its own code.
func TestReplacedBinary(t *testing.T) {
	t.Parallel()
	installed := deployertest.Program(t, "nginx")
	binary := filepath.Join(t.TempDir(), "nginx")
	if out, err := exec.Command("cp", installed, binary).CombinedOutput(); err != nil {
		t.Fatalf("copy nginx: %v: %s", err, out)
	}
	ca := deployertest.NewCA(t, time.Now())
	s := deployertest.StartNginxBinary(t, binary, ca.Issue(t, deployertest.Name))
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	target := agent.Target{Instance: agent.Selector{Config: s.Config, Binary: binary}}
	d := newDeployer()
	if err := d.Test(t.Context(), target); err != nil {
		t.Error(err)
	}
	if err := d.Reload(t.Context(), target); err != nil {
		t.Error(err)
	}
}

// proc is a made-up /proc.
type proc struct{ dir string }

func newProc(t *testing.T) *proc {
	t.Helper()
	p := &proc{dir: t.TempDir()}
	p.link(t, "self/ns/mnt", "mnt:[1]")
	return p
}

func (p *proc) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (p *proc) link(t *testing.T, name, target string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

type fakeMaster struct{ title, exe, root, mnt, uid string }

func (p *proc) master(t *testing.T, pid int, m fakeMaster) {
	t.Helper()
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&m.title, "nginx: master process /usr/sbin/nginx")
	def(&m.exe, "/usr/sbin/nginx")
	def(&m.root, "/")
	def(&m.mnt, "mnt:[1]")
	def(&m.uid, fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", os.Geteuid()))
	dir := strconv.Itoa(pid) + "/"
	p.write(t, dir+"stat", fmt.Sprintf("%d (ngi) nx) S 1 %[1]d %[1]d 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1", pid))
	p.write(t, dir+"cmdline", m.title+"\x00\x00")
	p.write(t, dir+"status", "Name:\tnginx\nUid:\t"+m.uid+"\n")
	p.link(t, dir+"exe", m.exe)
	p.link(t, dir+"root", m.root)
	p.link(t, dir+"cwd", "/")
	p.link(t, dir+"ns/mnt", m.mnt)
}

// TestMasterChecks shows which processes the agent believes to be an nginx that it may ask.
func TestMasterChecks(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		master fakeMaster
		target agent.Selector
		argv   string // what is run, after the binary
		want   string // part of the error
	}{
		{name: "plain", argv: "-t -q"},
		{
			name: "arguments", master: fakeMaster{title: "nginx: master process nginx -p /srv/a b -c conf/my nginx.conf -e stderr -g daemon on; user www;"},
			argv: "-t -q -p /srv/a b -c conf/my nginx.conf -e stderr -g daemon on; user www;",
		},
		{name: "joined arguments", master: fakeMaster{title: "nginx: master process nginx -qc/etc/x.conf -p/srv"}, argv: "-t -q -p /srv -c /etc/x.conf"},
		{
			name: "relative paths", master: fakeMaster{title: "nginx: master process nginx -p srv -c conf/x.conf"},
			target: agent.Selector{Prefix: "/srv", Config: "/srv/conf/x.conf"}, argv: "-t -q -p srv -c conf/x.conf",
		},
		{name: "built-in paths", target: agent.Selector{Prefix: "/usr/share/nginx", Config: "/etc/nginx/nginx.conf"}, argv: "-t -q"},
		{name: "other built-in path", target: agent.Selector{Config: "/opt/nginx.conf"}, want: "start nginx"},
		{name: "openresty", master: fakeMaster{exe: "/usr/local/openresty/openresty"}, argv: "-t -q"},
		{name: "replaced", master: fakeMaster{exe: "/usr/sbin/nginx (deleted)"}, target: agent.Selector{Binary: "/usr/sbin/nginx"}, argv: "-t -q"},
		{name: "liar", master: fakeMaster{exe: "/usr/bin/su"}, want: "runs /usr/bin/su"},
		{name: "named otherwise", master: fakeMaster{exe: "/opt/web"}, target: agent.Selector{Binary: "/opt/web"}, argv: "-t -q"},
		{name: "somebody's", master: fakeMaster{uid: "12345\t12345\t12345\t12345"}, want: "does not belong to root"},
		{name: "set-user-id", master: fakeMaster{uid: "12345\t0\t0\t0"}, want: "does not belong to root"},
		{name: "no ids", master: fakeMaster{uid: "0"}, want: "does not belong to root"},
		{name: "container", master: fakeMaster{mnt: "mnt:[2]"}, want: "container"},
		{name: "chroot", master: fakeMaster{root: "/srv/jail"}, want: "chroot"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProc(t)
			p.master(t, 41, tt.master)
			p.write(t, "7/stat", "7 (short) S 1")
			p.write(t, "8/stat", "8 (gone) Z 1 8 8 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1")
			p.write(t, "9/stat", "9 (odd) S x 8 8 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1")
			var ran []string
			d := nginx.New(nginx.Config{Proc: p.dir, Run: func(_ context.Context, dir string, argv []string) (string, error) {
				if len(argv) == 2 && argv[1] == "-V" {
					return "configure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf", nil
				}
				ran = append([]string{dir}, argv...)
				return "", nil
			}})
			err := d.Test(t.Context(), agent.Target{Instance: tt.target})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || ran != nil {
					t.Fatalf("error %v after running %q, want %q", err, ran, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := strings.Join(ran, " "), "/ "+filepath.Join(p.dir, "41/exe")+" "+tt.argv; got != want {
				t.Errorf("ran %q, want %q", got, want)
			}
		})
	}
}

// TestNewbornWorker: for a moment a new worker bears the title of its master. A second master that stays, as after
// an upgrade of the binary, is another matter.
func TestNewbornWorker(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.master(t, 41, fakeMaster{})
	p.master(t, 42, fakeMaster{})
	p.write(t, "42/stat", "42 (nginx) S 41 42 42 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1")
	d := nginx.New(nginx.Config{Proc: p.dir, Run: func(context.Context, string, []string) (string, error) { return "", nil }})
	if err := d.Test(t.Context(), agent.Target{}); !errors.Is(err, agent.ErrAmbiguous) || !strings.Contains(err.Error(), "[41 42]") {
		t.Errorf("two masters: %v", err)
	}
	timer := time.AfterFunc(50*time.Millisecond, func() { p.write(t, "42/cmdline", "nginx: worker process\x00") })
	defer timer.Stop()
	if err := d.Test(t.Context(), agent.Target{}); err != nil {
		t.Errorf("a newborn worker: %v", err)
	}
}

// TestUnreadableProc: a process that cannot be looked at is not worked on.
func TestUnreadableProc(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	run := func(context.Context, string, []string) (string, error) { return "", boom }
	d := nginx.New(nginx.Config{Proc: filepath.Join(t.TempDir(), "none"), Run: run})
	if err := d.Test(t.Context(), agent.Target{}); err == nil {
		t.Error("a missing /proc is accepted")
	}
	for _, missing := range []string{"status", "exe", "root", "ns/mnt", "cwd"} {
		p := newProc(t)
		p.master(t, 41, fakeMaster{})
		if err := os.Remove(filepath.Join(p.dir, "41", missing)); err != nil {
			t.Fatal(err)
		}
		for _, target := range []agent.Selector{{}, {Prefix: "/usr/share/nginx"}} {
			d := nginx.New(nginx.Config{Proc: p.dir, Run: run})
			if err := d.Test(t.Context(), agent.Target{Instance: target}); err == nil {
				t.Errorf("a process without %s is accepted", missing)
			}
		}
	}
	p := newProc(t)
	p.master(t, 41, fakeMaster{})
	d = nginx.New(nginx.Config{Proc: p.dir, Run: run})
	if err := d.Test(t.Context(), agent.Target{Instance: agent.Selector{Prefix: "/srv"}}); !errors.Is(err, boom) {
		t.Errorf("error %v, want that of nginx -V", err)
	}
}

// TestManyCertificates: a master that has thousands of certificates to load gets the time for it.
func TestManyCertificates(t *testing.T) {
	t.Parallel()
	// The signal goes to a real process; its workers are made up.
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	config := filepath.Join(t.TempDir(), "nginx.conf")
	text := "http { ssl_certificate_key k;" + strings.Repeat("server { listen 1 ssl; ssl_certificate c; }", 4000) + "}"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProc(t)
	pid := cmd.Process.Pid
	p.master(t, pid, fakeMaster{title: "nginx: master process nginx -p / -c " + config})
	d := nginx.New(nginx.Config{Proc: p.dir, ReloadBudget: 20 * time.Millisecond})
	timer := time.AfterFunc(500*time.Millisecond, func() {
		p.write(t, "42/cmdline", "nginx: worker process\x00")
		p.write(t, "42/stat", fmt.Sprintf("42 (nginx) S %d 42 42 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 778 1 1", pid))
	})
	defer timer.Stop()
	if err := d.Reload(t.Context(), agent.Target{}); err != nil {
		t.Error(err)
	}
}
