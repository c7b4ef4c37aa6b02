package nginx_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/nginx"
)

// byPID finds the instance of a process.
func byPID(instances []agent.Instance, pid int) agent.Instance {
	i := slices.IndexFunc(instances, func(i agent.Instance) bool { return i.PID == pid })
	if i < 0 {
		return agent.Instance{}
	}
	return instances[i]
}

// TestFindRunning finds two real servers, one with a deleted binary, each with its own configuration.
func TestFindRunning(t *testing.T) {
	t.Parallel()
	installed := deployertest.Program(t, "nginx")
	binary := filepath.Join(t.TempDir(), "nginx")
	if out, err := exec.Command("cp", installed, binary).CombinedOutput(); err != nil {
		t.Fatalf("copy nginx: %v: %s", err, out)
	}
	ca := deployertest.NewCA(t, time.Now())
	servers := []*deployertest.Server{
		deployertest.StartNginx(t, ca.Issue(t, deployertest.Name)), deployertest.StartNginxBinary(t, binary, ca.Issue(t, deployertest.Name)),
	}
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	found, err := nginx.NewFinder(nginx.Config{Run: deployer.Run, Root: t.TempDir()}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		i := byPID(found, s.PID())
		if i.Software != "nginx" || i.Version == "" || i.Binary != s.Binary || i.Prefix != s.Dir || i.Config != s.Config || i.Root != "" {
			t.Errorf("found %+v", i)
		}
		text, err := os.ReadFile(s.Config)
		if err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(string(text), "ssl_certificate ")
		want := []agent.Site{{
			Listeners: []agent.Listener{{Network: "tcp", Address: s.Address}}, Certificate: s.Certificate, Key: s.Key,
			Format: agent.FormatPEM, File: s.Config, Line: strings.Count(before, "\n") + 1,
		}}
		if diff := cmp.Diff(want, i.Sites); diff != "" || len(i.Faults) > 0 {
			t.Errorf("%v\n%s", i.Faults, diff)
		}
	}
}

// namespaced starts an nginx with a configuration and a pair in a new folder, in a mount namespace of its own in which
// the shell commands of prepare were run; "$1" is the folder, "$2" where nginx is to find it.
func namespaced(t *testing.T, prepare, seen string) (dir string, pid int) {
	t.Helper()
	binary := deployertest.Program(t, "nginx")
	if out, err := exec.Command("unshare", "--mount", "true").CombinedOutput(); err != nil {
		t.Skipf("SKIP: no mount namespaces here: %v: %s", err, out)
	}
	dir = t.TempDir()
	if seen == "" {
		seen = dir
	}
	const text = "daemon off; pid nginx.pid; error_log error.log; events {} http { access_log off; client_body_temp_path t1; " +
		"proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n" +
		"server { listen unix:%s/s ssl; ssl_certificate site.pem; ssl_certificate_key site.key; } }\n"
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, text, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	b := deployertest.NewCA(t, time.Now()).Issue(t, deployertest.Name)
	deployertest.WritePair(t, b, filepath.Join(dir, "site.pem"), filepath.Join(dir, "site.key"))
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c",
		prepare+` && exec "$3" -p "$2" -c "$2/nginx.conf" -e stderr`, "sh", dir, seen, binary)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	return dir, cmd.Process.Pid
}

// found waits for the instance of a process.
func found(t *testing.T, finder *nginx.Finder, pid int) agent.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		all, err := finder.Find(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if i := byPID(all, pid); i.PID != 0 {
			return i
		}
	}
}

// TestFindInNamespace: the configuration of an nginx in another mount namespace is read as it sees it, its binary is
// not run here, and the deployer does not touch it.
func TestFindInNamespace(t *testing.T) {
	t.Parallel()
	// What is mounted below /tmp makes no other world: services have a /tmp of their own.
	_, pid := namespaced(t, `mount --bind "$1" "$2"`, "/mnt")
	run := func(_ context.Context, _ string, argv []string) (string, error) {
		return "", fmt.Errorf("%q is run", argv)
	}
	i := found(t, nginx.NewFinder(nginx.Config{Run: run, Root: t.TempDir()}), pid)
	if i.Version == "" || i.Config != "/mnt/nginx.conf" || i.Root != fmt.Sprintf("/proc/%d/root", pid) || len(i.Sites) != 1 || len(i.Faults) != 0 {
		t.Fatalf("found %+v", i)
	}
	if c := i.Sites[0].Certificate; c != "/mnt/site.pem" {
		t.Errorf("certificate %s", c)
	}
	d := nginx.New(nginx.Config{Run: run})
	if err := d.Test(t.Context(), agent.Target{Instance: agent.Selector{Config: i.Config}}); err == nil || !strings.Contains(err.Error(), "container") {
		t.Errorf("test: %v", err)
	}
}

