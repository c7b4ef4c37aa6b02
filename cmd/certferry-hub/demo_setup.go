// This file puts the demo's world together: hub, agents, the TLS site and nginx.

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// demoHub is the hub and the operator that steers it. The administrator stays to be made by whoever watches.
type demoHub struct {
	url    string
	client *client.Client
	issuer string
}

// startHub makes a hub, gives it an operator's account and starts it.
func (d *demo) startHub(ctx context.Context) error {
	config := filepath.Join(d.dir, "hub.yaml")
	settings := fmt.Sprintf("data_dir: %s\nlisten: 127.0.0.1:0\nheartbeat_interval: 1s\nreconcile_interval: 2s\n", filepath.Join(d.dir, "hub"))
	d.hub = &demoHub{issuer: "private-ca"}
	var ca *demoCA
	if d.acme {
		var err error
		if ca, err = d.startPebble(ctx); err != nil {
			return err
		}
		settings += ca.settings
		d.hub.issuer = "pebble"
	}
	if err := os.WriteFile(config, []byte(settings), 0o600); err != nil {
		return err
	}
	hub := filepath.Join(d.bin, "certferry-hub")
	if err := d.do(ctx, "", hub, "--config", config, "init"); err != nil {
		return err
	}
	if ca != nil {
		if err := d.do(ctx, "", hub, "--config", config, "issuer", "add", "--directory", ca.directory, "--email", "ops@example.com", "pebble"); err != nil {
			return err
		}
	}
	password := rand.Text()
	if err := d.do(ctx, password+"\n", hub, "--config", config, "user", "add", "--role", "operator", "demo"); err != nil {
		return err
	}
	process, err := d.spawn("hub", nil, hub, "--config", config, "serve")
	if err != nil {
		return err
	}
	address, err := process.line(ctx, "console: ")
	if err != nil {
		return err
	}
	d.hub.url = strings.TrimSuffix(address, "/")
	code, err := process.line(ctx, "setup code: ")
	if err != nil {
		return err
	}
	d.say("hub", "console %s/  setup code %s", d.hub.url, code)
	if d.hub.client, err = client.New(client.Config{BaseURL: d.hub.url, UserAgent: "certferry-demo"}); err != nil {
		return err
	}
	_, err = d.hub.client.Login(ctx, "demo", password)
	return err
}

// demoSite is one server: an agent, the software that serves TLS, and the certificate that it gets.
type demoSite struct {
	server, certificate, name, address string
	deployer                           string
	// stuck is the file that makes the TLS site ignore reloads.
	stuck string
	agent string
}

// enrol starts what serves TLS and enrols an agent for each.
func (d *demo) enrol(ctx context.Context) error {
	site, err := d.startSite(ctx)
	if err != nil {
		return err
	}
	d.sites = append(d.sites, site)
	if nginx, err := findNginx(); err == nil {
		web, err := d.startNginx(ctx, nginx)
		if err != nil {
			return err
		}
		d.sites = append(d.sites, web)
	} else {
		d.say("nginx", "is not installed, so only the TLS site of the examples is shown")
	}
	for _, s := range d.sites {
		if err := d.enrolAgent(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.server, err)
		}
	}
	return nil
}

