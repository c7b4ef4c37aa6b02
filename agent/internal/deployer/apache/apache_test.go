package apache_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/apache"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore/bundle"
)

func newDeployer() *apache.Deployer {
	return apache.New(apache.Config{Run: deployer.RunEnv, ReloadBudget: 3 * time.Second})
}

func target(s *deployertest.Server) agent.Target {
	return agent.Target{
		Name: "site", Deployer: "apache", Certificate: s.Certificate, Key: s.Key,
		Instance: agent.Selector{Config: s.Config},
	}
}

func harness(tb testing.TB, b *bundle.Bundle) *deployertest.Harness {
	tb.Helper()
	s := deployertest.StartApache(tb, b)
	return &deployertest.Harness{
		Deployer: newDeployer(), Server: s, Target: target(s),
		Break:       func() { s.WriteApacheConfig(tb, "NoSuchDirective on") },
		Jam:         func() { s.JamApache(tb) },
		KnowsServer: true,
	}
}

// TestConformance on a real httpd.
func TestConformance(t *testing.T) {
	t.Parallel()
	deployertest.Program(t, "apache2")
	deployertest.Run(t, harness)
}

// rsaPair makes a self-signed pair with an RSA key.
func rsaPair(tb testing.TB, bits int) (certificate, key []byte) {
	tb.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "rsa.test"}, DNSNames: []string{"rsa.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		tb.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
}

// TestForeignPair: a bad pair elsewhere in the configuration passes httpd's own test, and a reload would end the
// server. The test here fails, and nothing is signalled.
func TestForeignPair(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	good, other := ca.Issue(t, "other.test"), ca.Issue(t, "other.test")
	goodKey, err1 := good.KeyPEM()
	otherKey, err2 := other.KeyPEM()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	weakCertificate, weakKey := rsaPair(t, 1024)
	rsaCertificate, rsaKey := rsaPair(t, 2048)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")})
	tests := []struct {
		name             string
		certificate, key []byte
		extra            string
		want             string // part of the output; empty where all is well
	}{
		{name: "good", certificate: good.FullChainPEM(), key: goodKey},
		{name: "good RSA", certificate: rsaCertificate, key: rsaKey},
		{name: "garbage key", certificate: good.FullChainPEM(), key: []byte("garbage"), want: "other.key: it holds no private key"},
		{name: "damaged key", certificate: good.FullChainPEM(), key: []byte(strings.Replace(string(goodKey), "M", "!", 1)), want: "other.key: a PEM block is damaged"},
		{name: "garbage in PEM", certificate: good.FullChainPEM(), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), want: "damaged or of an unknown kind"},
		{name: "encrypted key", certificate: good.FullChainPEM(), key: encrypted, want: "is encrypted"},
		{name: "RSA-1024", certificate: weakCertificate, key: weakKey, want: "1024 bits"},
		{name: "EC certificate, RSA key", certificate: good.FullChainPEM(), key: rsaKey, want: "the private key is RSA, but the certificate is for ECDSA P-256"},
		{name: "key of another", certificate: good.FullChainPEM(), key: otherKey, want: "not that of the certificate"},
		{name: "garbage certificate", certificate: []byte("garbage"), key: goodKey, want: "other.pem: it holds no certificate"},
		{name: "certificate of garbage", certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), key: goodKey, want: "parse certificate"},
		{name: "host without a pair", certificate: good.FullChainPEM(), key: goodKey, extra: "<VirtualHost *>\nSSLEngine on\n</VirtualHost>", want: "httpd does not start so"},
		{name: "client pair", certificate: good.FullChainPEM(), key: goodKey, extra: "SSLProxyEngine on\nSSLProxyMachineCertificateFile client.pem", want: "client.pem: the private key is not that"},
		{name: "chain", certificate: good.FullChainPEM(), key: goodKey, extra: "SSLCertificateChainFile damaged.pem", want: "damaged.pem: a PEM block is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := ca.Issue(t, deployertest.Name)
			s := deployertest.StartApache(t, first)
			site := deployertest.Site{Name: "other.test", Certificate: filepath.Join(s.Dir, "other.pem"), Key: filepath.Join(s.Dir, "other.key")}
			err := errors.Join(os.WriteFile(site.Certificate, tt.certificate, 0o600), os.WriteFile(site.Key, tt.key, 0o600),
				os.WriteFile(filepath.Join(s.Dir, "client.pem"), append(good.LeafPEM(), otherKey...), 0o600),
				os.WriteFile(filepath.Join(s.Dir, "damaged.pem"), []byte("-----BEGIN CERTIFICATE-----\n"), 0o600))
			if err != nil {
				t.Fatal(err)
			}
			s.WriteApacheConfig(t, tt.extra, site)
			deployertest.WritePair(t, ca.Issue(t, deployertest.Name), s.Certificate, s.Key)
			test := newDeployer().Test(t.Context(), target(s))
			reload := newDeployer().Reload(t.Context(), target(s))
			if tt.want == "" {
				if err := errors.Join(test, reload); err != nil {
					t.Error(err)
				}
				return
			}
			for phase, err := range map[agent.Phase]error{agent.PhaseTest: test, agent.PhaseReload: reload} {
				var step *agent.StepError
				if !errors.As(err, &step) || step.Phase != phase || !strings.Contains(step.Output, tt.want) {
					t.Errorf("%s: error %v, want %q", phase, err, tt.want)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the error tells what is in the key: %v", err)
				}
			}
			if log, err := os.ReadFile(filepath.Join(s.Dir, "error.log")); err != nil || strings.Contains(string(log), "SIGUSR1") {
				t.Errorf("httpd was signalled: %v\n%s", err, log)
			}
			if got := s.Served(t, deployertest.Name); got != first.LeafSHA256() {
				t.Error("another certificate is served")
			}
		})
	}
}

