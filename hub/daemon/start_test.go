package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/issuer/privateca"
)

func TestStartsThatAreRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // the parallel subtests outlive this function
	for _, tc := range []struct {
		name  string
		spoil func(tb testing.TB, cfg *Config)
		want  string
	}{
		{"taken port", func(_ testing.TB, cfg *Config) { cfg.Listen = taken.Addr().String() }, "another program has this port: stop it"},
		{"address of another machine", func(_ testing.TB, cfg *Config) { cfg.Listen, cfg.AllowPlainHTTP = "192.0.2.1:0", true }, "does not have that address"},
		{"bad configuration", func(_ testing.TB, cfg *Config) { cfg.Workers = -1 }, "workers: must lie between"},
		{"readable key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			chmod(tb, filepath.Join(cfg.paths().keys(), "signing.key"), 0o640)
		}, "others may read it"},
		{"missing key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			remove(tb, filepath.Join(cfg.paths().keys(), "escrow.key"))
		}, "read escrow key"},
		{"damaged key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.paths().keys(), "escrow.key"), "no key")
		}, "read escrow key"},
		{"damaged root key", func(tb testing.TB, cfg *Config) { tb.Helper(); overwrite(tb, cfg.paths().rootPub(), "no key") }, "read root key"},
		{"missing root key", func(tb testing.TB, cfg *Config) { tb.Helper(); remove(tb, cfg.paths().rootPub()) }, "read root key"},
		{"keyring that nobody signed", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			data, err := os.ReadFile(cfg.paths().keyring())
			if err != nil {
				tb.Fatal(err)
			}
			overwrite(tb, cfg.paths().keyring(), strings.Replace(string(data), `"version":1`, `"version":2`, 1))
		}, "not signed by the root key"},
		{"keyring without signature", func(tb testing.TB, cfg *Config) { tb.Helper(); remove(tb, cfg.paths().keyringSig()) }, "signature"},
		{"short token key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.DataDir, "jwt.key"), "c2hvcnQ=")
		}, "base64 of at least 32 bytes"},
		{"huge key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.DataDir, "jwt.key"), strings.Repeat("A", 1<<20))
		}, "too large"},
		{"key that is a folder", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			remove(tb, filepath.Join(cfg.DataDir, "jwt.key"))
			if err := os.Mkdir(filepath.Join(cfg.DataDir, "jwt.key"), 0o700); err != nil {
				tb.Fatal(err)
			}
		}, "not a file"},
		{"no TLS certificate", func(_ testing.TB, cfg *Config) { cfg.TLSCert, cfg.TLSKey = "/nonexistent/a", "/nonexistent/b" }, "read TLS certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := initialised(t)
			tc.spoil(t, &cfg)
			_, err := New(t.Context(), cfg, options(io.Discard, io.Discard))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			// What was opened was closed: the folder is free.
			held, err := takeLock(cfg.paths())
			if err != nil {
				t.Fatal(err)
			}
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := New(t.Context(), newConfig(t), Options{}); err == nil {
		t.Error("no options: no error")
	}
}

func chmod(tb testing.TB, path string, mode fs.FileMode) {
	tb.Helper()
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

func remove(tb testing.TB, path string) {
	tb.Helper()
	if err := os.Remove(path); err != nil {
		tb.Fatal(err)
	}
}

func overwrite(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

func TestTLSListenerTakesANewCertificate(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	ca := filepath.Join(t.TempDir(), "ca")
	if err := privateca.Init(ca, "Test", time.Now()); err != nil {
		t.Fatal(err)
	}
	signer, err := privateca.New(privateca.Config{Dir: ca, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "hub.crt"), filepath.Join(dir, "hub.key")
	first := writePair(t, signer, &cfg)
	h, _, _, stop := running(t, cfg)
	if !strings.HasPrefix(h.URL(), "https://127.0.0.1:") {
		t.Errorf("address is %s", h.URL())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(signer.RootPEM())
	served := func() string {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		return response.TLS.PeerCertificates[0].SerialNumber.String()
	}
	if got := served(); got != first {
		t.Errorf("served %s, want %s", got, first)
	}
	second := writePair(t, signer, &cfg)
	if got := served(); got != second {
		t.Errorf("served %s after the change, want %s", got, second)
	}
	// Half a change is not served.
	overwrite(t, cfg.TLSKey, "no key")
	if got := served(); got != second {
		t.Error("a damaged key ended the service")
	}
	remove(t, cfg.TLSKey)
	if got := served(); got != second {
		t.Error("a missing key ended the service")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
