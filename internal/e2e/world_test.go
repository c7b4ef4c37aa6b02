// Package e2e holds the tests that run all programs together: a real hub process, real agents, a real nginx and stock
// git, as a user would have them.
package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// bin holds the programs, fail the same with failpoints in them.
var bin, fail string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "certferry-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin, fail = filepath.Join(dir, "bin"), filepath.Join(dir, "fail")
	build := []string{"build"}
	// scripts/test wants to know which statements the programs themselves ran.
	if cover := os.Getenv("CERTFERRY_COVERDIR"); cover != "" {
		build = append(build, "-cover", "-covermode=atomic", "-coverpkg=github.com/certferry/certferry/...")
		if err := os.Setenv("GOCOVERDIR", cover); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	for _, args := range [][]string{
		{"-o", bin + "/", "../../cmd/certferry-hub", "../../cmd/certferry", "../../cmd/certferry-agent", "../../examples/tlssite"},
		{"-tags", "failpoints", "-o", fail + "/", "../../cmd/certferry-hub", "../../cmd/certferry-agent"},
	} {
		if out, err := exec.Command("go", slices.Concat(build, args)...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %s: %v\n%s", strings.Join(args, " "), err, out)
			return 1
		}
	}
	return m.Run()
}

// process is a running program.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

// Write keeps what the program says.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// stop ends the program and waits for it.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
}

// world is a hub with its operator.
type world struct {
	t      *testing.T
	dir    string
	config string
	hub    *process
	client *client.Client
	url    string
}

