// This file starts real servers as children of the test.

package deployertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

// Server is a TLS server that serves one pair of files.
type Server struct {
	// Dir is the folder of everything that the server has.
	Dir string
	// Address is where it listens.
	Address          string
	Certificate, Key string
	// Config and PIDFile are nginx's, Binary is the program's.
	Config, PIDFile, Binary string
	process                 *os.Process
}

// Program finds a program in PATH or beside it, and skips the test if there is none.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") { //nolint:forbidigo // a test looks for programs where a shell would
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 { //nolint:gosec // see above
			return path
		}
	}
	tb.Skipf("SKIP: %s is not installed; make test installs it on Debian", name)
	return ""
}

// WritePair writes b to the two files, as an administrator would.
func WritePair(tb testing.TB, b *bundle.Bundle, certificate, key string) {
	tb.Helper()
	pem, err := b.KeyPEM()
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(key, pem, 0o600), os.WriteFile(certificate, b.FullChainPEM(), 0o600)); err != nil {
		tb.Fatal(err)
	}
}

// Site is one virtual host of an nginx.
type Site struct {
	Name, Certificate, Key string
}

// StartNginx starts an nginx of its own that serves b, in the foreground, with its configuration, logs and port in
// a temporary folder. It skips the test where nginx is not installed.
func StartNginx(tb testing.TB, b *bundle.Bundle, more ...Site) *Server {
	tb.Helper()
	return StartNginxBinary(tb, Program(tb, "nginx"), b, more...)
}

// StartNginxBinary is StartNginx with a binary of the test's choice.
func StartNginxBinary(tb testing.TB, binary string, b *bundle.Bundle, more ...Site) *Server {
	tb.Helper()
	s := &Server{Binary: binary, Dir: tb.TempDir(), Address: FreeAddress(tb)}
	s.Config = filepath.Join(s.Dir, "nginx.conf")
	s.PIDFile = filepath.Join(s.Dir, "nginx.pid")
	s.Certificate = filepath.Join(s.Dir, "site.pem")
	s.Key = filepath.Join(s.Dir, "site.key")
	WritePair(tb, b, s.Certificate, s.Key)
	s.WriteNginxConfig(tb, "", more...)
	s.start(tb, s.Binary, "-p", s.Dir, "-c", s.Config, "-e", filepath.Join(s.Dir, "error.log"), "-g", "daemon off;")
	s.waitServing(tb)
	return s
}

// WriteNginxConfig writes nginx's configuration; extra stands in its http block.
func (s *Server) WriteNginxConfig(tb testing.TB, extra string, more ...Site) {
	tb.Helper()
	var servers strings.Builder
	for _, site := range append([]Site{{Name: "_", Certificate: s.Certificate, Key: s.Key}}, more...) {
		fmt.Fprintf(&servers, `
  server {
    listen %s ssl;
    server_name %s;
    ssl_certificate %s;
    ssl_certificate_key %s;
    location / { return 200 "ok\n"; }
  }`, s.Address, site.Name, site.Certificate, site.Key)
	}
	config := fmt.Sprintf(`worker_processes 2;
pid %s;
error_log %s/error.log notice;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[2]s/t1;
  proxy_temp_path %[2]s/t2;
  fastcgi_temp_path %[2]s/t3;
  uwsgi_temp_path %[2]s/t4;
  scgi_temp_path %[2]s/t5;
  %[3]s%[4]s
}
`, s.PIDFile, s.Dir, extra, servers.String())
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// StartTLSSite starts the example site (examples/tlssite), built as binary, serving b; a nil b starts it without.
func StartTLSSite(tb testing.TB, binary string, b *bundle.Bundle) *Server {
	tb.Helper()
	s := &Server{Binary: binary, Dir: tb.TempDir(), Address: FreeAddress(tb)}
	s.PIDFile = filepath.Join(s.Dir, "site.pid")
	s.Certificate = filepath.Join(s.Dir, "site.pem")
	s.Key = filepath.Join(s.Dir, "site.key")
	if b != nil {
		WritePair(tb, b, s.Certificate, s.Key)
	}
	s.start(tb, binary, "-listen", s.Address, "-cert", s.Certificate, "-key", s.Key, "-pid-file", s.PIDFile,
		"-stuck-file", filepath.Join(s.Dir, "stuck"))
	poll(tb, "the site's process id", func() bool {
		data, err := os.ReadFile(s.PIDFile)
		return err == nil && len(data) > 0
	})
	if b != nil {
		s.waitServing(tb)
	}
	return s
}

// TestCommand and ReloadCommand are what a policy says of the example site.
func (s *Server) TestCommand() []string {
	return []string{s.Binary, "-check", "-cert", s.Certificate, "-key", s.Key}
}

// ReloadCommand is what a policy says of the example site.
func (s *Server) ReloadCommand() []string {
	return []string{s.Binary, "-reload", "-pid-file", s.PIDFile}
}

// PID is the process id of the server.
func (s *Server) PID() int { return s.process.Pid }

// Stop ends the server.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	if s.process == nil {
		return
	}
	_ = s.process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		_, _ = s.process.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = s.process.Kill()
		<-done
	}
	s.process = nil
}

func (s *Server) start(tb testing.TB, argv ...string) {
	tb.Helper()
	log, err := os.Create(filepath.Join(s.Dir, "output.log"))
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	// An nginx needs some environment to write its title over.
	s.process, err = os.StartProcess(argv[0], argv, &os.ProcAttr{
		Dir: s.Dir, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "PADDING=" + strings.Repeat("x", 64)},
		Files: []*os.File{nil, log, log},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.Stop(tb)
		if tb.Failed() {
			for _, name := range []string{"output.log", "error.log"} {
				if data, err := os.ReadFile(filepath.Join(s.Dir, name)); err == nil && len(data) > 0 { //nolint:gosec // the test made the file
					tb.Logf("%s:\n%s", name, data)
				}
			}
		}
	})
}

func (s *Server) waitServing(tb testing.TB) {
	tb.Helper()
	poll(tb, "the server at "+s.Address, func() bool {
		_, err := new(probe.Prober).Probe(tb.Context(), s.Address, "localhost")
		return err == nil
	})
}

// Served is the SHA-256 of the leaf that the server shows to a client that names serverName.
func (s *Server) Served(tb testing.TB, serverName string) string {
	tb.Helper()
	leaf, err := probe.Leaf(tb.Context(), new(probe.Prober), probe.Endpoint{Address: s.Address, ServerName: serverName})
	if err != nil {
		tb.Fatal(err)
	}
	return bundle.LeafSHA256(leaf)
}

// FreeAddress returns a loopback address that nobody listens at.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// poll waits for ok.
func poll(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			tb.Fatalf("waited too long for %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
