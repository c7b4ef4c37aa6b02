// This file starts HAProxy.

package deployertest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
)

// HAProxy is a HAProxy that serves one certificate.
type HAProxy struct {
	*Server

	// Combined is the file that it serves; where it is empty, that is Certificate, with Key beside it.
	Combined string
	// Socket is its administration socket.
	Socket string
}

// HAProxyOptions say how a HAProxy runs.
type HAProxyOptions struct {
	// Master runs a master process with workers; MasterSocket gives that a socket.
	Master, MasterSocket bool
	// Combined keeps certificate and key in one file.
	Combined bool
	// Binary is a program of the test's choice.
	Binary string
}

// StartHAProxy starts a HAProxy of its own that serves b, in the foreground, with its configuration, sockets and port in
// temporary folders. It skips the test where haproxy is not installed.
func StartHAProxy(tb testing.TB, b *bundle.Bundle, o HAProxyOptions) *HAProxy {
	tb.Helper()
	if o.Binary == "" {
		o.Binary = Program(tb, "haproxy")
	}
	h := &HAProxy{Server: &Server{Binary: o.Binary, Dir: tb.TempDir(), Address: FreeAddress(tb)}}
	h.Config = filepath.Join(h.Dir, "haproxy.cfg")
	h.PIDFile = filepath.Join(h.Dir, "haproxy.pid")
	// The path of a socket has 107 bytes at most, and HAProxy adds to it while it binds.
	sockets, err := os.MkdirTemp("", "haproxy") //nolint:usetesting // the folder of a test has a long name
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(sockets) })
	h.Socket = filepath.Join(sockets, "admin.sock")
	h.Certificate = filepath.Join(h.Dir, "site.pem")
	h.Key = h.Certificate + ".key"
	WritePair(tb, b, h.Certificate, h.Key)
	if o.Combined {
		h.combine(tb)
	}
	h.WriteConfig(tb, "")
	argv := []string{h.Binary, "-f", h.Config, "-p", h.PIDFile, "-db"}
	if o.Master {
		argv = []string{h.Binary, "-W", "-f", h.Config, "-p", h.PIDFile}
	}
	if o.MasterSocket {
		argv = append(argv, "-S", filepath.Join(sockets, "master.sock"))
	}
	h.start(tb, argv...)
	h.waitServing(tb)
	return h
}

// combine puts certificate and key into one file.
func (h *HAProxy) combine(tb testing.TB) {
	tb.Helper()
	certificate, err := os.ReadFile(h.Certificate)
	if err != nil {
		tb.Fatal(err)
	}
	key, err := os.ReadFile(h.Key)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(h.Certificate, append(certificate, key...), 0o600); err != nil { //nolint:gosec // the test made the path
		tb.Fatal(err)
	}
	if err := os.Remove(h.Key); err != nil {
		tb.Fatal(err)
	}
	h.Combined, h.Certificate, h.Key = h.Certificate, "", ""
}

// WriteConfig writes the configuration; extra stands at its end, in the frontend.
func (h *HAProxy) WriteConfig(tb testing.TB, extra string) {
	tb.Helper()
	config := fmt.Sprintf(`global
  stats socket %s mode 600 level admin
  maxconn 256
  nbthread 2
  hard-stop-after 20s
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend site
  bind %s ssl crt %s%s
  http-request return status 200 content-type text/plain string ok
  %s
`, h.Socket, h.Address, h.Certificate, h.Combined, extra)
	if err := os.WriteFile(h.Config, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
}
