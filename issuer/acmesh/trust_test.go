package acmesh_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http/httpproxy"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// The CA of TestBundleBesideTheSystems, which the child's system trusts.
const (
	trustedDirectory = "TRUST_DIRECTORY"
	trustedDNS       = "TRUST_DNS"
)

// TestBundleBesideTheSystems: the bundle of an internal CA takes nothing from those that the system trusts. The roots of
// the system are read once in a process, hence the child.
func TestBundleBesideTheSystems(t *testing.T) {
	t.Parallel()
	if directory := os.Getenv(trustedDirectory); directory != "" {
		w := newWorld(t, issuertest.PebbleConfig{})
		w.issue(t, "internal.test", nil)
		w.cfg.Directory = directory
		w.open(t)
		w.issue(t, "public.test", func(r *issuer.Request) { r.Challenge.Credentials["PEBBLETEST_URL"] = os.Getenv(trustedDNS) })
		return
	}
	p, err := issuertest.StartPebble(t.Context(), issuertest.PebbleConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestBundleBesideTheSystems$", "-test.v")
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+p.CABundle, trustedDirectory+"="+p.Directory, trustedDNS+"="+p.DNSManagement)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestBundleBesideTheSystems ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestProxy: acme.sh goes to the CA through the proxy that the hub itself takes, and the proxy's password is not told.
func TestProxy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	var asked, refused atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		user, password, _ := parseProxyAuth(r)
		host, port, _ := net.SplitHostPort(r.Host)
		if r.Method != http.MethodConnect || host != issuertest.ProxiedName || user != "hub" || password != "canary-of-proxy" {
			refused.Add(1)
			out.WriteHeader(http.StatusForbidden)
			return
		}
		asked.Add(1)
		tunnel(out, "127.0.0.1:"+port)
	}))
	t.Cleanup(proxy.Close)
	w.cfg.Directory = strings.Replace(w.cfg.Directory, "localhost", issuertest.ProxiedName, 1)
	w.cfg.Proxy = &httpproxy.Config{
		HTTPSProxy: "http://hub:canary-of-proxy@" + strings.TrimPrefix(proxy.URL, "http://"), HTTPProxy: "http://127.0.0.1:9", NoProxy: "elsewhere.test",
	}
	w.open(t)
	if _, err := w.issuer.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := asked.Load()
	told := &events{}
	// The hook's provider is on this machine, where no proxy is asked.
	w.issue(t, "proxied.test", func(r *issuer.Request) { r.Progress = told.tell })
	if before == 0 || asked.Load() == before || refused.Load() > 0 {
		t.Errorf("the proxy was asked %d times by the hub, then %d times, and refused %d", before, asked.Load()-before, refused.Load())
	}
	if strings.Contains(told.text(), "canary-of-proxy") {
		t.Errorf("told:\n%s", told.text())
	}
	w.leavesNothing(t, "canary-of-proxy")
}

func parseProxyAuth(r *http.Request) (user, password string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
}

// tunnel joins a client with a server until one of them ends.
func tunnel(out http.ResponseWriter, address string) {
	server, err := net.Dial("tcp", address)
	if err != nil {
		out.WriteHeader(http.StatusBadGateway)
		return
	}
	defer func() { _ = server.Close() }()
	client, _, err := http.NewResponseController(out).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = client.Close() }()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}
