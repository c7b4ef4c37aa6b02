// This file starts real Apache httpd servers.

package deployertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/certferry/certferry/gitstore/bundle"
)

// apacheModules is where Debian has httpd's modules.
const apacheModules = "/usr/lib/apache2/modules/"

// StartApache starts an Apache httpd of its own that serves b, in the foreground, with its configuration, logs and
// port in a temporary folder. It skips the test where httpd is not installed as Debian does.
func StartApache(tb testing.TB, b *bundle.Bundle, more ...Site) *Server {
	tb.Helper()
	return StartApacheBinary(tb, Program(tb, "apache2"), b, more...)
}

// StartApacheBinary is StartApache with a binary of the test's choice.
func StartApacheBinary(tb testing.TB, binary string, b *bundle.Bundle, more ...Site) *Server {
	tb.Helper()
	s := &Server{Binary: binary, Dir: tb.TempDir(), Address: FreeAddress(tb)}
	s.Config = filepath.Join(s.Dir, "httpd.conf")
	s.PIDFile = filepath.Join(s.Dir, "httpd.pid")
	s.Certificate = filepath.Join(s.Dir, "site.pem")
	s.Key = filepath.Join(s.Dir, "site.key")
	WritePair(tb, b, s.Certificate, s.Key)
	s.WriteApacheConfig(tb, "", more...)
	s.start(tb, s.Binary, "-d", s.Dir, "-f", "httpd.conf", "-D", "FOREGROUND")
	s.waitServing(tb)
	return s
}

// WriteApacheConfig writes httpd's configuration; extra stands at its server level.
func (s *Server) WriteApacheConfig(tb testing.TB, extra string, more ...Site) {
	tb.Helper()
	var hosts strings.Builder
	for _, site := range append([]Site{{Name: "localhost", Certificate: s.Certificate, Key: s.Key}}, more...) {
		fmt.Fprintf(&hosts, `
<VirtualHost *>
  ServerName %s
  SSLEngine on
  SSLCertificateFile %s
  SSLCertificateKeyFile %s
</VirtualHost>`, site.Name, site.Certificate, site.Key)
	}
	config := fmt.Sprintf(`# User and group count where the server is started by root.
User #65534
Group #65534
ServerName localhost
Listen %[1]s
PidFile httpd.pid
ErrorLog error.log
DefaultRuntimeDir %[2]s
Mutex pthread
LoadModule mpm_event_module %[3]smod_mpm_event.so
LoadModule authz_core_module %[3]smod_authz_core.so
LoadModule proxy_module %[3]smod_proxy.so
LoadModule ssl_module %[3]smod_ssl.so
StartServers 2
MinSpareThreads 8
MaxSpareThreads 64
ThreadsPerChild 16
MaxRequestWorkers 64
%[4]s%[5]s
`, s.Address, s.Dir, apacheModules, extra, hosts.String())
	if err := os.WriteFile(s.Config, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// JamApache stops httpd's parent process, so that it takes no signal before the end of the test. It is then waited for:
// a parent that has to reload and to end at once leaves its children behind.
func (s *Server) JamApache(tb testing.TB) {
	tb.Helper()
	pid := s.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		tb.Fatal(err)
	}
	starts := func() int {
		log, err := os.ReadFile(filepath.Join(s.Dir, "error.log"))
		if err != nil {
			return 0
		}
		return strings.Count(string(log), "resuming normal operations")
	}
	before := starts()
	tb.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
		poll(tb, "httpd to reload after all", func() bool { return starts() > before })
	})
}
