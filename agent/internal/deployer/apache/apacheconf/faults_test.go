package apacheconf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
)

// vhost is a virtual host with one certificate.
const vhost = "<VirtualHost *:443>\nServerName a.test\nSSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.key\n</VirtualHost>\n"

const vhostSite = `/r/c:%d names=["a.test"] listeners=[]` + "\n\tcertificate=/r/a.crt key=/r/a.key\n"

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string]string // below /r; "c" is the main file
		opts  apacheconf.Options
		want  string
	}{
		{name: "nothing there", want: "fault /r/c:0: include a file: open r/c: file does not exist\n"},
		{name: "crlf", files: map[string]string{"c": strings.ReplaceAll(vhost, "\n", "\r\n")}, want: fmt.Sprintf(vhostSite, 4)},
		{name: "no newline at the end", files: map[string]string{"c": strings.TrimSpace(vhost)}, want: fmt.Sprintf(vhostSite, 4)},
		{name: "backslash at the end", files: map[string]string{"c": vhost + `\`}, want: fmt.Sprintf(vhostSite, 4)},
		{name: "binary", files: map[string]string{"c": "\x7fELF\x00\x01<\x00\xff\n" + vhost}, want: fmt.Sprintf(vhostSite, 5)},
		{
			name: "include of itself", files: map[string]string{"c": "Include c\nInclude ./d\n" + vhost, "d": "Include /r/../r/c"},
			want: fmt.Sprintf(vhostSite, 6) + "fault /r/c:1: /r/c is included by itself, or includes are more than 20 deep\n" +
				"fault /r/d:1: /r/c is included by itself, or includes are more than 20 deep\n",
		},
		{
			name: "includes that miss", files: map[string]string{"c": "Include a\nInclude *.x\nIncludeOptional b\nIncludeOptional *.y\nInclude"},
			want: "fault /r/c:1: include a file: open r/a: file does not exist\nfault /r/c:2: no file matches /r/*.x\n" +
				"fault /r/c:5: the directive has too few values\n",
		},
		{
			name:  "sorted folder by folder",
			files: map[string]string{"c": "Include a*/x", "a-b/x": "ServerName second.test\nSSLEngine on\nSSLCertificateFile x", "a/x": "ServerName first.test"},
			want:  `/r/a-b/x:3 names=["second.test"] listeners=[]` + "\n\tcertificate=/r/x key=/r/x\n",
		},
		{
			name: "server root", files: map[string]string{"c": "ServerRoot /s\nInclude d\n", "d": vhost, "/s/d": vhost},
			want: `/s/d:4 names=["a.test"] listeners=[]` + "\n\tcertificate=/s/a.crt key=/s/a.key\n",
		},
		{
			name: "not closed", files: map[string]string{"c": "<IfModule core.c>\nInclude d\n", "d": "</IfModule>\n<Directory />\n" + vhost},
			want: `/r/d:6 names=["a.test"] listeners=[]` + "\n\tcertificate=/r/a.crt key=/r/a.key\n" +
				"fault /r/d:1: </ifmodule> closes a section that is not open\nfault /r/d:2: section <directory> is not closed in its file\n" +
				"fault /r/c:1: section <ifmodule> is not closed in its file\n",
		},
		{
			name: "closed by another", files: map[string]string{"c": "<IfModule core.c>\n</IfDefine>\n" + vhost},
			want: fmt.Sprintf(vhostSite, 6) + "fault /r/c:2: </ifdefine> closes a section that is not open\n",
		},
		{
			name: "nested hosts", files: map[string]string{"c": "<VirtualHost *>\n" + vhost + "</VirtualHost>"},
			want: "fault /r/c:2: a virtual host stands in another one\n",
		},
		{
			name: "unknown variables", files: map[string]string{"c": "ServerName ${N}\nServerRoot /r/${R}\nSSLEngine on\nSSLCertificateFile ${A}${B}\nSSLCertificateFile ${A\n" +
				"Listen ${P}\n<VirtualHost ${IP}:443>\n</VirtualHost>"},
			want: "/r/c:5 names=[] listeners=[]\n\tcertificate=/r/${A key=/r/${A\n/r/c:5 names=[] listeners=[]\n\tcertificate=/r/${A key=/r/${A\n" +
				"fault /r/c:2: variable R is not known, so that the value of this directive is not\n" +
				"fault /r/c:4: variable A, B is not known, so that the value of this directive is not\n" +
				"note /r/c:1: variable N is not known, so that the value of this directive is not\n" +
				"note /r/c:6: variable P is not known, so that the value of this directive is not\n" +
				"note /r/c:7: variable IP is not known, so that an address of this virtual host is not\n",
		},
		{
			name: "variable of a variable", files: map[string]string{"c": "Define A a\nDefine b ${a}.crt\nSSLEngine on\nSSLCertificateFile ${B}"},
			opts: apacheconf.Options{Environment: []string{"A=environment", "odd"}},
			want: "/r/c:4 names=[] listeners=[]\n\tcertificate=/r/a.crt key=/r/a.crt\n",
		},
		{
			name: "macros", files: map[string]string{"c": "<Macro m $a $ab @q %p>\nSSLCertificateFile $a$ab%p@q\n</Macro>\nSSLEngine on\nUse M 1 2 \"it's\\\"\" $a\n" +
				"Use m 1\nUse n\nUndefMacro m\nUse m 1 2 3 4\n<Macro>\n</Macro>\n<Macro x>\n"},
			want: `/r/c:2 names=[] listeners=[]` + "\n" + `	certificate=/r/12$a"it's\"" key=/r/12$a"it's\""` + "\n" +
				"fault /r/c:6: macro \"m\" has 4 parameters, but 1 values are given\nfault /r/c:7: macro \"n\" is not defined\n" +
				"fault /r/c:9: macro \"m\" is not defined\nfault /r/c:10: a macro needs a name\nfault /r/c:12: section <macro> is not closed in its file\n",
		},
		{
			name:  "macro of macros",
			files: map[string]string{"c": "<Macro a $x>\n<Macro b$x>\nServerName $x.test\nUse b$x\n</Macro>\nUse b$x\n</Macro>\nUse a 1\nSSLEngine on\nSSLCertificateFile c"},
			want:  "/r/c:10 names=[\"1.test\"] listeners=[]\n\tcertificate=/r/c key=/r/c\nfault /r/c:4: macro \"b1\" uses itself\n",
		},
		{
			name: "inherited one by one", files: map[string]string{"c": "SSLCertificateFile 1.crt\nSSLCertificateFile 2.crt\nSSLCertificateKeyFile 1.key\nSSLCertificateKeyFile 2.key\n" +
				"SSLCertificateChainFile chain\n<VirtualHost *>\nSSLEngine on\nSSLCertificateFile a.crt\nSSLCertificateKeyFile a.key\n</VirtualHost>"},
			want: "/r/c:8 names=[] listeners=[]\n\tcertificate=/r/a.crt key=/r/a.key chain=/r/chain\n" +
				"/r/c:2 names=[] listeners=[]\n\tcertificate=/r/2.crt key=/r/2.key chain=/r/chain\n",
		},
		{
			name: "listeners", files: map[string]string{"c": "Listen 443\nListen 0.0.0.0:8443 https\nListen [::]:8443\nListen 10.0.0.1:9443\nListen x:y\nListen 10.0.0.1\nSSLEngine on\nSSLCertificateFile m\n" +
				"<VirtualHost 10.0.0.1:443 [::1]:8443 name.test:9443 bad:port [::1 ::1 :4>\nServerName https://X.test:443\nServerAlias x.test. * *.x.test a*.test\n</VirtualHost>\n" +
				"<VirtualHost _Default_:*>\nSSLEngine off\n</VirtualHost>"},
			want: "/r/c:8 names=[] listeners=[]\n\tcertificate=/r/m key=/r/m\n" +
				`/r/c:8 names=["x.test" "~^.*$" "*.x.test" "~^a.*\\.test$"] listeners=["tcp/10.0.0.1:443" "tcp/[::1]:8443" "tcp/10.0.0.1:9443"]` + "\n\tcertificate=/r/m key=/r/m\n" +
				"note /r/c:5: read Listen: \"x:y\" is not an address with a port\nnote /r/c:6: read Listen: \"10.0.0.1\" is not an address with a port\n" +
				"note /r/c:9: read the address of a virtual host: \"bad:port\" is not an address\nnote /r/c:9: read the address of a virtual host: \"[::1\" is not an address\n" +
				"note /r/c:9: read the address of a virtual host: \"::1\" is not an address\nnote /r/c:9: read the address of a virtual host: \":4\" is not an address\n",
		},
		{
			name: "server level", files: map[string]string{"c": "Listen 1.2.3.4:443\nListen 80\nSSLEngine optional\nSSLCertificateFile m\nSSLProxyMachineCertificatePath p\nSSLProxyMachineCertificatePath q\n" +
				"<VirtualHost *:80>\nSSLEngine off\n</VirtualHost>", "p/b": "", "p/a": ""},
			want: "/r/c:5 names=[] listeners=[]\n\tcertificate=/r/p/a key=/r/p/a client\n/r/c:5 names=[] listeners=[]\n\tcertificate=/r/p/b key=/r/p/b client\n" +
				"/r/c:4 names=[] listeners=[\"tcp/1.2.3.4:443\"]\n\tcertificate=/r/m key=/r/m\nfault /r/c:6: q is not a folder\n",
		},
		{
			name: "mod_md", files: map[string]string{"c": "MDomain md.test www.md.test auto\n<MDomainSet set.test>\nMDMember more.test\n</MDomainSet>\n" +
				"<VirtualHost *>\nServerName www.md.test\nSSLEngine on\n</VirtualHost>\n<VirtualHost *>\nServerName x.test\nServerAlias more.test\nSSLEngine on\nSSLCertificateFile x\n</VirtualHost>"},
			want: "note /r/c:5: mod_md gets the certificate of www.md.test itself; the files that SSLCertificateFile names are not used\n" +
				"note /r/c:9: mod_md gets the certificate of more.test itself; the files that SSLCertificateFile names are not used\n",
		},
		{
			name: "tokens", files: map[string]string{"c": "SSLEngine on\nSSLCertificateFile pkcs11:id=1\nSSLCertificateFile b\nSSLCertificateKeyFile pkcs11:id=1\nSSLCertificateKeyFile pkcs11:id=2\n"},
			want: "/r/c:3 names=[] listeners=[]\n\tcertificate=/r/b key=\nnote /r/c:2: the certificate is kept in a token, not in a file\n" +
				"note /r/c:5: the key is kept in a token, not in a file\n",
		},
		{
			name: "no certificate", files: map[string]string{"c": "<VirtualHost *>\nSSLEngine on\n</VirtualHost>"},
			want: "fault /r/c:1: SSLEngine is on, but there is no SSLCertificateFile: httpd does not start so\n",
		},
		{
			name: "command line", files: map[string]string{"c": "Include ${D}/d\n", "x/d": vhost},
			opts: apacheconf.Options{Before: []string{"Define D x"}, After: []string{"SSLEngine on", "SSLCertificateFile ${missing}"}},
			want: `/r/x/d:4 names=["a.test"] listeners=[]` + "\n\tcertificate=/r/a.crt key=/r/a.key\n" +
				"fault option -c:0: variable missing is not known, so that the value of this directive is not\n" +
				"fault :0: SSLEngine is on, but there is no SSLCertificateFile: httpd does not start so\n",
		},
		{
			name: "versions", files: map[string]string{"c": "<IfVersion a b c>\n</IfVersion>\n<IfVersion % 2>\n</IfVersion>\n<IfVersion 2.x>\n</IfVersion>\n<IfVersion ~ (>\n</IfVersion>\n<IfVersion 1.2.3.4>\n</IfVersion>"},
			opts: apacheconf.Options{Version: "2.4.6"},
			want: "note /r/c:1: compare the version: \"a b c\" is not an operator and a version; what stands in there is taken to count\n" +
				"note /r/c:3: compare the version: operator \"%\" is not known; what stands in there is taken to count\n" +
				"note /r/c:5: compare the version: \"2.x\" is not a version; what stands in there is taken to count\n" +
				"note /r/c:7: compare the version: error parsing regexp: missing closing ): `(`; what stands in there is taken to count\n" +
				"note /r/c:9: compare the version: \"1.2.3.4\" is not a version; what stands in there is taken to count\n",
		},
		{
			name: "modules built in", files: map[string]string{"c": "<IfModule ssl_module>\n" + vhost + "</IfModule>\n<IfModule mod_version.c>\nSSLEngine on\n</IfModule>"},
			opts: apacheconf.Options{Modules: []string{"core.c", "mod_ssl.c"}},
			want: fmt.Sprintf(vhostSite, 5),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := make(map[string]string)
			for path, content := range tt.files {
				if path[0] != '/' {
					path = "/r/" + path
				}
				files[path] = content
			}
			tt.opts.Config, tt.opts.ServerRoot = "/r/c", "/r"
			got := describe(apacheconf.Parse(newMemory(files), tt.opts), "")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestBounds: what grows without end is stopped and told.
func TestBounds(t *testing.T) {
	t.Parallel()
	diamonds := map[string]string{}
	for i := range 19 {
		diamonds[fmt.Sprintf("/r/d%d", i)] = fmt.Sprintf("Include d%d\nInclude d%[1]d\n", i+1)
	}
	diamonds["/r/d19"] = "# the end\n"
	diamonds["/r/c"] = "Include d1"
	deep := strings.Repeat("<A>\n", 10_000)
	doubling := "Define a0 0123456789\n"
	macros := "<Macro m0>\n</Macro>\n"
	for i := range 40 {
		doubling += fmt.Sprintf("Define a%d ${a%d}${a%[2]d}\n", i+1, i)
		macros += fmt.Sprintf("<Macro m%d>\nUse m%d\nUse m%[2]d\n</Macro>\n", i+1, i)
	}
	wide := "<Macro w $a>\n" + strings.Repeat("$a", 100_000) + "\n</Macro>\nUse w " + strings.Repeat("x", 100_000)
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"diamonds":         {diamonds, "too large"},
		"deep sections":    {map[string]string{"/r/c": deep}, "too deep"},
		"doubled variable": {map[string]string{"/r/c": doubling}, "is not known"},
		"doubled macros":   {map[string]string{"/r/c": macros + "Use m40"}, "too large"},
		"wide macro":       {map[string]string{"/r/c": wide}, "longer than"},
		"many faults":      {map[string]string{"/r/c": strings.Repeat("Include x\n", 5000)}, "include a file"},
		"long message":     {map[string]string{"/r/c": "Use " + strings.Repeat("é", 5000)}, "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := apacheconf.Parse(newMemory(tt.files), apacheconf.Options{Config: "/r/c", ServerRoot: "/r"})
			if len(c.Faults) == 0 || len(c.Faults) > 1000 {
				t.Fatalf("%d faults", len(c.Faults))
			}
			if !strings.Contains(c.Faults[0].Message, tt.want) || len(c.Faults[0].Message) > 600 {
				t.Errorf("the first fault is %q, want one with %q", c.Faults[0].Message, tt.want)
			}
		})
	}
}

// FuzzParse: no text makes the parser panic or hang, and every site has a certificate with an absolute path.
func FuzzParse(f *testing.F) {
	f.Add(vhost, "Include d\n")
	f.Add("Include d\nUse m a\n", "<Macro m $x>\n<VirtualHost [::1]:$x *>\nSSLEngine on\nSSLCertificateFile ${x}\n</VirtualHost>\n</Macro>\n")
	f.Add("Define a b\nInclude *\nSSLCertificateFile \"a\\\"\\\n b\"", "<IfVersion !~ a>\n</IfVersion>\n<IfFile d>\n<If \"x\">\n</If>\n</IfFile>")
	f.Add("SSLEngine on\nSSLCertificateFile a\nSSLCertificateFile b\nSSLCertificateKeyFile b\nMDomain x\nListen 0:1", "SSLProxyMachineCertificatePath /r")
	f.Fuzz(func(t *testing.T, main, other string) {
		files := newMemory(map[string]string{"/r/c": main, "/r/d": other})
		c := apacheconf.Parse(files, apacheconf.Options{Config: "/r/c", ServerRoot: "/r", Version: "2.4.1", Defines: []string{"a"}, Environment: []string{"x=y"}})
		for _, s := range c.Sites {
			if !strings.HasPrefix(s.Certificate, "/") {
				t.Errorf("certificate %q is not absolute", s.Certificate)
			}
		}
	})
}