func findNginx() (string, error) {
	for _, path := range []string{"/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/local/nginx/sbin/nginx"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("nginx")
}

// enrolAgent registers an agent with a join token, approves its fingerprint as a person would, and starts it.
func (d *demo) enrolAgent(ctx context.Context, s *demoSite) error {
	s.agent = filepath.Join(d.dir, s.server, "agent.yaml")
	config := fmt.Sprintf("state_dir: %s\npolicy: %s\npoll_interval: 500ms\n",
		filepath.Join(d.dir, s.server, "state"), filepath.Join(d.dir, s.server, "policy.yaml"))
	if err := os.WriteFile(s.agent, []byte(config), 0o600); err != nil {
		return err
	}
	token, err := d.hub.client.CreateJoinToken(ctx, apiv1.JoinTokenRequest{Server: s.server})
	if err != nil {
		return err
	}
	agent := filepath.Join(d.bin, "certferry-agent")
	if err := d.do(ctx, token.Token+"\n", agent, "--config", s.agent, "enroll",
		"--hub", d.hub.url, "--name", s.server, "--root-fingerprint", token.RootFingerprint); err != nil {
		return err
	}
	registered, err := d.hub.client.Server(ctx, s.server)
	if err != nil {
		return err
	}
	if _, err := d.hub.client.ApproveServer(ctx, s.server, registered.Fingerprint); err != nil {
		return err
	}
	if _, err := d.spawn("agent "+s.server, nil, agent, "--config", s.agent, "run"); err != nil {
		return err
	}
	d.say("enrol", "%s with key %s, approved", s.server, registered.Fingerprint)
	return nil
}

// startSite starts the TLS site of the examples, which has no certificate yet.
func (d *demo) startSite(ctx context.Context) (*demoSite, error) {
	s := &demoSite{server: "site-1", certificate: "site", name: "site.demo.test", deployer: "files"}
	dir := filepath.Join(d.dir, s.server)
	if err := os.MkdirAll(filepath.Join(dir, "tls"), 0o700); err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.address, s.stuck = fmt.Sprintf("127.0.0.1:%d", port), filepath.Join(dir, "stuck")
	program := filepath.Join(d.bin, "tlssite")
	cert, key, pid := filepath.Join(dir, "tls", "site.crt"), filepath.Join(dir, "tls", "site.key"), filepath.Join(dir, "site.pid")
	policy := fmt.Sprintf(`apiVersion: certferry/v1
kind: Policy
targets:
  site:
    deployer: files
    certificate: %s
    key: %s
    names: [%s]
    probe:
      addresses: [%q]
      timeout: 3s
    test: [%s, -check, -cert, %s, -key, %s]
    reload: [%s, -reload, -pid-file, %s]
`, cert, key, s.name, s.address, program, cert, key, program, pid)
	if err := os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600); err != nil {
		return nil, err
	}
	_, err = d.spawn("tlssite", nil, program, "-listen", s.address, "-cert", cert, "-key", key, "-pid-file", pid, "-stuck-file", s.stuck)
	if err != nil {
		return nil, err
	}
	return s, d.listening(ctx, s)
}

// startNginx starts an nginx of the demo's own, with a self-signed certificate, since nginx does not start without.
func (d *demo) startNginx(ctx context.Context, nginx string) (*demoSite, error) {
	s := &demoSite{server: "web-1", certificate: "shop", name: "shop.demo.test", deployer: "nginx"}
	dir := filepath.Join(d.dir, s.server)
	for _, sub := range []string{"tls", "logs", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	s.address = fmt.Sprintf("127.0.0.1:%d", port)
	cert, key := filepath.Join(dir, "tls", "shop.crt"), filepath.Join(dir, "tls", "shop.key")
	if err := writeSelfSigned(cert, key, s.name); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/logs/error.log;
worker_processes 2;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/tmp/body;
  proxy_temp_path %[1]s/tmp/proxy;
  fastcgi_temp_path %[1]s/tmp/fastcgi;
  uwsgi_temp_path %[1]s/tmp/uwsgi;
  scgi_temp_path %[1]s/tmp/scgi;
  server {
    listen %[2]s ssl;
    server_name %[3]s;
    ssl_certificate %[4]s;
    ssl_certificate_key %[5]s;
    return 200 "served by nginx\n";
  }
}
`, dir, s.address, s.name, cert, key)
	policy := fmt.Sprintf(`apiVersion: certferry/v1
kind: Policy
targets:
  site:
    deployer: nginx
    certificate: %s
    key: %s
    names: [%s]
    probe:
      addresses: [%q]
    instance:
      pidFile: %s
`, cert, key, s.name, s.address, filepath.Join(dir, "nginx.pid"))
	if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(policy), 0o600)); err != nil {
		return nil, err
	}
	if _, err := d.spawn("nginx", nil, nginx, "-p", dir, "-c", config, "-e", filepath.Join(dir, "logs", "error.log")); err != nil {
		return nil, err
	}
	return s, d.listening(ctx, s)
}

func (d *demo) listening(ctx context.Context, s *demoSite) error {
	return await(ctx, s.server+" to listen", func(ctx context.Context) (bool, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return true, conn.Close()
	})
}

// seen is the leaf that a TLS client gets from the site now, nil where it gets none.
func (s *demoSite) seen(ctx context.Context) *x509.Certificate {
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 5 * time.Second},
		// The demo looks at the certificate itself; whether a client would trust it is not asked.
		Config: &tls.Config{ServerName: s.name, InsecureSkipVerify: true}, //nolint:gosec // see above
	}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }()
	c, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	return c.ConnectionState().PeerCertificates[0]
}

// describe says what a TLS client sees.
func (s *demoSite) describe(ctx context.Context) string {
	leaf := s.seen(ctx)
	if leaf == nil {
		return "no certificate"
	}
	return fmt.Sprintf("serial %.12x… until %s", leaf.SerialNumber.Bytes(), leaf.NotAfter.UTC().Format("2006-01-02 15:04"))
}
