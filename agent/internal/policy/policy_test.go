package policy_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/policy"
)

const example = "../../../examples/policy.yaml"

func decodeExample(t *testing.T) *policy.Policy {
	t.Helper()
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestExample reads the file that stands in the documentation.
func TestExample(t *testing.T) {
	t.Parallel()
	p := decodeExample(t)
	web, err := p.Target("nginx", "web")
	if err != nil {
		t.Fatal(err)
	}
	want := agent.Target{
		Name: "web", Deployer: "nginx",
		Certificate: "/etc/nginx/ssl/example.com.pem", Key: "/etc/nginx/ssl/example.com.key",
		Owner: "root", Group: "root", Mode: 0o600, Names: []string{"example.com", "*.example.com"},
		Probe: agent.Probe{
			Addresses: []string{"127.0.0.1:443", "[::1]:443"}, ServerNames: []string{"example.com", "www.example.com"},
			Timeout: 15 * time.Second,
		},
		Instance: agent.Selector{PIDFile: "/run/nginx.pid"},
	}
	if !reflect.DeepEqual(web, want) {
		t.Errorf("got  %+v\nwant %+v", web, want)
	}
	mail, err := p.Target("files", "mail")
	if err != nil || !reflect.DeepEqual(mail.Reload, []string{"/usr/bin/doveadm", "reload"}) || mail.Mode != 0 {
		t.Errorf("mail: %+v, %v", mail, err)
	}
	if n := len(p.Targets()); n != 5 {
		t.Errorf("%d targets", n)
	}
}

// TestTarget: what is not allowed is answered with a sentence.
func TestTarget(t *testing.T) {
	t.Parallel()
	p := decodeExample(t)
	for _, tt := range [][3]string{
		{"nginx", "nowhere", `target "nowhere" does not stand in the policy`},
		{"files", "web", `target "web" is for the deployer "nginx", not "files"`},
		{"", "", "does not stand"},
	} {
		if _, err := p.Target(tt[0], tt[1]); !errors.Is(err, agent.ErrNotAllowed) || !strings.Contains(err.Error(), tt[2]) {
			t.Errorf("%q %q: %v", tt[0], tt[1], err)
		}
	}
}

// TestAllows: a wildcard stands for itself and one label more.
func TestAllows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		policy, names string
		allowed       bool
	}{
		{"", "anything.test", true},
		{"a.test", "a.test", true},
		{"a.test", "b.test", false},
		{"a.test", "a.test b.test", false},
		{"a.test b.test", "b.test a.test", true},
		{"*.a.test", "*.a.test", true},
		{"*.a.test", "x.a.test", true},
		{"*.a.test", "a.test", false},
		{"*.a.test", "x.y.a.test", false},
		{"*.a.test", "*.x.a.test", false},
		{"x.a.test", "*.a.test", false},
		{"a.test", "A.test", false},
		{"a.test", "", true},
	}
	for _, tt := range tests {
		err := policy.Allows(agent.Target{Name: "web", Names: strings.Fields(tt.policy)}, strings.Fields(tt.names))
		if (err == nil) != tt.allowed || err != nil && !errors.Is(err, agent.ErrNotAllowed) {
			t.Errorf("policy %q, names %q: %v", tt.policy, tt.names, err)
		}
	}
}

// TestExplain holds the words that an administrator reads.
func TestExplain(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := decodeExample(t).Explain(&out); err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/explain.golden")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(golden) {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), golden)
	}
	for n := range 20 {
		if err := decodeExample(t).Explain(&failing{left: n}); err == nil {
			t.Errorf("a writer that fails after %d writes goes unnoticed", n)
		}
	}
}

type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

const head = "apiVersion: certferry/v1\nkind: Policy\n"

// site is a good target; tests spoil it.
const site = `targets:
  web:
    deployer: files
    certificate: /srv/site.pem
    key: /srv/site.key
    probe: {addresses: ["127.0.0.1:443"]}
`

// only is a target with the deployer and keys alone.
func only(deployer, keys string) string {
	return "targets: {web: {deployer: " + deployer + ", probe: {none: true}, " + keys + "}}\n"
}

// TestDeployersAreKnown: each deployer of this agent has its line in the policy's table.
func TestDeployersAreKnown(t *testing.T) {
	t.Parallel()
	for name := range deployer.Registry() {
		if !slices.Contains(policy.Deployers(), name) {
			t.Errorf("the policy does not know the deployer %q", name)
		}
	}
}

