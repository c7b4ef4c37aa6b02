package issuer_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/issuer"
)

// frames are the smallest configurations of web servers that the snippets go into: the port, the snippet, the folder.
var frames = map[string]struct {
	program string
	args    []string
	text    string
}{
	"nginx": {"nginx", []string{"-p", "DIR", "-c", "DIR/conf", "-e", "stderr"}, `daemon off;
pid DIR/pid;
events {}
http {
  access_log off;
  client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4; scgi_temp_path DIR/t5;
  server { listen 127.0.0.1:PORT; SNIPPET location / { return 301 https://$host$request_uri; } }
}
`},
	"apache": {"apache2", []string{"-d", "DIR", "-f", "DIR/conf", "-DFOREGROUND"}, `ServerName localhost
Listen 127.0.0.1:PORT
PidFile DIR/pid
ErrorLog DIR/error.log
DefaultRuntimeDir DIR
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
<VirtualHost 127.0.0.1:PORT>
DocumentRoot DIR
<Directory />
  Require all granted
</Directory>
SNIPPET
</VirtualHost>
`},
	"haproxy": {"haproxy", []string{"-db", "-f", "DIR/conf"}, `defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend http
  bind 127.0.0.1:PORT
  SNIPPET
  http-request redirect scheme https
`},
}

// TestStatelessSnippets runs each snippet in the server that it is for.
func TestStatelessSnippets(t *testing.T) {
	t.Parallel()
	for _, s := range issuer.StatelessSnippets("thumb-print_1") {
		t.Run(s.Server, func(t *testing.T) {
			t.Parallel()
			frame := frames[s.Server]
			program, err := exec.LookPath(frame.program)
			if err != nil {
				t.Skipf("skipped: %s is not installed", frame.program)
			}
			dir, address := t.TempDir(), freeAddress(t)
			_, port, _ := strings.Cut(address, ":")
			fill := strings.NewReplacer("DIR", dir, "PORT", port, "SNIPPET", s.Text)
			if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(fill.Replace(frame.text)), 0o600); err != nil {
				t.Fatal(err)
			}
			var args []string
			for _, a := range frame.args {
				args = append(args, fill.Replace(a))
			}
			var log strings.Builder
			server := exec.CommandContext(t.Context(), program, args...)
			server.Stdout, server.Stderr = &log, &log
			server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = syscall.Kill(-server.Process.Pid, syscall.SIGTERM)
				_ = server.Wait()
				if t.Failed() {
					t.Log(log.String())
				}
			}()
			await(t, address)
			for path, want := range map[string]string{
				"evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA": "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA.thumb-print_1",
				"another": "another.thumb-print_1",
				"a/b":     "", "a%22b": "", "<x>": "",
			} {
				status, body := fetch(t, "http://"+address+"/.well-known/acme-challenge/"+path)
				if want != "" && (status != http.StatusOK || strings.TrimSpace(body) != want) {
					t.Errorf("%s: %d %q", path, status, body)
				}
				if want == "" && strings.Contains(body, "thumb-print") {
					t.Errorf("%s is answered: %d %q", path, status, body)
				}
			}
		})
	}
}

// TestSnippetsOfTheGuide holds the guide, in both languages, to what is tested here.
func TestSnippetsOfTheGuide(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"../docs/guide/acme.md", "../docs/zh-CN/guide/acme.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range issuer.StatelessSnippets("THUMBPRINT") {
			if !strings.Contains(string(text), "```"+s.Server+"\n"+s.Text+"```") {
				t.Errorf("%s does not have the snippet for %s", page, s.Server)
			}
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func await(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the server does not listen: %v", err)
		case <-tick.C:
		}
	}
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(fmt.Errorf("read %s: %w", url, err))
	}
	return resp.StatusCode, string(body)
}