// TestPrivateTmp: a service with a private /tmp has a mount namespace of its own, as the agent's service has, and is
// tested and reloaded all the same.
func TestPrivateTmp(t *testing.T) {
	t.Parallel()
	dir, pid := namespaced(t, "mount -t tmpfs none /var/tmp", "")
	i := found(t, nginx.NewFinder(nginx.Config{Run: deployer.Run, Root: t.TempDir()}), pid)
	if i.Root != "" || len(i.Sites) != 1 {
		t.Errorf("found %+v", i)
	}
	target := agent.Target{Instance: agent.Selector{Config: filepath.Join(dir, "nginx.conf")}}
	if err := errors.Join(newDeployer().Test(t.Context(), target), newDeployer().Reload(t.Context(), target)); err != nil {
		t.Error(err)
	}
}

const binaryText = "\x7fELF\x00nginx version: %s\n\x00configure arguments: --with-x --prefix=/opt/web --conf-path=etc/main.conf\n\x00"

// TestFindProcesses shows what is believed of a process.
func TestFindProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const site = "http { server { listen 1 ssl; ssl_certificate /c; ssl_certificate_key /k; } }"
	config := write("nginx.conf", site)
	write("jail/opt/web/etc/main.conf", strings.ReplaceAll(site, "/c", "/jailed"))
	binary := write("bin/nginx", fmt.Sprintf(binaryText, "openresty/1.27.1.1"))
	jail := filepath.Join(dir, "jail")
	title := "nginx: master process nginx -c " + config
	const nobody = "12345\t12345\t12345\t12345"
	tests := []struct {
		name    string
		master  fakeMaster
		missing string
		ran     bool
		none    bool
		want    agent.Instance
		sites   []string // the certificates
		fault   string
	}{
		{name: "trusted", master: fakeMaster{title: title}, ran: true, want: agent.Instance{Version: "1.2.3", Binary: "/usr/sbin/nginx", Prefix: "/usr/share/nginx", Config: config}, sites: []string{"/c"}},
		{
			name: "relative", master: fakeMaster{title: "nginx: master process nginx -p " + strings.TrimPrefix(dir, "/") + " -c nginx.conf"}, ran: true,
			want: agent.Instance{Version: "1.2.3", Binary: "/usr/sbin/nginx", Prefix: dir, Config: config}, sites: []string{"/c"},
		},
		{
			name: "chroot", master: fakeMaster{title: "nginx: master process nginx", exe: binary, root: jail},
			want: agent.Instance{Version: "openresty/1.27.1.1", Binary: binary, Prefix: "/opt/web", Config: "/opt/web/etc/main.conf", Root: "41/root"}, sites: []string{"/jailed"},
		},
		{
			name: "somebody's chroot", master: fakeMaster{title: "nginx: master process nginx", exe: binary, root: jail, uid: nobody},
			want: agent.Instance{Version: "openresty/1.27.1.1", Binary: binary, Prefix: "/opt/web", Config: "/opt/web/etc/main.conf", Root: "41/root"}, sites: []string{"/jailed"},
		},
		{
			name: "somebody's", master: fakeMaster{title: title, exe: binary, uid: nobody},
			want:  agent.Instance{Version: "openresty/1.27.1.1", Binary: binary, Prefix: "/opt/web", Config: config},
			fault: "its configuration is not read: process 41 does not belong to root",
		},
		{name: "liar", master: fakeMaster{title: title, exe: "/usr/bin/sleep", uid: nobody}, none: true},
		{
			name: "another name", master: fakeMaster{title: title, exe: "/opt/none/web"},
			want: agent.Instance{Binary: "/opt/none/web", Config: config}, sites: []string{"/c"},
		},
		{
			name: "another name without arguments", master: fakeMaster{exe: "/opt/none/web"},
			want: agent.Instance{Binary: "/opt/none/web"}, fault: "where its configuration is",
		},
		{
			name: "a binary that is known but gone", master: fakeMaster{exe: "/www/server/nginx/sbin/nginx", uid: nobody},
			want:  agent.Instance{Binary: "/www/server/nginx/sbin/nginx", Prefix: "/www/server/nginx", Config: "/www/server/nginx/conf/nginx.conf"},
			fault: "its configuration is not read",
		},
		{
			name: "no exe", master: fakeMaster{title: "nginx: master process " + binary + " -c " + config}, missing: "exe",
			want: agent.Instance{Version: "openresty/1.27.1.1", Binary: binary, Prefix: "/opt/web", Config: config}, sites: []string{"/c"}, fault: "find the binary of process 41",
		},
		{
			name: "no namespace", master: fakeMaster{title: title, exe: binary}, missing: "ns/mnt",
			want: agent.Instance{Version: "openresty/1.27.1.1", Binary: binary, Prefix: "/opt/web", Config: config}, sites: []string{"/c"}, fault: "compare mount namespaces",
		},
		{
			name: "no folder", master: fakeMaster{title: "nginx: master process nginx -p web", exe: binary}, missing: "cwd",
			want: agent.Instance{Binary: binary}, fault: "find the folder of process 41",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProc(t)
			p.master(t, 41, tt.master)
			if tt.missing != "" {
				if err := os.Remove(filepath.Join(p.dir, "41", tt.missing)); err != nil {
					t.Fatal(err)
				}
			}
			ran := false
			found, err := nginx.NewFinder(nginx.Config{Proc: p.dir, Root: t.TempDir(), Run: func(context.Context, string, []string) (string, error) {
				ran = true
				return "nginx version: nginx/1.2.3\nconfigure arguments: --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf", nil
			}}).Find(t.Context())
			if err != nil || ran != tt.ran {
				t.Fatalf("error %v, ran the binary: %v", err, ran)
			}
			if tt.none {
				if len(found) != 0 {
					t.Errorf("found %+v", found)
				}
				return
			}
			got := byPID(found, 41)
			var sites []string
			for _, s := range got.Sites {
				sites = append(sites, s.Certificate)
			}
			faults := fmt.Sprint(got.Faults)
			tt.want.Software, tt.want.PID = "nginx", 41
			got.Sites, got.Faults, got.Root = nil, nil, strings.TrimPrefix(got.Root, p.dir+"/")
			if diff := cmp.Diff(tt.want, got); diff != "" || !slices.Equal(sites, tt.sites) || !strings.Contains(faults, tt.fault) || tt.fault == "" && faults != "[]" {
				t.Errorf("sites %q, faults %s\n%s", sites, faults, diff)
			}
		})
	}
	if _, err := nginx.NewFinder(nginx.Config{Proc: filepath.Join(dir, "none")}).Find(t.Context()); err == nil {
		t.Error("a missing /proc is accepted")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nginx.NewFinder(nginx.Config{Proc: newProc(t).dir, Root: dir}).Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFindConfigured finds configurations that nothing runs, and no configuration twice.
func TestFindConfigured(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	files := map[string]string{
		"etc/nginx/nginx.conf":                                  "http { include sites/*; }",
		"etc/nginx/sites/a":                                     "server { listen 1 ssl; ssl_certificate a.pem; ssl_certificate_key a.key; }",
		"usr/sbin/nginx":                                        fmt.Sprintf(binaryText, "nginx/1.29.0"),
		"www/server/nginx/conf/nginx.conf":                      "include /www/server/panel/vhost/nginx/*.conf;",
		"www/server/panel/vhost/nginx/b.conf":                   "http { ssl_certificate /www/b.pem; ssl_certificate_key /www/b.key; }",
		"opt/1panel/apps/openresty/openresty/conf/nginx.conf":   "http { ssl_certificate c.pem; ssl_certificate_key c.key; }",
		"opt/1panel/apps/openresty/openresty-2/conf/nginx.conf": "}",
		"usr/local/nginx/conf/nginx.conf":                       "",
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "usr/local/openresty/nginx/conf")
	if err := errors.Join(os.MkdirAll(link, 0o755), os.Symlink("/etc/nginx/nginx.conf", filepath.Join(link, "nginx.conf"))); err != nil {
		t.Fatal(err)
	}
	p := newProc(t)
	// This one runs, in the same root folder.
	p.master(t, 41, fakeMaster{title: "nginx: master process nginx -p /x -c /usr/local/nginx/conf/nginx.conf", root: root})
	found, err := nginx.NewFinder(nginx.Config{Proc: p.dir, Root: root}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range found {
		line := fmt.Sprintf("%d %s %s %s %s", i.PID, i.Config, i.Prefix, i.Binary, i.Version)
		for _, s := range i.Sites {
			line += " " + s.Certificate
		}
		for _, f := range i.Faults {
			line += " " + f.Message
		}
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{
		"41 /usr/local/nginx/conf/nginx.conf /x /usr/sbin/nginx 1.22.1",
		"0 /etc/nginx/nginx.conf /opt/web /usr/sbin/nginx 1.29.0 /etc/nginx/a.pem",
		"0 /www/server/nginx/conf/nginx.conf /www/server/nginx   /www/b.pem",
		"0 /opt/1panel/apps/openresty/openresty/conf/nginx.conf /opt/1panel/apps/openresty/openresty   /opt/1panel/apps/openresty/openresty/conf/c.pem",
		`0 /opt/1panel/apps/openresty/openresty-2/conf/nginx.conf /opt/1panel/apps/openresty/openresty-2   "}" closes no block`,
	}
	slices.Sort(got)
	slices.Sort(want)
	// The version of the running one is that of the nginx installed here, if there is one.
	for i := range got {
		if strings.HasPrefix(got[i], "41 ") {
			got[i], want[i] = got[i][:60], want[i][:60]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