// TestLoadPassword reads the password of a key store, with the checks of the policy itself.
func TestLoadPassword(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password, path := filepath.Join(dir, "password"), filepath.Join(dir, "policy.yaml")
	text := head + only("tomcat", "keystore: {path: /srv/x.p12, format: pkcs12, passwordFile: "+password+"}")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		content string
		mode    os.FileMode
		want    string
	}{
		{"changeit\n", 0o600, ""},
		{"changeit\r\n", 0o640, ""},
		{"changeit", 0o666, "may be written by others"},
		{"short\n", 0o600, "6 characters or more"},
		{"", 0o600, "6 characters or more"},
		{"two lines\nof text", 0o600, "one line of ASCII"},
		{"pässword", 0o600, "one line of ASCII"},
	} {
		if err := errors.Join(os.WriteFile(password, []byte(tt.content), 0o600), os.Chmod(password, tt.mode)); err != nil {
			t.Fatal(err)
		}
		p, err := policy.Load(path)
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.content != "" && strings.Contains(err.Error(), tt.content) {
				t.Errorf("%q: error %v, want %q", tt.content, err, tt.want)
			}
			continue
		}
		if err != nil || p.Targets()[0].Keystore.Password != "changeit" {
			t.Errorf("%q: %v", tt.content, err)
		}
	}
	if err := os.Remove(password); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(path); err == nil {
		t.Error("a missing password file goes unnoticed")
	}
}

