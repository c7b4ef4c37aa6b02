package nginxconf_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/nginx/nginxconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
)

var update = flag.Bool("update", false, "write the golden file anew")

// extract writes an archive's files and links below a folder, each through edit.
func extract(tb testing.TB, name, dir string, edit func(name string, data []byte) []byte) {
	tb.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range archive.Files {
		write(tb, filepath.Join(dir, f.Name), edit(f.Name, f.Data))
	}
	for line := range strings.Lines(string(archive.Comment)) {
		link, ok := strings.CutPrefix(line, "link ")
		name, target, _ := strings.Cut(strings.TrimSpace(link), " -> ")
		if !ok {
			continue
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if strings.HasPrefix(target, "/") {
			target = filepath.Join(dir, target)
		}
		if err := os.Symlink(target, path); err != nil {
			tb.Fatal(err)
		}
	}
}

func write(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// show writes sites and faults as lines.
func show(sites []agent.Site, faults []agent.Fault) string {
	var b strings.Builder
	for _, s := range sites {
		fmt.Fprintf(&b, "%s:%d %s + %s\n", s.File, s.Line, s.Certificate, s.Key)
		if s.Client {
			fmt.Fprintln(&b, "\tclient")
		}
		if len(s.Names) > 0 {
			fmt.Fprintf(&b, "\tnames %s\n", strings.Join(s.Names, " "))
		}
		for _, l := range s.Listeners {
			fmt.Fprintf(&b, "\t%s %s", l.Network, l.Address)
			if l.ProxyProtocol {
				b.WriteString(" proxy")
			}
			if l.StartTLS != "" {
				fmt.Fprintf(&b, " starttls=%s", l.StartTLS)
			}
			b.WriteByte('\n')
		}
	}
	for _, f := range faults {
		fmt.Fprintf(&b, "fault %s:%d %s\n", f.File, f.Line, f.Message)
	}
	return b.String()
}

// TestTree finds all certificates of the tree, and nothing that only looks like one.
func TestTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	extract(t, "testdata/tree.txtar", dir, func(_ string, data []byte) []byte { return data })
	got := show(nginxconf.Parse(hostfs.New(dir), "/etc/nginx/nginx.conf"))
	golden := "testdata/tree.golden"
	if *update {
		write(t, golden, []byte(got))
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// parse reads a configuration of one main file and others, as txtar.
func parse(tb testing.TB, text string) string {
	tb.Helper()
	dir := tb.TempDir()
	archive := txtar.Parse([]byte(text))
	write(tb, filepath.Join(dir, "nginx/nginx.conf"), archive.Comment)
	for _, f := range archive.Files {
		write(tb, filepath.Join(dir, f.Name), f.Data)
	}
	return show(nginxconf.Parse(hostfs.New(dir), "/nginx/nginx.conf"))
}

const pair = "ssl_certificate /c; ssl_certificate_key /k;"

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, config, want string }{
		{"empty", "", ""},
		{"no file ends with a line", "http { server { " + pair + " listen 1 ssl; } }", "/nginx/nginx.conf:1 /c + /k\n\ttcp :1\n"},
		{"byte order mark", "\xef\xbb\xbfhttp { server { " + pair + " listen 1 ssl; } }", "/nginx/nginx.conf:1 /c + /k\n\ttcp :1\n"},
		{
			"listen", "http { server { " + pair + "\nlisten 443 ssl; listen *:444 ssl; listen 0.0.0.0:445 ssl; listen [::]:446 ssl; " +
				"listen [::]:447 ssl ipv6only=off; listen Host.Example:448 ssl; listen 10.0.0.1 ssl; listen [::1] ssl; listen 443 quic; listen 449; } }",
			"/nginx/nginx.conf:1 /c + /k\n\ttcp :443\n\ttcp :444\n\ttcp :445\n\ttcp [::]:446\n\ttcp :447\n\ttcp host.example:448\n\ttcp 10.0.0.1:80\n" +
				"\ttcp [::1]:80\n\tudp :443\n",
		},
		{
			"bad listen", "http { server { listen 70000 ssl; listen 5-1 ssl; listen 1-60000 ssl; listen :x ssl; listen; } }",
			"fault /nginx/nginx.conf:1 listen \"70000\" is no address\nfault /nginx/nginx.conf:1 listen \"5-1\" is no address\n" +
				"fault /nginx/nginx.conf:1 listen \"1-60000\" is no address\nfault /nginx/nginx.conf:1 listen \":x\" is no address\n",
		},
		{
			"ssl on", "http { ssl on; server { listen 1; " + pair + " } server { listen 2; ssl off; " + pair + " } }",
			"/nginx/nginx.conf:1 /c + /k\n\ttcp :1\n/nginx/nginx.conf:1 /c + /k\n",
		},
		{
			"proxy protocol and ssl of another server", "http { server { listen 1 ssl proxy_protocol; } server { listen *:1; server_name b; " + pair + " } }",
			"/nginx/nginx.conf:1 /c + /k\n\tnames b\n\ttcp :1 proxy\n",
		},
		{"plain server inherits", "http { " + pair + " server { listen 80; } }", "/nginx/nginx.conf:1 /c + /k\n"},
		{"key inherited alone", "http { ssl_certificate_key k; server { listen 1 ssl; ssl_certificate c; } }", "/nginx/nginx.conf:1 /nginx/c + /nginx/k\n\ttcp :1\n"},
		{
			"no key", "http { server { listen 1 ssl; ssl_certificate /c; } }",
			"/nginx/nginx.conf:1 /c + \n\ttcp :1\nfault /nginx/nginx.conf:1 the certificate has no ssl_certificate_key\n",
		},
		{
			"keys elsewhere", "http { server { listen 1 ssl; ssl_certificate /c; ssl_certificate_key engine:pkcs11:x; } server { listen 2 ssl;\nssl_certificate /d; ssl_certificate_key store:x; } }",
			"/nginx/nginx.conf:1 /c + \n\ttcp :1\n/nginx/nginx.conf:2 /d + \n\ttcp :2\n" +
				"fault /nginx/nginx.conf:1 the certificate's key is in no file (engine:)\nfault /nginx/nginx.conf:2 the certificate's key is in no file (store:)\n",
		},
		{
			"SM2 of Tengine", "http { server { listen 1 ssl; ssl_sign_certificate s; ssl_sign_certificate_key sk; ssl_enc_certificate e; ssl_enc_certificate_key ek; } }",
			"/nginx/nginx.conf:1 /nginx/s + /nginx/sk\n\ttcp :1\n/nginx/nginx.conf:1 /nginx/e + /nginx/ek\n\ttcp :1\n",
		},
		{"paths", "http { server { listen 1 ssl; ssl_certificate a/./b//c; ssl_certificate_key ../k; } }", "/nginx/nginx.conf:1 /nginx/a/b/c + /nginx/../k\n\ttcp :1\n"},
		{"escapes", `http { server { listen 1 ssl; ssl_certificate "/a\"b\\c"; ssl_certificate_key /a\ b\;c\td; } }`, "/nginx/nginx.conf:1 /a\"b\\c + /a\\ b\\;c\td\n\ttcp :1\n"},
		{
			"names", "http { server { listen 1 ssl; server_name _ \"\" A.example a.EXAMPLE *.b www.* ~^C$ $hostname; " + pair + " } }\n-- etc/hostname --\nMachine\n",
			"/nginx/nginx.conf:1 /c + /k\n\tnames a.example *.b www.* ~^C$ machine\n\ttcp :1\n",
		},
		{"no host name", "http { server { listen 1 ssl; server_name $hostname; } }", "fault /nginx/nginx.conf:1 the server's name is that of the machine, which cannot be read\n"},
		{
			"Lua chooses", "http { server { listen 1 ssl;\nssl_certificate_by_lua_block { x = \"}\" }\n" + pair + " } }",
			"/nginx/nginx.conf:3 /c + /k\n\ttcp :1\nfault /nginx/nginx.conf:2 Lua code chooses certificates here; which ones cannot be read from the configuration\n",
		},
		{
			"Lua in a file", "http { ssl_certificate_by_lua_file /x.lua; }",
			"fault /nginx/nginx.conf:1 Lua code chooses certificates here; which ones cannot be read from the configuration\n",
		},
		{"stapling file", "http { server { ssl_stapling_file /r; } }", "fault /nginx/nginx.conf:1 the OCSP response is read from /r and stays that of the old certificate after a renewal\n"},
		{"missing include", "include none.conf;\nhttp { include none/*.conf; }", "fault /nginx/nginx.conf:1 the file cannot be read: read /nginx/none.conf: no such file or directory\n"},
		{
			"cycle", "include a.conf;\n-- nginx/a.conf --\n\ninclude b.conf;\n-- nginx/b.conf --\ninclude a.conf; include nginx.conf;\n",
			"fault /nginx/b.conf:1 /nginx/a.conf includes itself\nfault /nginx/b.conf:1 /nginx/nginx.conf includes itself\n",
		},
		{"unknown module", "rtmp { server { listen 1 ssl; " + pair + " } }", "/nginx/nginx.conf:1 /c + /k\n\ttcp :1\n"},
		{"outside of a block", pair, "/nginx/nginx.conf:1 /c + /k\n"},
		{"empty certificate", "http { server { location / { proxy_ssl_certificate \"\"; } } }", ""},
		{
			"broken", "http {\n}}\nserver_name x\n}\nhttp { ; {\n} x\"y\"z;'a'b; server { listen 1 ssl; " + pair + " }",
			"/nginx/nginx.conf:6 /c + /k\n\ttcp :1\n" +
				"fault /nginx/nginx.conf:2 \"}\" closes no block\nfault /nginx/nginx.conf:3 the directive does not end with a semicolon\n" +
				"fault /nginx/nginx.conf:4 \"}\" closes no block\nfault /nginx/nginx.conf:5 unexpected ;\nfault /nginx/nginx.conf:5 unexpected {\n" +
				"fault /nginx/nginx.conf:6 something follows a closing quotation mark without a space\nfault /nginx/nginx.conf:5 the block is not closed in this file\n",
		},
		{"open quotation mark", "http { x \"abc;\n", "fault /nginx/nginx.conf:1 a quotation mark is not closed\nfault /nginx/nginx.conf:1 the file ends within a directive\n" +
			"fault /nginx/nginx.conf:1 the block is not closed in this file\n"},
		{"open Lua", "init_by_lua_block { x = [[ }", "fault /nginx/nginx.conf:1 the block is not closed in this file\n"},
		{"ends with a backslash", `http { x a\`, "fault /nginx/nginx.conf:1 the file ends within a directive\nfault /nginx/nginx.conf:1 the block is not closed in this file\n"},
		{"garbage", strings.Repeat("};", 50), "fault /nginx/nginx.conf:1 \"}\" closes no block\nfault /nginx/nginx.conf:1 unexpected ;\n" +
			"fault /nginx/nginx.conf:1 too many syntax errors; the rest of the file is not read\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, parse(t, tt.config)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVariables: which files a path with variables means.
func TestVariables(t *testing.T) {
	t.Parallel()
	const files = "\n-- c/a.pem --\n-- c/a.key --\n-- c/b.pem --\n-- c/b.key --\n-- c/[x].pem --\n"
	server := func(name, certificate, key string) string {
		return "http { server { listen 1 ssl; server_name " + name + "; ssl_certificate " + certificate + "; ssl_certificate_key " + key + "; } }"
	}
	site := func(name, c, k string) string {
		if name != "" {
			name = "\tnames " + name + "\n"
		}
		return "/nginx/nginx.conf:1 " + c + " + " + k + "\n" + name + "\ttcp :1\n"
	}
	// Variables that are made of themselves are anything; which key goes with which certificate is not known.
	var cyclic strings.Builder
	for _, format := range []string{"/nginx/nginx.conf:1 /c/%s.pem + \n\tnames n\n\ttcp :1\n", "fault /nginx/nginx.conf:1 which file the key of the certificate /c/%s.pem is cannot be told\n"} {
		for _, name := range []string{"[x]", "a", "b"} {
			fmt.Fprintf(&cyclic, format, name)
		}
	}
	tests := []struct{ name, config, want string }{
		{"any name", server("_", "/c/$host.pem", "/c/$host.key"), site("[x]", "/c/[x].pem", "/c/[x].key") + site("a", "/c/a.pem", "/c/a.key") + site("b", "/c/b.pem", "/c/b.key")},
		{"by a pattern", server(`"~^[ab]$"`, "/c/$host.pem", "/c/$host.key"), site("a", "/c/a.pem", "/c/a.key") + site("b", "/c/b.pem", "/c/b.key")},
		{"twice in a path", server("_", "/c/$host/$host.pem", "/k"), "fault /nginx/nginx.conf:1 which files the certificate /c/$host/$host.pem means cannot be told\n"},
		{"only the key", server("a b", "/c/a.pem", "/c/$host.key"), site("a", "/c/a.pem", "/c/a.key") + site("b", "/c/a.pem", "/c/b.key")},
		{"all of it", server("a", "$x", "$x"), "fault /nginx/nginx.conf:1 which files the certificate $x means cannot be told\n"},
		{"relative", server("a", "../c/$host.pem", "../c/$host.key"), site("a", "/nginx/../c/a.pem", "/nginx/../c/a.key")},
		{
			"literal brackets", server("_", "$c", "$c") + " http { map $host $c { x /c/[x].pem; } }",
			site("x", "/c/[x].pem", "/c/[x].pem"),
		},
		{
			"two maps", server("_", "$c", "$k") + " http { map $host $c { a /c/a.pem; default /c/b.pem; } map $host $k { a /c/a.key; default /c/b.key; } }",
			site("a", "/c/a.pem", "/c/a.key") + site("", "/c/b.pem", "/c/b.key"),
		},
		{
			"a map of a map", server("a b c", "/c/$y.pem", "/c/$y.key") + " http { map $host $z { a one; ~^b two; } map $z $y { one a; two b; } }",
			site("a", "/c/a.pem", "/c/a.key") + site("b", "/c/b.pem", "/c/b.key") + "fault /nginx/nginx.conf:1 there is no file for the certificate /c/.pem\n",
		},
		{
			"something else chooses", server("n", "/c/$x.pem", "/c/$x.key") + " http { split_clients $remote_addr $x { 50% a; * b; } }",
			site("n", "/c/a.pem", "/c/a.key") + site("n", "/c/b.pem", "/c/b.key"),
		},
		{
			"geo", server("n", "/c/$x.pem", "/c/$x.key") + " http { geo $x { default a; 10.0.0.0/8 b; ranges; } }",
			site("n", "/c/b.pem", "/c/b.key") + site("n", "/c/a.pem", "/c/a.key"),
		},
		{
			"cyclic maps", server("n", "/c/$x.pem", "/c/$x.key") + " http { map $y $x { default $y; } map $x $y { default $x; } }",
			cyclic.String(),
		},
		{"key not known", server("n", "/c/a.pem", "$key"), "/nginx/nginx.conf:1 /c/a.pem + \n\tnames n\n\ttcp :1\nfault /nginx/nginx.conf:1 which file the key of the certificate /c/a.pem is cannot be told\n"},
		{"two unknown", server("_", "/c/$x$host.pem", "/k"), site("", "/c/[x].pem", "/k") + site("", "/c/a.pem", "/k") + site("", "/c/b.pem", "/k")},
		{
			"client", "http { server { server_name a; location / { proxy_ssl_certificate /c/$server_name.pem; proxy_ssl_certificate_key /c/$server_name.key; } } }",
			"/nginx/nginx.conf:1 /c/a.pem + /c/a.key\n\tclient\n\tnames a\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, parse(t, tt.config+files)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
