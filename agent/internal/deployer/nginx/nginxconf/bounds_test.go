// This file shows that no configuration costs more than its bounds.

package nginxconf_test

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/certferry/certferry/agent/internal/deployer/nginx/nginxconf"
)

// memory is files without a disk.
type memory map[string]string

func (m memory) ReadFile(name string) ([]byte, error) {
	data, ok := m[path.Clean(name)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(data), nil
}

func (m memory) Glob(pattern string) ([]string, error) {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		ok, err := path.Match(pattern, name)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, name)
		}
	}
	return found, nil
}

func TestBounds(t *testing.T) {
	t.Parallel()
	repeat := func(format string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	chain := memory{"/nginx.conf": "include 0.conf;"}
	for i := range 60 {
		chain[fmt.Sprintf("/%d.conf", i)] = fmt.Sprintf("include %d.conf;", i+1)
	}
	doubling := memory{"/nginx.conf": "include 0.conf;"}
	for i := range 40 {
		doubling[fmt.Sprintf("/%d.conf", i)] = fmt.Sprintf("include %d.conf; include %[1]d.conf;", i+1)
	}
	wide := memory{"/nginx.conf": repeat("include big.conf; # %d\n", 30), "/big.conf": strings.Repeat(" ", 4<<20)}
	var mapsOfMaps strings.Builder
	for i := range 30 {
		fmt.Fprintf(&mapsOfMaps, "map $x%d $y%[1]d { a $y%d; b $y%[2]d; c $y%[2]d; }\n", i, i+1)
	}
	tests := []struct {
		name  string
		files memory
		want  string // part of a fault's message
	}{
		{"deep blocks", memory{"/nginx.conf": strings.Repeat("a{", 1_000_000)}, "nested more than"},
		{"deep includes", chain, "include each other more than"},
		{"doubling includes", doubling, "files are included"},
		{"large in all", wide, "larger than"},
		{"long word", memory{"/nginx.conf": strings.Repeat("a", 5000) + ";"}, "too long"},
		{"many words", memory{"/nginx.conf": "server_name" + repeat(" n%d", 10_001) + ";"}, "too many words"},
		{"many map entries", memory{"/nginx.conf": "http { map $a $b {" + repeat(" %d x;", 100_001) + "} }"}, "maps have more than"},
		{"many sites", memory{"/nginx.conf": "http { ssl_certificate_key k;" + repeat("ssl_certificate %d;\n", 300) +
			repeat("server { listen %d ssl; }", 300) + "}"}, "uses of certificates"},
		{"many sites by variables", memory{"/nginx.conf": "http {" + repeat("server { listen %d ssl; ssl_certificate /$host; ssl_certificate_key k; }\n", 300) + "}" +
			"include x/*;", "/a": ""}, ""},
		{"many faults", memory{"/nginx.conf": repeat("include %d;\n", 2000)}, "more faults than are told"},
		{"many cases", memory{"/nginx.conf": "http { map $a $c {" + repeat("%d x;", 200) + "} map $b $d {" + repeat("%d x;", 200) +
			"} server { listen 1 ssl; ssl_certificate /$c/$d; ssl_certificate_key k; } }"}, "too many values"},
		{"maps of maps", memory{"/nginx.conf": "http {" + mapsOfMaps.String() + repeat("server { listen %d ssl; ssl_certificate /$y0; ssl_certificate_key k; }\n", 200) + "}"}, "too many values"},
		{"many patterns", memory{"/nginx.conf": "http { map $host $c {" + repeat("~^(%d|x)*$ x;", 2000) + "}" +
			"server { listen 1 ssl; server_name " + repeat(" n%d", 9000) + "; ssl_certificate /$c; ssl_certificate_key k; } }"}, "too many values"},
		{"a huge repetition", memory{"/nginx.conf": `http { server { listen 1 ssl; server_name "~((((a{1000}){1000}){1000}))"; ssl_certificate /c/$host; ssl_certificate_key k; } }`, "/c/a": ""}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			sites, faults := nginxconf.Parse(tt.files, "/nginx.conf")
			took := time.Since(start)
			t.Logf("%d sites, %d faults in %s", len(sites), len(faults), took)
			if took > 5*time.Minute || len(sites) > 50_000 || len(faults) > 1001 {
				t.Errorf("%d sites, %d faults in %s", len(sites), len(faults), took)
			}
			told := false
			for _, f := range faults {
				told = told || strings.Contains(f.Message, tt.want)
			}
			if !told && tt.want != "" {
				t.Errorf("no fault says %q: %.300v", tt.want, faults)
			}
		})
	}
}

// FuzzParse reads configurations of two files.
func FuzzParse(f *testing.F) {
	tree, err := txtar.ParseFile("testdata/tree.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range tree.Files {
		if len(file.Data) > 0 {
			f.Add("http {\n"+string(file.Data)+"}\ninclude a.conf;", string(file.Data))
		}
	}
	f.Add("http { include *.conf; map $host $x { include a.conf; } server { listen 1-3 ssl; ssl_certificate /$x$y; } }", "~a $x; b $y;\n")
	f.Fuzz(func(t *testing.T, first, second string) {
		files := memory{"/nginx/nginx.conf": first, "/nginx/a.conf": second}
		sites, faults := nginxconf.Parse(files, "/nginx/nginx.conf")
		for _, s := range sites {
			if !strings.HasPrefix(s.Certificate, "/") || s.Key != "" && !strings.HasPrefix(s.Key, "/") || files[path.Clean(s.File)] == "" || s.Line < 1 {
				t.Errorf("an odd site: %+v", s)
			}
			if strings.Contains(s.Certificate+s.Key, "\x00") && !strings.Contains(first+second, "\x00") {
				t.Errorf("a path that is not known: %+v", s)
			}
		}
		for _, fault := range faults {
			if fault.Message == "" || fault.File == "" {
				t.Errorf("an odd fault: %+v", fault)
			}
		}
	})
}

// BenchmarkParse1000 reads 1000 sites, each in a file of its own, from memory.
func BenchmarkParse1000(b *testing.B) {
	files := memory{"/nginx/nginx.conf": "http {\n\tinclude sites/*.conf;\n}\n", "/nginx/ssl.conf": "ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_timeout 1d;\n"}
	for i := range 1000 {
		files[fmt.Sprintf("/nginx/sites/%04d.conf", i)] = fmt.Sprintf(`server {
	listen 443 ssl http2;
	listen [::]:443 ssl http2;
	server_name site%d.example www.site%[1]d.example;
	include ssl.conf;
	ssl_certificate /etc/ssl/site%[1]d/fullchain.pem;
	ssl_certificate_key /etc/ssl/site%[1]d/privkey.pem;
	location / {
		proxy_pass http://127.0.0.1:8080;
		proxy_set_header Host $host;
		proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
	}
	location ~ \.php$ { include fastcgi_params; fastcgi_pass unix:/run/php.sock; }
}
`, i)
	}
	files["/nginx/fastcgi_params"] = strings.Repeat("fastcgi_param QUERY_STRING $query_string;\n", 25)
	for b.Loop() {
		if sites, faults := nginxconf.Parse(files, "/nginx/nginx.conf"); len(sites) != 1000 || len(faults) != 0 {
			b.Fatalf("%d sites, %d faults", len(sites), len(faults))
		}
	}
}