// TestDecode refuses every doubtful line.
func TestDecode(t *testing.T) {
	t.Parallel()
	replaced := func(old, with string) string {
		if !strings.Contains(site, old) {
			t.Fatalf("%q is not part of the good target", old)
		}
		return head + strings.Replace(site, old, with, 1)
	}
	added := func(line string) string { return head + site + "    " + line + "\n" }
	tests := []struct {
		name, data string
		want       string // part of the error, empty for success
	}{
		{name: "good", data: head + site},
		{name: "no targets", data: head},
		{name: "octal as text", data: added(`mode: "0640"`)},
		{name: "octal short", data: added("mode: 640")},
		{name: "numeric owner", data: added("owner: 33")},
		{name: "chain apart", data: added("chain: /srv/site.chain")},
		{name: "combined as well", data: added("combined: /srv/site.all")},
		{name: "combined alone", data: head + only("files", "combined: /srv/x.pem")},
		{name: "pkcs12", data: head + only("tomcat", "keystore: {path: /srv/x.p12, format: pkcs12, passwordFile: /srv/p, legacy: true}")},
		{name: "jks", data: head + only("files", "keystore: {path: /srv/x.jks, format: jks, passwordFile: /srv/p, alias: tomcat}")},
		{name: "haproxy combined", data: head + only("haproxy", "combined: /srv/x.pem")},
		{name: "haproxy pair", data: head + only("haproxy", "certificate: /srv/x.pem, key: /srv/x.pem.key")},
		{name: "script in a shell", data: added("reload: [/bin/sh, /usr/local/sbin/reload-site]")},

		{name: "empty", data: "", want: "the file is empty"},
		{name: "no yaml", data: "\tx", want: "decode policy: "},
		{name: "other kind", data: "apiVersion: certferry/v1\nkind: Server\n", want: "must begin with"},
		{name: "other version", data: "apiVersion: certferry/v2\nkind: Policy\n", want: "must begin with"},
		{name: "two documents", data: head + site + "---\n" + head, want: "one document"},
		{name: "unknown key", data: head + "target: {}\n", want: `line 3: unknown key "target"`},
		{name: "unknown key in target", data: added("command: x"), want: `line 9: unknown key "command"`},
		{name: "unknown key in probe", data: replaced("{addresses", "{port: 1, addresses"), want: `unknown key "port"`},
		{name: "twice", data: added("key: /srv/other.key"), want: `"key" already`},
		{name: "target twice", data: head + site + "  web: {}\n", want: `"web" already`},
		{name: "huge", data: head + strings.Repeat("# filler\n", 1<<18), want: "larger than"},
		{name: "list as targets", data: head + "targets: []\n", want: "line 3: cannot unmarshal !!seq"},

		{name: "empty target", data: head + "targets: {web: }\n", want: "is empty"},
		{name: "bad target name", data: replaced("web:", "../web:"), want: "the name may hold"},
		{name: "no deployer", data: replaced("deployer: files", "owner: root"), want: "deployer is missing"},
		{name: "unknown deployer", data: replaced("files", "sendmail"), want: `deployer "sendmail" is not known`},

		{name: "no certificate", data: replaced("certificate: /srv/site.pem", "owner: root"), want: "certificate is missing"},
		{name: "no key", data: replaced("key: /srv/site.key", "owner: root"), want: "key is missing"},
		{name: "relative path", data: replaced("/srv/site.pem", "srv/site.pem"), want: "must be absolute"},
		{name: "dots", data: replaced("/srv/site.pem", "/srv/../etc/shadow"), want: "must be plain"},
		{name: "double slash", data: replaced("/srv/site.key", "/srv//site.key"), want: "must be plain"},
		{name: "trailing slash", data: replaced("/srv/site.key", "/srv/"), want: "must be plain"},
		{name: "root", data: replaced("/srv/site.key", "/"), want: "must be plain"},
		{name: "control character", data: replaced("/srv/site.key", `"/srv/si\nte.key"`), want: "control character"},
		{name: "one file", data: replaced("/srv/site.key", "/srv/site.pem"), want: "must be two files"},
		{
			name: "shared file", want: `/srv/site.key is also a file of target "mail"`,
			data: head + site + "  mail: {deployer: files, certificate: /srv/mail.pem, key: /srv/site.key, probe: {none: true}}\n",
		},

		{name: "nothing to write", data: head + only("files", "owner: root"), want: "name certificate and key, or combined, or keystore"},
		{name: "chain without certificate", data: head + only("files", "combined: /srv/x, chain: /srv/y"), want: "certificate is missing"},
		{name: "combined twice", data: head + only("files", "certificate: /srv/x, key: /srv/y, combined: /srv/y"), want: "key and combined must be two files"},
		{
			name: "shared combined", want: `/srv/site.key is also a file of target "mail"`,
			data: head + site + "  mail: {deployer: files, combined: /srv/site.key, probe: {none: true}}\n",
		},
		{name: "combined for nginx", data: head + only("nginx", "combined: /srv/x.pem"), want: "nginx takes certificate, key; this target names combined"},
		{name: "chain for haproxy", data: head + only("haproxy", "certificate: /c, key: /c.key, chain: /d"), want: "haproxy takes combined, or certificate, key"},
		{name: "key elsewhere for haproxy", data: head + only("haproxy", "certificate: /c, key: /k"), want: "looks for the key of /c in /c.key"},
		{name: "keystore without path", data: head + only("files", "keystore: {format: jks}"), want: "keystore.path is missing"},
		{name: "keystore without password", data: head + only("files", "keystore: {path: /k, format: jks, alias: x}"), want: "keystore.passwordFile is missing"},
		{name: "keystore is its password", data: head + only("files", "keystore: {path: /k, format: pkcs12, passwordFile: /k}"), want: "must be two files"},
		{name: "keystore of no format", data: head + only("files", "keystore: {path: /k, format: pem, passwordFile: /p}"), want: "must be pkcs12 or jks"},
		{name: "alias for pkcs12", data: head + only("files", "keystore: {path: /k, format: pkcs12, passwordFile: /p, alias: x}"), want: "alias is for the format jks"},
		{name: "jks without alias", data: head + only("files", "keystore: {path: /k, format: jks, passwordFile: /p}"), want: "alias is missing"},
		{name: "jks with an odd alias", data: head + only("files", `keystore: {path: /k, format: jks, passwordFile: /p, alias: "a\nb"}`), want: "one short line"},
		{name: "legacy jks", data: head + only("files", "keystore: {path: /k, format: jks, passwordFile: /p, alias: x, legacy: true}"), want: "legacy is for the format pkcs12"},
		{name: "password in the policy", data: head + only("files", "keystore: {path: /k, password: secret}"), want: `unknown key "password"`},

		{name: "readable by all", data: added("mode: 0644"), want: "readable by its owner and group only"},
		{name: "executable", data: added("mode: 0700"), want: "readable by its owner and group only"},
		{name: "unreadable", data: added("mode: 0060"), want: "readable by its owner and group only"},
		{name: "set-user-id", data: added("mode: 4600"), want: "octal digits"},
		{name: "mode in words", data: added("mode: u=rw"), want: "line 9: mode must be octal digits"},
		{name: "owner with spaces", data: added("owner: a b"), want: "not a user or group name"},
		{name: "bad group", data: added("group: ../x"), want: "not a user or group name"},
		{name: "bad name", data: added("names: [a.test, A.test]"), want: "names, entry 2: "},

		{name: "shell string", data: added("reload: systemctl reload site"), want: "line 9: must be a list of a program"},
		{name: "nested list", data: added("reload: [[/bin/true]]"), want: "must be a list of a program"},
		{name: "no program", data: added("test: []"), want: "the list is empty"},
		{name: "relative program", data: added("test: [true]"), want: "must be absolute"},
		{name: "shell line", data: added(`reload: [/bin/sh, -ec, "a && b"]`), want: "a shell line is not allowed"},
		{name: "newline in an argument", data: added(`reload: [/bin/true, "a\nb"]`), want: "control character"},
		{name: "test for nginx", data: replaced("files", "nginx") + "    test: [/bin/true]\n", want: "are for the deployer files"},
		{name: "instance for files", data: added("instance: {pidFile: /run/nginx.pid}"), want: "files is not"},
		{name: "relative pid file", data: replaced("files", "nginx") + "    instance: {pidFile: nginx.pid}\n", want: "instance.pidFile"},

		{name: "no probe", data: replaced(`    probe: {addresses: ["127.0.0.1:443"]}`+"\n", ""), want: "probe is missing"},
		{name: "empty probe", data: replaced(`addresses: ["127.0.0.1:443"]`, ""), want: "not both and not neither"},
		{name: "probe and none", data: replaced("{addresses", "{none: true, addresses"), want: "not both and not neither"},
		{name: "none with names", data: replaced(`addresses: ["127.0.0.1:443"]`, "none: true, serverNames: [a.test]"), want: "leaves nothing to say"},
		{name: "no port", data: replaced("127.0.0.1:443", "127.0.0.1"), want: "must be host:port"},
		{name: "port 0", data: replaced("127.0.0.1:443", "127.0.0.1:0"), want: "must be host:port"},
		{name: "named port", data: replaced("127.0.0.1:443", "127.0.0.1:https"), want: "must be host:port"},
		{name: "any host", data: replaced("127.0.0.1:443", "*:443"), want: "must be host:port"},
		{name: "no host", data: replaced("127.0.0.1:443", ":443"), want: "must be host:port"},
		{name: "bad server name", data: replaced("]}", "], serverNames: [a b]}"), want: "probe.serverNames, entry 1"},
		{name: "no duration", data: replaced("]}", "], timeout: soon}"), want: "timeout"},
		{name: "too short", data: replaced("]}", "], timeout: 1ms}"), want: "timeout"},
		{name: "too long", data: replaced("]}", "], timeout: 1h}"), want: "timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := policy.Decode([]byte(tt.data))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "policy.") {
				t.Errorf("the error names a type of this program: %v", err)
			}
		})
	}
}