func (w *world) start(name string, env []string, program string, args ...string) *process {
	w.t.Helper()
	p := &process{name: name, done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	w.t.Cleanup(func() {
		p.stop()
		if w.t.Failed() {
			said := p.said()
			w.t.Logf("--- %s\n%s", p.name, said[max(0, len(said)-3000):])
		}
	})
	return p
}

func (w *world) do(input, program string, args ...string) string {
	w.t.Helper()
	out, err := w.try(input, nil, program, args...)
	if err != nil {
		w.t.Fatalf("%s %s: %v\n%s", filepath.Base(program), strings.Join(args, " "), err, out)
	}
	return out
}

func (w *world) try(input string, env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// await polls until done answers true.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(90 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

const password = "an operator's long passphrase"

func newWorld(t *testing.T, settings string) *world {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	w := &world{t: t, dir: dir, config: filepath.Join(dir, "hub.yaml"), url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	w.write("hub.yaml", fmt.Sprintf("data_dir: %s/hub\nlisten: 127.0.0.1:%d\nheartbeat_interval: 1s\nreconcile_interval: 1s\nlog_level: debug\n%s", dir, port, settings))
	w.do("", filepath.Join(bin, "certferry-hub"), "--config", w.config, "init")
	w.do(password+"\n", filepath.Join(bin, "certferry-hub"), "--config", w.config, "user", "add", "--role", "operator", "ops")
	return w
}

// serve starts the hub; env may name a failpoint.
func (w *world) serve(from string, env ...string) {
	w.t.Helper()
	w.hub = w.start("hub", env, filepath.Join(from, "certferry-hub"), "--config", w.config, "serve")
	w.await("the hub to answer", func() bool {
		select {
		case <-w.hub.done:
			return true
		default:
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// login makes the operator's client; its session survives a restart of the hub.
func (w *world) login() {
	w.t.Helper()
	var err error
	if w.client, err = client.New(client.Config{BaseURL: w.url}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Login(w.t.Context(), "ops", password); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("no TCP address")
	}
	return addr.Port
}

// server is a machine: what serves TLS there, and its agent.
type server struct {
	w                *world
	name, dns        string
	address, agent   string
	deployer         string
	cert, key, stuck string
	daemon           *process
}

// site makes a server that runs the TLS site of the examples.
func (w *world) site(name, dns string) *server {
	w.t.Helper()
	s := &server{w: w, name: name, dns: dns, deployer: "files", address: fmt.Sprintf("127.0.0.1:%d", freePort(w.t))}
	dir := filepath.Join(w.dir, name)
	s.cert, s.key, s.stuck = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "stuck")
	program, pid := filepath.Join(bin, "tlssite"), filepath.Join(dir, "pid")
	w.write(name+"/policy.yaml", fmt.Sprintf(`apiVersion: certferry/v1
kind: Policy
targets:
  site:
    deployer: files
    certificate: %s
    key: %s
    names: [%s]
    probe: {addresses: [%q], timeout: 3s}
    test: [%s, -check, -cert, %s, -key, %s]
    reload: [%s, -reload, -pid-file, %s]
`, s.cert, s.key, dns, s.address, program, s.cert, s.key, program, pid))
	w.start("tlssite "+name, nil, program, "-listen", s.address, "-cert", s.cert, "-key", s.key, "-pid-file", pid, "-stuck-file", s.stuck)
	return s
}

// nginx makes a server that runs a real nginx, with a self-signed certificate at first.
func (w *world) nginx(name, dns string) *server {
	w.t.Helper()
	program := "/usr/sbin/nginx"
	if _, err := os.Stat(program); err != nil {
		w.t.Skip("skipped: nginx is not installed")
	}
	s := &server{w: w, name: name, dns: dns, deployer: "nginx", address: fmt.Sprintf("127.0.0.1:%d", freePort(w.t))}
	dir := filepath.Join(w.dir, name)
	s.cert, s.key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	cert, key := selfSigned(w.t, dns)
	w.write(name+"/tls.crt", cert)
	w.write(name+"/tls.key", key)
	config := w.write(name+"/nginx.conf", fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log %[1]s/error.log; worker_processes 2; events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen %[2]s ssl; server_name %[3]s; ssl_certificate %[4]s; ssl_certificate_key %[5]s; return 200 "ok\n"; } }
`, dir, s.address, dns, s.cert, s.key))
	w.write(name+"/policy.yaml", fmt.Sprintf(`apiVersion: certferry/v1
kind: Policy
targets:
  site:
    deployer: nginx
    certificate: %s
    key: %s
    names: [%s]
    probe: {addresses: [%q]}
    instance: {pidFile: %s/pid}
`, s.cert, s.key, dns, s.address, dir))
	w.start("nginx "+name, nil, program, "-p", dir, "-c", config, "-e", dir+"/error.log")
	w.await("nginx to serve", func() bool { return s.seen() != "" })
	return s
}

func selfSigned(t *testing.T, dns string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: dns}, DNSNames: []string{dns},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// enrol registers the server's agent, as an administrator on it would, and approves it, as an operator would.
func (s *server) enrol(labels map[string]string) {
	t := s.w.t
	t.Helper()
	s.agent = s.w.write(s.name+"/agent.yaml", fmt.Sprintf("state_dir: %[1]s/state\npolicy: %[1]s/policy.yaml\npoll_interval: 300ms\nlog_level: debug\n", filepath.Join(s.w.dir, s.name)))
	token, err := s.w.client.CreateJoinToken(t.Context(), apiv1.JoinTokenRequest{Server: s.name, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	s.w.do(token.Token+"\n", filepath.Join(bin, "certferry-agent"), "--config", s.agent, "enroll",
		"--hub", s.w.url, "--name", s.name, "--root-fingerprint", token.RootFingerprint)
	if out, err := s.w.try(token.Token+"\n", nil, filepath.Join(bin, "certferry-agent"), "--config", s.agent, "enroll",
		"--force", "--hub", s.w.url, "--name", s.name, "--root-fingerprint", token.RootFingerprint); err == nil {
		t.Errorf("a join token worked twice:\n%s", out)
	}
	registered, err := s.w.client.Server(t.Context(), s.name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.w.client.ApproveServer(t.Context(), s.name, strings.Repeat("0", 40)); client.StatusOf(err) != 409 {
		t.Errorf("approved with a wrong fingerprint: %v", err)
	}
	if _, err := s.w.client.ApproveServer(t.Context(), s.name, registered.Fingerprint); err != nil {
		t.Fatal(err)
	}
}

// run starts the agent; env may name a failpoint.
func (s *server) run(from string, env ...string) {
	s.w.t.Helper()
	s.daemon = s.w.start("agent "+s.name, env, filepath.Join(from, "certferry-agent"), "--config", s.agent, "run")
}

// seen is the SHA-256 of the leaf that a TLS client gets now, empty where it gets none.
func (s *server) seen() string {
	leaf, _ := s.handshake()
	if leaf == nil {
		return ""
	}
	return bundle.LeafSHA256(leaf)
}

func (s *server) handshake() (*x509.Certificate, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	conn, err := tls.DialWithDialer(dialer, "tcp", s.address, &tls.Config{ServerName: s.dns, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// load shakes hands with the server without pause until stop is called, which says how often and how often in vain.
func (s *server) load(workers int) (stop func() (tried, failed int64)) {
	ctx, cancel := context.WithCancel(context.Background())
	var tried, failed atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for ctx.Err() == nil {
				tried.Add(1)
				if leaf, err := s.handshake(); err != nil || leaf.VerifyHostname(s.dns) != nil {
					failed.Add(1)
				}
			}
		})
	}
	s.w.t.Cleanup(cancel)
	return func() (int64, int64) {
		cancel()
		group.Wait()
		return tried.Load(), failed.Load()
	}
}

// deployed waits until the certificate's newest issue, other than old, is served by all servers, and returns its leaf.
func (w *world) deployed(certificate, old string, servers ...*server) string {
	w.t.Helper()
	leaf := ""
	w.await(certificate+" to be deployed", func() bool {
		x, err := w.client.Certificate(w.t.Context(), certificate)
		if err != nil || x.Issued == nil || x.Issued.LeafSHA256 == old || len(x.Placed) != len(servers) {
			return false
		}
		for _, d := range x.Placed {
			if d.State != apiv1.DeploymentDeployed || d.WantLeafSHA256 != x.Issued.LeafSHA256 {
				return false
			}
		}
		leaf = x.Issued.LeafSHA256
		return true
	})
	for _, s := range servers {
		if got := s.seen(); got != leaf {
			w.t.Errorf("%s reports %s deployed, but a client sees %.12s, want %.12s", s.name, certificate, got, leaf)
		}
	}
	return leaf
}

func (w *world) renew(certificate string) {
	w.t.Helper()
	if _, err := w.client.RenewCertificate(w.t.Context(), certificate, apiv1.RenewRequest{Reason: "test"}); err != nil {
		w.t.Fatal(err)
	}
}
