package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigDefaults(t *testing.T) {
	t.Parallel()
	got, err := LoadConfig(filepath.Join(t.TempDir(), "absent.yaml"), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DataDir: "/var/lib/certferry-hub", Listen: "127.0.0.1:8600", PublicURL: "http://127.0.0.1:8600", EmailDomain: "127.0.0.1",
		SigningKey: "/var/lib/certferry-hub/keys/signing.key", EscrowKey: "/var/lib/certferry-hub/keys/escrow.key",
		JWTKey: "/var/lib/certferry-hub/jwt.key", CredentialsDir: "/var/lib/certferry-hub/credentials",
		ACMEDirectories: []string{
			"https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory",
			"https://acme.zerossl.com/v2/DV90", "https://dv.acme-v02.api.pki.goog/directory", "https://dv.acme-v02.test-api.pki.goog/directory",
			"https://acme.ssl.com/sslcom-dv-rsa", "https://acme.ssl.com/sslcom-dv-ecc", "https://acme-api.actalis.com/acme/directory",
		},
		ACMEStandalonePort: 80, ACMETLSPort: 443, ACMEWorkDir: "/var/lib/certferry-hub/acme/work", ACMEDNSWait: 2 * time.Minute, ACMEPreflight: "enforce", Workers: 8, IssuerWorkers: 4, ReconcileInterval: 10 * time.Second, HeartbeatInterval: time.Minute,
		StoreKeep: 90 * 24 * time.Hour, Review: "none", RolloutWaves: []string{"1", "10%"}, RolloutWaveTimeout: time.Hour,
		LogLevel: "info", LogFormat: "text",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if empty, err := LoadConfig(writeConfig(t, "# nothing yet\n"), true, nil); err != nil || cmp.Diff(got, empty) != "" {
		t.Errorf("an empty file gives %+v, %v", empty, err)
	}
}

func TestLoadConfigFileAndEnvironment(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
data_dir: /srv/certferry
listen: 0.0.0.0:443
public_url: https://hub.example.com/
tls_cert: /etc/certferry/hub.crt
tls_key: /etc/certferry/hub.key
acme_script: /opt/acme/acme.sh
reconcile_interval: 30s
`)
	got, err := LoadConfig(path, true, []string{
		"PATH=/bin", "CERTFERRY_HUB_CONFIG=/ignored", "CERTFERRY_AGENT_POLICY=/not/ours",
		"CERTFERRY_HUB_WORKERS=2", "CERTFERRY_HUB_HEARTBEAT_INTERVAL=5s", "CERTFERRY_HUB_LOG_LEVEL=debug",
		"CERTFERRY_HUB_ACME_DIRECTORIES=https://one.example/dir, https://two.example/dir",
		"CERTFERRY_HUB_ALLOW_PLAIN_HTTP=true", "CERTFERRY_HUB_JWT_KEY=/run/credentials/jwt",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DataDir: "/srv/certferry", Listen: "0.0.0.0:443", PublicURL: "https://hub.example.com", EmailDomain: "hub.example.com",
		TLSCert: "/etc/certferry/hub.crt", TLSKey: "/etc/certferry/hub.key", AllowPlainHTTP: true,
		SigningKey: "/srv/certferry/keys/signing.key", EscrowKey: "/srv/certferry/keys/escrow.key", JWTKey: "/run/credentials/jwt",
		ACMEScript: "/opt/acme/acme.sh", ACMEStandalonePort: 80, ACMETLSPort: 443, ACMEWorkDir: "/srv/certferry/acme/work", ACMEDNSWait: 2 * time.Minute, ACMEPreflight: "enforce",
		ACMEDirectories: []string{"https://one.example/dir", "https://two.example/dir"},
		CredentialsDir:  "/srv/certferry/credentials", Workers: 2, IssuerWorkers: 4, Review: "none", RolloutWaves: []string{"1", "10%"}, RolloutWaveTimeout: time.Hour, StoreKeep: 2160 * time.Hour,
		ReconcileInterval: 30 * time.Second, HeartbeatInterval: 5 * time.Second, LogLevel: "debug", LogFormat: "text",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadConfigRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text, env, want string
	}{
		{"unknown key", "listen: 127.0.0.1:1\nlissten: 127.0.0.1:2\n", "", `line 2: unknown key "lissten"`},
		{"key twice", "listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", "", `line 2: mapping key "listen" already defined at line 1`},
		{"wrong type", "workers: many\n", "", "line 1: cannot unmarshal !!str `many` into int"},
		{"no YAML", "listen: [\n", "", "line 1"},
		{"two documents", "listen: 127.0.0.1:1\n---\nworkers: 3\n", "", "more than one document"},
		{"relative path", "data_dir: here\n", "", "data_dir: must be an absolute path"},
		{"no port", "listen: localhost\n", "", "listen: must be an address and a port"},
		{"port out of range", "listen: localhost:70000\n", "", "listen: must be an address and a port"},
		{"plain HTTP for everybody", "listen: 0.0.0.0:8600\n", "", "listen: plain HTTP is spoken on loopback only"},
		{"plain HTTP on every interface", "listen: ':8600'\npublic_url: http://localhost:8600\n", "", "listen: plain HTTP is spoken on loopback only"},
		{"certificate without key", "tls_cert: /a\n", "", "tls_cert: goes together with tls_key"},
		{"public URL without scheme", "public_url: hub.example.com\n", "", "public_url: must be a URL"},
		{"public URL with a path", "public_url: https://hub.example.com/certferry\n", "", "public_url: must be scheme, host and port only"},
		{"public URL with credentials", "public_url: https://me@hub.example.com\n", "", "public_url: must be scheme, host and port only"},
		{"plain public URL", "public_url: http://hub.example.com\n", "", "public_url: must start with https://"},
		{"plain ACME", "acme_directories: ['http://acme.example/dir']\n", "", "acme_directories[0]: must be an https:// URL"},
		{"no workers", "workers: -1\n", "", "workers: must lie between"},
		{"no workers of an issuer", "issuer_workers: -1\n", "", "issuer_workers: must lie between"},
		{"no port", "acme_tls_port: 70000\n", "", "acme_tls_port: must be a port"},
		{"patience", "acme_dns_wait: 2h\n", "", "acme_dns_wait: must be at most"},
		{"hasty loop", "reconcile_interval: 1ms\n", "", "reconcile_interval: must lie between"},
		{"log level", "log_level: loud\n", "", "log_level: must be"},
		{"log format", "log_format: xml\n", "", "log_format: must be"},
		{"environment: unknown key", "", "CERTFERRY_HUB_LISTENN=x", "CERTFERRY_HUB_LISTENN: it is no key"},
		{"environment: lower case", "", "CERTFERRY_HUB_listen=x", "CERTFERRY_HUB_listen: it is no key"},
		{"environment: number", "", "CERTFERRY_HUB_WORKERS=x", "CERTFERRY_HUB_WORKERS: must be a whole number"},
		{"environment: truth", "", "CERTFERRY_HUB_ALLOW_PLAIN_HTTP=maybe", "must be true or false"},
		{"environment: duration", "", "CERTFERRY_HUB_RECONCILE_INTERVAL=5", "must be a duration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := LoadConfig(writeConfig(t, tc.text), true, []string{tc.env})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := LoadConfig(filepath.Join(t.TempDir(), "absent.yaml"), true, nil); err == nil {
		t.Error("a missing file that was asked for is no error")
	}
}

func TestConfigValues(t *testing.T) {
	t.Parallel()
	c := Config{Listen: "127.0.0.1:1", ReconcileInterval: time.Minute, Workers: 3}
	got := c.Values()
	if got["listen"] != "127.0.0.1:1" || got["reconcile_interval"] != "1m0s" || got["workers"] != 3 || len(got) != len(Keys()) {
		t.Errorf("values: %v", got)
	}
}

func TestConfigLogger(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"text": "level=WARN msg=hello", "json": `"msg":"hello"`} {
		var out bytes.Buffer
		c := Config{LogLevel: "warn", LogFormat: format}
		log := c.Logger(&out)
		log.Info("not this")
		log.Warn("hello")
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "not this") {
			t.Errorf("%s: %q", format, got)
		}
	}
	c := Config{LogLevel: "nonsense"}
	if c.Logger(&bytes.Buffer{}).Enabled(t.Context(), slog.LevelDebug) {
		t.Error("an unknown level logs debug lines")
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:8600\nworkers: 2\n"))
	f.Add([]byte("acme_directories: [https://a.example/d]\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c Config
		if decodeStrict(data, &c) == nil && c.Complete() == nil && c.DataDir == "" {
			t.Error("a complete configuration has no data_dir")
		}
	})
}
