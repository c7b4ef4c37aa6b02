package haproxyconf_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/haproxy/haproxyconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestTree reads a tree with everything nasty in it.
func TestTree(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("testdata/tree")
	if err != nil {
		t.Fatal(err)
	}
	sites, faults := haproxyconf.Parse(hostfs.New(root), haproxyconf.Options{
		Config: []string{"/etc/haproxy/haproxy.cfg", "/etc/haproxy/conf.d"}, Dir: "/",
		Env: []string{"SITE=env.pem", "LISTS=/etc/haproxy/lists/list accept-proxy"},
	})
	var out strings.Builder
	for _, s := range sites {
		var at []string
		for _, l := range s.Listeners {
			address := l.Network + " " + l.Address
			if l.ProxyProtocol {
				address += " proxy"
			}
			at = append(at, address)
		}
		key := s.Key
		if key == s.Certificate {
			key = "same"
		}
		fmt.Fprintf(&out, "%s:%d %s key=%s names=%q client=%v %s at %q\n", s.File, s.Line, s.Certificate, key, s.Names, s.Client, s.Format, at)
	}
	for _, f := range faults {
		fmt.Fprintf(&out, "FAULT %s:%d %s\n", f.File, f.Line, f.Message)
	}
	golden := "testdata/tree.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Error(diff)
	}
}

// memory is a file system in memory.
type memory struct{ fstest.MapFS }

func (m memory) ReadFile(path string) ([]byte, error) { return m.MapFS.ReadFile(clean(path)) }

func (m memory) ReadDir(path string) ([]fs.DirEntry, error) { return m.MapFS.ReadDir(clean(path)) }

func (m memory) Stat(path string) (fs.FileInfo, error) { return m.MapFS.Stat(clean(path)) }

func clean(path string) string {
	if path = strings.TrimPrefix(filepath.Clean(path), "/"); path == "" {
		return "."
	}
	return path
}

func files(config string, more ...string) memory {
	m := memory{fstest.MapFS{"h.cfg": {Data: []byte(config)}}}
	for i := 0; i+1 < len(more); i += 2 {
		m.MapFS[clean(more[i])] = &fstest.MapFile{Data: []byte(more[i+1])}
	}
	return m
}