// TestDeath: what the gate cannot see ends httpd on a reload. The error says that the server is down.
func TestDeath(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	s := deployertest.StartApache(t, ca.Issue(t, deployertest.Name))
	s.WriteApacheConfig(t, "SSLCipherSuite no-such-cipher")
	if err := newDeployer().Test(t.Context(), target(s)); err != nil {
		t.Fatal(err)
	}
	err := newDeployer().Reload(t.Context(), target(s))
	var step *agent.StepError
	if !errors.As(err, &step) || step.Phase != agent.PhaseReload || !errors.Is(err, agent.ErrNotRunning) || !strings.Contains(err.Error(), "the server is down") {
		t.Errorf("error %v", err)
	}
}

// TestUnderLoad: no handshake fails while certificates change.
func TestUnderLoad(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	b := ca.Issue(t, deployertest.Name)
	s := deployertest.StartApache(t, b)
	leaves := []string{b.LeafSHA256()}
	hammer := deployertest.StartHammer(t, s.Address, deployertest.Name, 4)
	d := newDeployer()
	for range 5 {
		next := ca.Issue(t, deployertest.Name)
		deployertest.WritePair(t, next, s.Certificate, s.Key)
		if err := errors.Join(d.Test(t.Context(), target(s)), d.Reload(t.Context(), target(s))); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, next.LeafSHA256())
		if got := s.Served(t, deployertest.Name); got != next.LeafSHA256() {
			t.Error("the new certificate is not served")
		}
	}
	hammer.Check(t, leaves...)
}

// TestEnvironment: the configuration is tested with the variables that the server was started with.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	s := deployertest.StartApache(t, ca.Issue(t, deployertest.Name))
	// The one variable with a value of its own that servers get here.
	name := strings.Repeat("x", 64) + ".conf"
	if err := os.WriteFile(filepath.Join(s.Dir, name), []byte("Define included\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.WriteApacheConfig(t, "Include ${PADDING}.conf\n<IfDefine !included>\nNoSuchDirective\n</IfDefine>")
	if err := newDeployer().Test(t.Context(), target(s)); err != nil {
		t.Error(err)
	}
}

// TestWhichParent starts two instances and names one of them in each way that a policy can.
func TestWhichParent(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	one := deployertest.StartApache(t, ca.Issue(t, deployertest.Name))
	two := deployertest.StartApache(t, ca.Issue(t, deployertest.Name))
	two.WriteApacheConfig(t, "NoSuchDirective on")
	link := filepath.Join(t.TempDir(), "apache2")
	if err := os.Symlink(one.Binary, link); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "httpd.pid")
	empty := filepath.Join(t.TempDir(), "empty.pid")
	if err := errors.Join(os.WriteFile(wrong, []byte(strconv.Itoa(os.Getpid())), 0o600), os.WriteFile(empty, []byte("\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		selector agent.Selector
		want     string // part of the error, empty for success
		stopped  bool
	}{
		{name: "config", selector: agent.Selector{Config: one.Config}},
		{name: "prefix", selector: agent.Selector{Prefix: one.Dir + "/"}},
		{name: "pid file", selector: agent.Selector{PIDFile: one.PIDFile}},
		{name: "all", selector: agent.Selector{PIDFile: one.PIDFile, Prefix: one.Dir, Config: one.Config, Binary: one.Binary}},
		{name: "binary by link", selector: agent.Selector{Config: one.Config, Binary: link}},
		{name: "the other", selector: agent.Selector{Config: two.Config}, want: "NoSuchDirective"},
		{name: "ambiguous", selector: agent.Selector{Binary: one.Binary}, want: "which of several servers is meant is not clear"},
		{name: "none", selector: agent.Selector{Config: "/nowhere/httpd.conf"}, want: "start httpd", stopped: true},
		{name: "other binary", selector: agent.Selector{Config: one.Config, Binary: "/usr/bin/env"}, want: "not the policy's /usr/bin/env", stopped: true},
		{name: "no pid file", selector: agent.Selector{PIDFile: "/nowhere/httpd.pid"}, want: "pid file", stopped: true},
		{name: "empty pid file", selector: agent.Selector{PIDFile: empty}, want: "does not hold a process id", stopped: true},
		{name: "wrong pid file", selector: agent.Selector{PIDFile: wrong}, want: "which is no httpd parent", stopped: true},
		{name: "pid file and other config", selector: agent.Selector{PIDFile: one.PIDFile, Config: two.Config}, want: "start httpd", stopped: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newDeployer().Test(t.Context(), agent.Target{Instance: tt.selector})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if errors.Is(err, agent.ErrNotRunning) != tt.stopped {
				t.Errorf("error %v says not running: %v", err, !tt.stopped)
			}
		})
	}
}

// TestReplacedBinary: after an upgrade removed the binary, the running parent is tested by its own code.
func TestReplacedBinary(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "apache2")
	if out, err := exec.Command("cp", deployertest.Program(t, "apache2"), binary).CombinedOutput(); err != nil {
		t.Fatalf("copy httpd: %v: %s", err, out)
	}
	ca := deployertest.NewCA(t, time.Now())
	s := deployertest.StartApacheBinary(t, binary, ca.Issue(t, deployertest.Name))
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	selected := target(s)
	selected.Instance.Binary = binary
	if err := errors.Join(newDeployer().Test(t.Context(), selected), newDeployer().Reload(t.Context(), selected)); err != nil {
		t.Error(err)
	}
}