func write(t *testing.T, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	if err := errors.Join(os.WriteFile(path, []byte(head+site), 0o600), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLoad refuses a file that others could write or swap.
func TestLoad(t *testing.T) {
	t.Parallel()
	if p, err := policy.Load(write(t, 0o644)); err != nil || len(p.Targets()) != 1 {
		t.Fatalf("a good file: %v", err)
	}
	link := filepath.Join(t.TempDir(), "policy.yaml")
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Symlink(write(t, 0o600), link), os.Mkdir(open, 0o700), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	inOpen := filepath.Join(open, "policy.yaml")
	bad := write(t, 0o600)
	if err := errors.Join(os.WriteFile(inOpen, []byte(head), 0o600), os.WriteFile(bad, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"missing", filepath.Join(t.TempDir(), "none.yaml"), "no such file"},
		{"missing folder", "/nowhere/policy.yaml", "no such file"},
		{"link", link, "is a symbolic link"},
		{"folder", t.TempDir(), "is not a regular file"},
		{"writable by group", write(t, 0o620), "may be written by others"},
		{"writable by all", write(t, 0o602), "run chmod go-w"},
		{"folder writable by all", inOpen, "its folder may be written by others"},
		{"bad", bad, "load policy " + bad + ": decode policy"},
	}
	for _, tt := range tests {
		if _, err := policy.Load(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestLoadForeign refuses a file of somebody else.
func TestLoadForeign(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can give files away")
	}
	path := write(t, 0o600)
	if err := os.Chown(path, 12345, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Load(path); err == nil || !strings.Contains(err.Error(), "must belong to root") {
		t.Errorf("a file of somebody else: %v", err)
	}
}

// FuzzDecode looks for a policy that says less than it seems to.
func FuzzDecode(f *testing.F) {
	data, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(head + site))
	f.Add([]byte(head + site + "    reload: [/bin/sh, -c, x]\n    mode: 0640\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Decode(data)
		if err != nil {
			return
		}
		for _, target := range p.Targets() {
			paths := []string{target.Certificate, target.Key, target.Chain, target.Combined, target.Keystore.Path, target.Keystore.PasswordFile}
			for _, path := range slices.DeleteFunc(paths, func(path string) bool { return path == "" }) {
				if !filepath.IsAbs(path) || filepath.Clean(path) != path {
					t.Errorf("path %q", path)
				}
			}
			for _, argv := range [][]string{target.Test, target.Reload} {
				if len(argv) > 0 && !filepath.IsAbs(argv[0]) {
					t.Errorf("program %q", argv[0])
				}
			}
			if target.Mode&0o007 != 0 {
				t.Errorf("mode %o", target.Mode)
			}
			if len(target.Probe.Addresses) == 0 && (len(target.Probe.ServerNames) > 0 || target.Probe.Timeout != 0) {
				t.Errorf("probe %+v", target.Probe)
			}
		}
		if err := p.Explain(new(bytes.Buffer)); err != nil {
			t.Error(err)
		}
	})
}