// TestWords: how one word of a bind line is read. Each was compared with what HAProxy 2.6 opens.
func TestWords(t *testing.T) {
	t.Parallel()
	tests := []struct{ word, want string }{
		{`"${X}"`, "/d/ev.pem"},
		{`"$X"`, "/d/ev.pem"},
		{`${X}`, "/d/${X}"},
		{`'$X'`, "/d/$X"},
		{`"\$X"`, "/d/$X"},
		{`"${UNSET-ev.pem}"`, "/d/ev.pem"},
		{`"${X-other.pem}"`, "/d/ev.pem"},
		{`a\ b.pem`, "/d/a b.pem"},
		{`"a b.pem"`, "/d/a b.pem"},
		{`a' 'b.pem`, "/d/a b.pem"},
		{`q\'x.pem`, "/d/q'x.pem"},
		{`"q'x.pem"`, "/d/q'x.pem"},
		{`ev.pem#c`, "/d/ev.pem"},
		{`"ev.pem"#c`, "/d/ev.pem"},
		{`ev.pem\#c`, "/d/ev.pem#c"},
		{`"\x65v.pem"`, "/d/ev.pem"},
		{`'\x65v.pem'`, `/d/\x65v.pem`},
		{`e"v".pem`, "/d/ev.pem"},
		{`"ev\.pem"`, `/d/ev\.pem`},
		{`/abs/../x.pem`, "/x.pem"},
		{`a\`, `/d/a\`},
		{`a\tb\n`, "/d/a\tb\n"},
		{"a\"b\tc\"", "/d/ab\tc"},
		{`"`, ""},
		{`'`, ""},
		{`"${X"`, ""},
		{`"${}"`, ""},
		{`"$"`, ""},
		{`\xzz`, ""},
		{`\x1`, ""},
	}
	for _, tt := range tests {
		sites, faults := haproxyconf.Parse(files("global\nsetenv X ev.pem\nfrontend f\nbind :1 ssl crt "+tt.word), haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/d"})
		switch {
		case tt.want == "" && (len(sites) > 0 || len(faults) == 0):
			t.Errorf("%s: sites %v, faults %v; want a fault alone", tt.word, sites, faults)
		case tt.want != "" && (len(sites) != 1 || len(faults) > 0 || sites[0].Certificate != tt.want):
			t.Errorf("%s: sites %+v, faults %v; want %q", tt.word, sites, faults, tt.want)
		}
	}
}

// TestAddresses: where a bind listens.
func TestAddresses(t *testing.T) {
	t.Parallel()
	tcp := func(addresses ...string) []agent.Listener {
		var all []agent.Listener
		for _, a := range addresses {
			all = append(all, agent.Listener{Network: "tcp", Address: a})
		}
		return all
	}
	tests := []struct {
		spec  string
		want  []agent.Listener
		fault string
	}{
		{":443", tcp(":443"), ""},
		{"*:443", tcp(":443"), ""},
		{"1.2.3.4:443", tcp("1.2.3.4:443"), ""},
		{":::443", tcp("[::]:443"), ""},
		{"[::1]:443", tcp("[::1]:443"), ""},
		{"ipv4@*:443", tcp(":443"), ""},
		{"ipv6@:443", tcp("[::]:443"), ""},
		{":443,:8443", tcp(":443", ":8443"), ""},
		{":8000-8002", tcp(":8000", ":8001", ":8002"), ""},
		{"localhost:443", tcp("localhost:443"), ""},
		{"quic6@:443", []agent.Listener{{Network: "udp", Address: "[::]:443"}}, ""},
		{"unix@/run/a.sock", []agent.Listener{{Network: "unix", Address: "/run/a.sock"}}, ""},
		{"/run/a.sock", []agent.Listener{{Network: "unix", Address: "/run/a.sock"}}, ""},
		{"abns@x", []agent.Listener{{Network: "unix", Address: "@x"}}, ""},
		{"fd@3", nil, ""},
		{":1-65535", nil, "more than 64 ports"},
		{":0", nil, "is no port"},
		{":9-8", nil, "is no port"},
		{":x", nil, "is no port"},
		{"443", nil, "has no port"},
		{"z@:1", nil, "not known"},
	}
	for _, tt := range tests {
		sites, faults := haproxyconf.Parse(files("frontend f\nbind "+tt.spec+" ssl crt /c.pem\n"), haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/"})
		if len(sites) != 1 {
			t.Fatalf("%s: %d sites", tt.spec, len(sites))
		}
		if tt.fault != "" {
			if len(faults) != 1 || !strings.Contains(faults[0].Message, tt.fault) {
				t.Errorf("%s: faults %v, want %q", tt.spec, faults, tt.fault)
			}
			continue
		}
		if !reflect.DeepEqual(sites[0].Listeners, tt.want) || len(faults) > 0 {
			t.Errorf("%s: %+v, %v; want %+v", tt.spec, sites[0].Listeners, faults, tt.want)
		}
	}
}

// TestConditions: branches that are known not to be taken do not count, all others do.
func TestConditions(t *testing.T) {
	t.Parallel()
	tests := []struct{ config, want string }{
		{".if 1\nA\n.else\nB\n.endif", "a"},
		{".if 0\nA\n.else\nB\n.endif", "b"},
		{".if\nA\n.endif\nB", "b"},
		{".if !defined(X)\nA\n.else\nB\n.endif", "b"},
		{".if defined(X) && defined(Y)\nA\n.else\nB\n.endif", "ab"},
		{".if version_atleast(2.4)\nA\n.elif 1\nB\n.else\nC\n.endif", "ab"},
		{".if feature(X)\nA\n.elif 0\nB\n.else\nC\n.endif", "ac"},
		{".if strneq(\"$X\",value)\nA\n.elif strstr(\"$X\",alu)\nB\n.else\nC\n.endif", "b"},
		{".if 0\n.if 1\nA\n.endif\n.else\nB\n.endif", "b"},
		{".if 1\nA\n.elif 1\nB\n.elif 1\nC\n.endif", "a"},
	}
	for _, tt := range tests {
		config := tt.config
		for _, name := range []string{"A", "B", "C"} {
			config = strings.ReplaceAll(config, "\n"+name, "\nbind :1 ssl crt /"+strings.ToLower(name))
		}
		sites, faults := haproxyconf.Parse(files("frontend f\n"+config+"\n"), haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/", Env: []string{"X=value"}})
		got := ""
		for _, s := range sites {
			got += strings.TrimPrefix(s.Certificate, "/")
		}
		if got != tt.want || len(faults) > 0 {
			t.Errorf("%q: %s, %v; want %s", tt.config, got, faults, tt.want)
		}
	}
}

// TestGlobal: what the section global says of files.
func TestGlobal(t *testing.T) {
	t.Parallel()
	const bind = "\nfrontend f\nbind :1 ssl crt c.crt\n"
	tests := []struct{ name, global, certificate, key string }{
		{"nothing", "", "/d/c.crt", "/d/c.crt.key"},
		{"no extra files", "ssl-load-extra-files none", "/d/c.crt", "/d/c.crt"},
		{"bare extension", "ssl-load-extra-del-ext", "/d/c.crt", "/d/c.key"},
		{"beside the configuration", "default-path config", "/c.crt", "/c.crt"},
		{"origin", "default-path origin sub", "/d/sub/c.crt", "/d/sub/c.crt"},
		{"unsetenv", "setenv B /b\nunsetenv B\ncrt-base \"${B-/x}\"", "/x/c.crt", "/x/c.crt"},
		{"resetenv", "setenv B /b\nresetenv KEPT\ncrt-base \"${B-/x}$KEPT\"", "/x/kept/c.crt", "/x/kept/c.crt"},
		{"presetenv", "presetenv KEPT /other\ncrt-base \"$KEPT\"", "/kept/c.crt", "/kept/c.crt"},
	}
	for _, tt := range tests {
		sites, faults := haproxyconf.Parse(files("global\n"+tt.global+bind, "/d/c.crt", "-", "/d/c.crt.key", "-", "/d/c.key", "-"),
			haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/d", Env: []string{"KEPT=/kept", "odd"}})
		if len(sites) != 1 || len(faults) > 0 || sites[0].Certificate != tt.certificate || sites[0].Key != tt.key {
			t.Errorf("%s: %+v %v, want %s and %s", tt.name, sites, faults, tt.certificate, tt.key)
		}
	}
}

// TestBounds: a configuration cannot make us work for ever.
func TestBounds(t *testing.T) {
	t.Parallel()
	list := strings.Repeat("a.pem x.test\n", 30_000)
	binds := "frontend f\n" + strings.Repeat("bind :1 ssl crt-list /l\n", 1000)
	sites, faults := haproxyconf.Parse(files(binds, "/l", list), haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/"})
	if len(sites) > 50_000 || len(faults) != 1 || !strings.Contains(faults[0].Message, "left out") {
		t.Errorf("%d sites, faults %v", len(sites), faults)
	}
	_, faults = haproxyconf.Parse(files(strings.Repeat(".if 1\n", 100)), haproxyconf.Options{Config: []string{"/h.cfg"}, Dir: "/"})
	if len(faults) == 0 {
		t.Error("conditions without end are no fault")
	}
	var many []string
	for range 3000 {
		many = append(many, "/h.cfg")
	}
	_, faults = haproxyconf.Parse(files(""), haproxyconf.Options{Config: many, Dir: "/"})
	if len(faults) == 0 || len(faults) > 1000 {
		t.Errorf("%d faults", len(faults))
	}
	if _, faults = haproxyconf.Parse(files(""), haproxyconf.Options{Config: []string{"/none.cfg"}}); len(faults) != 1 {
		t.Errorf("a missing configuration: %v", faults)
	}
}

// FuzzParse looks for a configuration that reading does not survive.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"haproxy.cfg", "conf.d/10-store.cfg", "conf.d/20-lists.cfg"} {
		data, err := os.ReadFile(filepath.Join("testdata/tree/etc/haproxy", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data), "a.pem [alpn h2] a.test !b.test\n")
	}
	f.Fuzz(func(t *testing.T, config, list string) {
		sites, faults := haproxyconf.Parse(files(config, "/l", list, "/etc/haproxy/lists/list", list, "/c.pem", "x"), haproxyconf.Options{Config: []string{"/h.cfg", "/"}, Dir: "/"})
		for _, s := range sites {
			if !filepath.IsAbs(s.Certificate) || !filepath.IsAbs(s.Key) || s.Line <= 0 || s.File == "" || s.Format != agent.FormatPEM {
				t.Errorf("site %+v", s)
			}
		}
		for _, fault := range faults {
			if fault.Message == "" {
				t.Errorf("fault %+v", fault)
			}
		}
	})
}
