// This file gives the demo a real ACME server: Pebble, built beside this program, its DNS server, and a web server for
// the challenges.

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// demoCA is the ACME server and what the hub's configuration must say of it.
type demoCA struct{ directory, settings string }

func (d *demo) webroot() string { return filepath.Join(d.dir, "webroot") }

func (d *demo) startPebble(ctx context.Context) (*demoCA, error) {
	script := os.Getenv("ACME_SH")
	if script == "" {
		return nil, errors.New("set ACME_SH to the path of acme.sh, or leave --issuer out")
	}
	var ports [4]int
	for n := range ports {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		ports[n] = port
	}
	api, challenges, dns, management := ports[0], ports[1], ports[2], ports[3]
	cert, key := filepath.Join(d.dir, "pebble.crt"), filepath.Join(d.dir, "pebble.key")
	if err := writeSelfSigned(cert, key, "localhost"); err != nil {
		return nil, err
	}
	config, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", api), "certificate": cert, "privateKey": key, "httpPort": challenges,
		"profiles": map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 90 * 24 * 3600}},
	}})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(d.dir, "pebble.json")
	if err := errors.Join(os.WriteFile(file, config, 0o600), os.MkdirAll(d.webroot(), 0o700), d.serveWebroot(ctx, challenges)); err != nil {
		return nil, err
	}
	if _, err := d.spawn("DNS server", nil, filepath.Join(d.bin, "pebble-challtestsrv"),
		"-dnsserver", fmt.Sprintf("127.0.0.1:%d", dns), "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "",
		"-management", fmt.Sprintf("127.0.0.1:%d", management), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""); err != nil {
		return nil, err
	}
	if _, err := d.spawn("Pebble", []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, filepath.Join(d.bin, "pebble"),
		"-config", file, "-dnsserver", fmt.Sprintf("127.0.0.1:%d", dns)); err != nil {
		return nil, err
	}
	ca := &demoCA{directory: fmt.Sprintf("https://localhost:%d/dir", api)}
	ca.settings = fmt.Sprintf("acme_script: %s\nacme_unpinned: true\nacme_user: root\nacme_directories: [%q]\nacme_ca_bundle: %s\nacme_preflight: off\n", script, ca.directory, cert)
	d.say("ca", "Pebble at %s, through %s", ca.directory, script)
	return ca, d.listening(ctx, &demoSite{server: "Pebble", address: fmt.Sprintf("127.0.0.1:%d", api)})
}

// serveWebroot serves the challenges until ctx is done.
func (d *demo) serveWebroot(ctx context.Context, port int) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(d.webroot())), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}

// writeSelfSigned writes a certificate for name that lasts a day, and its key.
func writeSelfSigned(certFile, keyFile, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}
