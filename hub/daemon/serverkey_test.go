package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	agentdaemon "github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

const shop = "shop.example.com"

// webServer is a real nginx with a client that never stops connecting.
type webServer struct {
	dir, address, cert, key, config string

	handshakes, failures atomic.Int64
	lastErr              atomic.Pointer[error]
	leaf                 atomic.Pointer[string]
}

func startWebServer(t *testing.T) *webServer {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("SKIP: nginx is not installed; make test installs it on Debian")
		}
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	dir := t.TempDir()
	s := &webServer{
		dir: dir, address: l.Addr().String(), cert: filepath.Join(dir, "site.pem"), key: filepath.Join(dir, "site.key"), config: filepath.Join(dir, "nginx.conf"),
	}
	placeholder, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN="+shop,
		"-addext", "subjectAltName=DNS:"+shop, "-days", "2", "-keyout", s.key, "-out", s.cert).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, placeholder)
	}
	must(t, os.WriteFile(s.config, fmt.Appendf(nil, `worker_processes 2;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log notice;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
  server { listen %[2]s ssl; server_name _; ssl_certificate %[3]s; ssl_certificate_key %[4]s; location / { return 200 "ok\n"; } }
}
`, dir, s.address, s.cert, s.key), 0o600))
	cmd := exec.Command(binary, "-p", dir, "-c", s.config, "-e", filepath.Join(dir, "error.log"), "-g", "daemon off;")
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	await(t, "nginx", func() bool { _, err := s.handshake(t.Context()); return err == nil })
	s.hammer(t)
	return s
}

func (s *webServer) handshake(ctx context.Context) (leaf string, err error) {
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config:    &tls.Config{InsecureSkipVerify: true, ServerName: shop},
	}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return "", errors.New("no TLS connection")
	}
	sum := sha256.Sum256(secured.ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:]), nil
}

// hammer connects without a pause until the test ends.
func (s *webServer) hammer(t *testing.T) {
	t.Helper()
	stop := make(chan struct{})
	var loops sync.WaitGroup
	loops.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			leaf, err := s.handshake(context.WithoutCancel(t.Context()))
			s.handshakes.Add(1)
			if err != nil {
				s.failures.Add(1)
				s.lastErr.Store(&err)
				continue
			}
			s.leaf.Store(&leaf)
		}
	})
	t.Cleanup(func() { close(stop); loops.Wait() })
}

