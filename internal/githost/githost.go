// Package githost is a Git host for tests: stock git's own git-http-backend over HTTP or HTTPS, with accounts, and
// with the faults that hosts have.
package githost

import (
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/cgi" //nolint:gosec // G504: git's HTTP server is a CGI program; the Go version here is not affected by httpoxy
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The accounts of a host: Writer may push, Reader may not.
const (
	Writer   = "hub"
	Reader   = "agent"
	Password = "correct horse" // of both
)

// Host is a running Git host.
type Host struct {
	// Root holds the repositories.
	Root string
	// URL is the host's address without a final slash.
	URL string
	// CAFile holds the certificate of a host over HTTPS.
	CAFile string

	server *httptest.Server
	script string
	mu     sync.Mutex
	fault  http.HandlerFunc
	asked  int
}

// Start runs a host until the test ends; it skips the test where git is not installed.
func Start(t *testing.T, https bool) *Host {
	t.Helper()
	h := &Host{Root: t.TempDir()}
	for _, dir := range []string{os.Getenv("GIT_EXEC_PATH"), "/usr/lib/git-core", "/usr/libexec/git-core", "/opt/homebrew/libexec/git-core"} { //nolint:forbidigo // git's own variable, in tests
		path := filepath.Join(dir, "git-http-backend")
		if _, err := os.Stat(path); err == nil { //nolint:gosec // G703: git's own variable, in tests
			h.script = path
		}
	}
	if h.script == "" {
		t.Skip("skipped: git-http-backend is not installed")
	}
	h.server = httptest.NewUnstartedServer(h)
	if https {
		h.server.StartTLS()
		h.CAFile = filepath.Join(h.Root, "ca.pem")
		data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.server.Certificate().Raw})
		if err := os.WriteFile(h.CAFile, data, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		h.server.Start()
	}
	h.URL = h.server.URL
	t.Cleanup(h.server.Close)
	return h
}

// Create makes an empty bare repository and returns its folder and URL.
func (h *Host) Create(t *testing.T, name string) (dir, url string) {
	t.Helper()
	dir = filepath.Join(h.Root, name)
	Bare(t, dir)
	return dir, h.URL + "/" + name
}

// Bare makes an empty bare repository that takes pushes.
func Bare(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{"objects/info", "objects/pack", "refs/heads", "refs/tags", "hooks"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[http]\n\treceivepack = true\n[gc]\n\tauto = 0\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Break makes handler answer in place of the repositories; nil mends the host.
func (h *Host) Break(handler http.HandlerFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = handler
}

// Asked returns how many requests came.
func (h *Host) Asked() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

// CloseConnections drops the connections that are open.
func (h *Host) CloseConnections() { h.server.CloseClientConnections() }

// ServeHTTP implements http.Handler.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	fault := h.fault
	h.asked++
	h.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	user, password, _ := r.BasicAuth()
	pushes := strings.HasSuffix(r.URL.Path, "/git-receive-pack") || r.URL.Query().Get("service") == "git-receive-pack"
	switch {
	case password != Password || user != Writer && user != Reader:
		w.Header().Set("WWW-Authenticate", `Basic realm="host"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	case pushes && user != Writer:
		w.WriteHeader(http.StatusForbidden)
		return
	}
	r.Header = maps.Clone(r.Header)
	protocol := r.Header.Get("Git-Protocol")
	r.Header.Del("Proxy")
	(&cgi.Handler{
		Path: h.script, Root: "/", Dir: h.Root,
		Env: []string{
			"GIT_PROJECT_ROOT=" + h.Root, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + protocol, "REMOTE_USER=" + user,
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + h.Root,
		},
		InheritEnv: []string{"PATH"},
	}).ServeHTTP(w, r)
}