func (s *webServer) awaitLeaf(t *testing.T, leaf string) {
	t.Helper()
	await(t, "leaf "+leaf+" in clients' hands", func() bool { p := s.leaf.Load(); return p != nil && *p == leaf })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runAgent enrols and runs an agent for the nginx; its folder is answered.
func runAgent(t *testing.T, c *client.Client, s *webServer) (a *agentdaemon.Agent, stateDir string, stop func()) {
	t.Helper()
	token, err := c.CreateJoinToken(t.Context(), apiv1.JoinTokenRequest{Server: "web-1", PreApproved: true})
	must(t, err)
	dir := t.TempDir()
	cfg := agentdaemon.Config{
		StateDir: filepath.Join(dir, "state"), Policy: filepath.Join(dir, "policy.yaml"), PollInterval: 500 * time.Millisecond,
		LogLevel: "info", LogFormat: "text",
	}
	must(t, os.WriteFile(cfg.Policy, fmt.Appendf(nil, `apiVersion: certferry/v1
kind: Policy
targets:
  site:
    deployer: nginx
    certificate: %s
    key: %s
    names: [%s]
    probe: {addresses: [%q], timeout: 10s}
    instance: {config: %s}
`, s.cert, s.key, shop, s.address, s.config), 0o600))
	env := agentdaemon.Environment{Version: "test", Now: time.Now, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	_, err = agentdaemon.Enroll(t.Context(), cfg, "test", agentdaemon.EnrollRequest{
		HubURL: token.HubURL, Name: "web-1", Token: token.Token, RootFingerprint: token.RootFingerprint,
	}, env)
	must(t, err)
	a, err = agentdaemon.New(cfg, env)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return a, cfg.StateDir, stop
}

// TestKeyThatNeverLeavesItsServer issues, renews and rolls back a certificate whose key nginx's own server makes, before
// the eyes of a client that never stops connecting, and then searches all that the hub has for the keys.
func TestKeyThatNeverLeavesItsServer(t *testing.T) {
	t.Parallel()
	site := startWebServer(t)
	cfg, _ := initialised(t)
	cfg.HeartbeatInterval = time.Second
	h, notices, log, stop := running(t, cfg)
	c := admin(t, h.URL(), setupCode(t, notices))
	agent, stateDir, stopAgent := runAgent(t, c, site)
	created, err := c.CreateCertificate(t.Context(), apiv1.CertificateSpec{
		Name: "shop", Names: []string{shop}, Issuer: DefaultIssuer, KeyCustody: "server",
		Deployments: []apiv1.Placement{{Server: "web-1", Deployer: "nginx", Target: "site"}},
	})
	if err != nil || created.KeyCustody != "server" {
		t.Fatalf("created %+v, %v", created, err)
	}
	leafAfter := func(old string) *apiv1.Issued {
		t.Helper()
		var x apiv1.Certificate
		await(t, "an issue after "+old, func() bool {
			var err error
			x, err = c.Certificate(t.Context(), "shop")
			return err == nil && x.Issued != nil && x.Issued.LeafSHA256 != old
		})
		if x.Issued.KeyServer != "web-1" {
			t.Errorf("issued %+v, want the key on web-1", x.Issued)
		}
		site.awaitLeaf(t, x.Issued.LeafSHA256)
		return x.Issued
	}
	first := leafAfter("")
	_, err = c.RenewCertificate(t.Context(), "shop", apiv1.RenewRequest{Reason: "test"})
	must(t, err)
	second := leafAfter(first.LeafSHA256)
	if first.SPKISHA256 == second.SPKISHA256 {
		t.Error("the renewal has the key of the first issue")
	}
	_, err = c.RollbackCertificate(t.Context(), "shop", apiv1.RollbackRequest{Reason: "test"})
	must(t, err)
	if back := leafAfter(second.LeafSHA256); back.LeafSHA256 != first.LeafSHA256 {
		t.Errorf("rolled back to %s, want %s", back.LeafSHA256, first.LeafSHA256)
	}
	// And by the server's own administrator, to the second issue, without the hub.
	await(t, "the report of the roll back", func() bool {
		x, err := c.Certificate(t.Context(), "shop")
		return err == nil && len(x.Placed) == 1 && x.Placed[0].LeafSHA256 == first.LeafSHA256
	})
	if _, err := agent.Rollback(t.Context(), ""); err != nil {
		t.Error(err)
	}
	site.awaitLeaf(t, second.LeafSHA256)
	stopAgent()
	must(t, stop())
	t.Logf("%d handshakes, %d failed", site.handshakes.Load(), site.failures.Load())
	if n := site.failures.Load(); n > 0 {
		t.Errorf("%d handshakes failed, the last with: %v", n, *site.lastErr.Load())
	}
	searchForKeys(t, &cfg, stateDir, log.String(), first, second)
}

// searchForKeys looks for the server's keys in all that the hub has: files, the database, the log, each Git object, and
// each bundle that the server can open.
func searchForKeys(t *testing.T, cfg *Config, stateDir, log string, first, second *apiv1.Issued) {
	t.Helper()
	needles := keyNeedles(t, stateDir)
	haystacks := map[string][]byte{"log": []byte(log), "Git objects": allObjects(t, cfg)}
	must(t, filepath.WalkDir(cfg.DataDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		haystacks[path] = data
		return err
	}))
	for name, data := range openBundles(t, cfg, stateDir) {
		haystacks[name] = data
		if bytes.Contains(data, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a private key", name)
		}
	}
	found := map[string]bool{}
	for name, data := range haystacks {
		for needle := range needles {
			if bytes.Contains(data, []byte(needle)) {
				t.Errorf("a private key of the server, or a part of it, is in %s", name)
			}
		}
		for _, spki := range []string{first.SPKISHA256, second.SPKISHA256} {
			found[spki] = found[spki] || bytes.Contains(data, []byte(spki))
		}
	}
	// The search sees: the hashes of the public keys are found.
	if len(needles) < 8 || !found[first.SPKISHA256] || !found[second.SPKISHA256] {
		t.Errorf("the search is blind: %d needles in %d files, %v", len(needles), len(haystacks), found)
	}
}

// keyNeedles are the forms in which the server's keys could be anywhere.
func keyNeedles(t *testing.T, stateDir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(stateDir, "keys", "*.json"))
	must(t, err)
	needles := map[string]bool{}
	for _, path := range files {
		data, err := os.ReadFile(path)
		must(t, err)
		var stored struct {
			Key string `json:"key"`
		}
		must(t, json.Unmarshal(data, &stored))
		key, err := bundle.ParseKey([]byte(stored.Key))
		must(t, err)
		private, ok := key.(*ecdsa.PrivateKey)
		if !ok {
			t.Fatalf("%s holds a %T", path, key)
		}
		secret, err := private.Bytes()
		must(t, err)
		needles[string(secret)] = true
		needles[hex.EncodeToString(secret)] = true
		needles[base64.StdEncoding.EncodeToString(secret)] = true
		needles[strings.Split(stored.Key, "\n")[2]] = true // the line of base64 that the secret is in
	}
	return needles
}

// allObjects is the content of each object of the hub's repository.
func allObjects(t *testing.T, cfg *Config) []byte {
	t.Helper()
	must(t, cfg.Complete())
	cmd := exec.CommandContext(t.Context(), "git", "--git-dir", cfg.paths().repo(), "cat-file", "--batch", "--batch-all-objects")
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+t.TempDir(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("SKIP: git is not installed; make test installs it on Debian")
	}
	must(t, err)
	return out
}

// openBundles opens each bundle that ever stood on the server's branch with the server's own key.
func openBundles(t *testing.T, cfg *Config, stateDir string) map[string][]byte {
	t.Helper()
	k, err := loadKeys(cfg, time.Now())
	must(t, err)
	store, err := openStore(cfg, k, time.Now, slog.New(slog.DiscardHandler))
	must(t, err)
	defer func() { must(t, store.Close()) }()
	armored, err := os.ReadFile(filepath.Join(stateDir, "key.asc"))
	must(t, err)
	key, err := seal.ParsePrivateKey(armored)
	must(t, err)
	history, err := store.ServerHistory("web-1", 100)
	must(t, err)
	opened := map[string][]byte{}
	for _, commit := range history {
		for _, d := range commit.Manifest.Deployments {
			if d.Key != manifest.CustodyServer {
				t.Errorf("generation %d of web-1 says that the key is in the bundle", commit.Manifest.Generation)
			}
			sealed, err := store.Repo().ReadFile(commit.Hash, d.Bundle)
			must(t, err)
			plain, err := seal.Open(sealed, key, []*seal.PublicKey{k.signing.Public()}, time.Now())
			must(t, err)
			opened[fmt.Sprintf("%s of generation %d", d.Bundle, commit.Manifest.Generation)] = plain
		}
	}
	if len(opened) < 3 {
		t.Errorf("%d bundles were opened, want those of three issues", len(opened))
	}
	return opened
}
