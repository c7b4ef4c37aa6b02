// This file runs Pebble, Let's Encrypt's ACME server for tests, and its DNS test server inside the process, on
// loopback and free ports.

package issuertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // Pebble and http.Server take a log.Logger
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/letsencrypt/challtestsrv"
	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// PebbleConfig is what StartPebble needs.
type PebbleConfig struct {
	// Dir is where the CA bundle is written.
	Dir string
	// HTTPPort is where challenges of type http-01 are looked for; 0 for a free port that the caller may listen on.
	HTTPPort int
	// Log gets Pebble's log; nil for none.
	Log io.Writer
	// Blocked are names that the CA refuses.
	Blocked []string
	// EAB are the keys by id to one of which an account must be bound (RFC 8555 §7.3.4), base64url; nil for none.
	EAB map[string]string
	// AlternateRoots is how many roots certificates chain to beside the first.
	AlternateRoots int
	// Wrap stands in front of the ACME API, to inject faults; nil for nothing.
	Wrap func(http.Handler) http.Handler
}

// Pebble is a running ACME server. Every name resolves to 127.0.0.1.
type Pebble struct {
	// Directory is the URL of the ACME directory, CABundle the PEM file that its TLS certificate chains to.
	Directory string
	CABundle  string
	// HTTPPort is where challenges of type http-01 are looked for, TLSPort where those of type tls-alpn-01 are.
	HTTPPort int
	TLSPort  int
	// Resolver is the address of the DNS server.
	Resolver string
	// DNSManagement is the URL of a small API that the DNS hook of WriteDNSHook uses.
	DNSManagement string
	// Roots are the names (CN) of the roots, the first one's chain being the default.
	Roots []string
	// DNS is the test DNS server; all Pebbles of a process share it.
	DNS *challtestsrv.ChallSrv

	servers []*http.Server
}

// StartPebble starts an ACME server and its DNS server. It sets Pebble's environment variables so that validation
// does not sleep and no nonce is refused; a caller that wants that chaos sets them before.
func StartPebble(ctx context.Context, cfg PebbleConfig) (*Pebble, error) {
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"} {
		if _, set := os.LookupEnv(name); !set { //nolint:forbidigo // Pebble is set by its environment
			if err := os.Setenv(name, value); err != nil {
				return nil, fmt.Errorf("start Pebble: %w", err)
			}
		}
	}
	if cfg.Log == nil {
		cfg.Log = io.Discard
	}
	logger := log.New(cfg.Log, "pebble ", 0)
	p := &Pebble{HTTPPort: cfg.HTTPPort, CABundle: filepath.Join(cfg.Dir, "pebble-ca.pem")}
	if p.HTTPPort == 0 {
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		p.HTTPPort = port
	}
	var err error
	if p.TLSPort, err = freePort(ctx); err != nil {
		return nil, err
	}
	if p.Resolver, err = p.startDNS(ctx, logger); err != nil {
		return nil, err
	}
	store := db.NewMemoryStore()
	for _, name := range cfg.Blocked {
		if err := store.AddBlockedDomain(name); err != nil {
			return nil, errors.Join(fmt.Errorf("start Pebble: %w", err), p.Close())
		}
	}
	for id, key := range cfg.EAB {
		if err := store.AddExternalAccountKeyByID(id, key); err != nil {
			return nil, errors.Join(fmt.Errorf("start Pebble: %w", err), p.Close())
		}
	}
	profiles := map[string]ca.Profile{
		"default":    {Description: "default", ValidityPeriod: 90 * 24 * 3600},
		"shortlived": {Description: "six days", ValidityPeriod: 160 * 3600},
	}
	authority := ca.New(logger, store, "", "ecdsa", cfg.AlternateRoots, 1, profiles)
	p.Roots = rootsOf(authority)
	validator := va.New(logger, p.HTTPPort, p.TLSPort, false, p.Resolver, store)
	api := wfe.New(logger, store, validator, authority, []string{"pebble.letsencrypt.org"}, false, cfg.EAB != nil, 1, 1)
	handler := api.Handler()
	if cfg.Wrap != nil {
		handler = cfg.Wrap(handler)
	}
	if err := p.startAPI(ctx, handler); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func rootsOf(authority *ca.CAImpl) (names []string) {
	for n := range authority.GetNumberOfRootCerts() {
		names = append(names, authority.GetRootCert(n).Cert.Subject.CommonName)
	}
	return names
}

// Close stops the servers.
func (p *Pebble) Close() error {
	var errs []error
	for _, s := range p.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func listen(ctx context.Context) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start Pebble: %w", err)
	}
	return l, nil
}

// freePort finds a port for a program that takes no listener. Somebody else may take it in between.
func freePort(ctx context.Context) (int, error) {
	l, err := listen(ctx)
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil || !ok {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	return addr.Port, nil
}

func (p *Pebble) serve(l net.Listener, handler http.Handler) {
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	p.servers = append(p.servers, s)
	go func() { _ = s.Serve(l) }()
}

// dnsServer is the process's one DNS server: the library registers its handler for the whole process, so that a second
// server would answer for the first. It runs until the process ends.
var dnsServer struct {
	sync.Mutex

	server   *challtestsrv.ChallSrv
	resolver string
}

// startDNS finds or starts the DNS server, and starts a management API for it.
func (p *Pebble) startDNS(ctx context.Context, logger *log.Logger) (resolver string, err error) {
	dnsServer.Lock()
	defer dnsServer.Unlock()
	for n := 0; dnsServer.server == nil && n < 10; n++ {
		port, err := freePort(ctx)
		if err != nil {
			return "", err
		}
		resolver = fmt.Sprintf("127.0.0.1:%d", port)
		server, err := challtestsrv.New(challtestsrv.Config{Log: logger, DNSAddrs: []string{resolver}})
		if err != nil {
			return "", fmt.Errorf("start DNS server: %w", err)
		}
		server.SetDefaultDNSIPv4("127.0.0.1")
		server.SetDefaultDNSIPv6("")
		go server.Run()
		if answers(ctx, server, resolver) {
			dnsServer.server, dnsServer.resolver = server, resolver
		} else {
			server.Shutdown() // another process took the port in between
		}
	}
	if dnsServer.server == nil {
		return "", errors.New("start DNS server: no free port")
	}
	p.DNS = dnsServer.server
	l, err := listen(ctx)
	if err != nil {
		return "", err
	}
	p.DNSManagement = "http://" + l.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /set-txt", p.changeTXT(p.DNS.AddDNSTXTRecord))
	mux.HandleFunc("POST /clear-txt", p.changeTXT(func(host, _ string) { p.DNS.DeleteDNSTXTRecord(host) }))
	p.serve(l, mux)
	return dnsServer.resolver, nil
}

// answers waits until the server at resolver answers, and says whether it is the one given.
func answers(ctx context.Context, server *challtestsrv.ChallSrv, resolver string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	nonce := rand.Text()
	server.AddDNSTXTRecord("ready.test", nonce)
	defer server.DeleteDNSTXTRecord("ready.test")
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", resolver)
	}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		records, err := r.LookupTXT(ctx, "ready.test.")
		if err == nil {
			return slices.Contains(records, nonce)
		}
		if notFound := new(net.DNSError); errors.As(err, &notFound) && notFound.IsNotFound {
			return false // somebody else's server
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

func (p *Pebble) changeTXT(change func(host, value string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var record struct {
			Host  string `json:"host"`
			Value string `json:"value"`
		}
		if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&record); err != nil || record.Host == "" {
			http.Error(w, "want {host, value}", http.StatusBadRequest)
			return
		}
		change(record.Host, record.Value)
	}
}

// startAPI serves the ACME API over TLS with a certificate made for it.
func (p *Pebble) startAPI(ctx context.Context, handler http.Handler) error {
	pair, bundle, err := loopbackCertificate()
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.CABundle, bundle, 0o600); err != nil {
		return fmt.Errorf("write CA bundle: %w", err)
	}
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return errors.New("start Pebble: no TCP address")
	}
	p.Directory = fmt.Sprintf("https://localhost:%d%s", addr.Port, wfe.DirectoryPath)
	p.serve(tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}), handler)
	return nil
}

// ProxiedName is a name that a Pebble's certificate is for beside localhost, which no proxy is asked for.
const ProxiedName = "ca.example.test"

// loopbackCertificate makes a self-signed certificate for localhost.
func loopbackCertificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	now := time.Now() //nolint:forbidigo // acme.sh and curl judge it by the real clock
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		DNSNames: []string{"localhost", ProxiedName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// HookName is the DNS hook that WriteDNSHook writes.
const HookName = "dns_pebbletest"

// hook is acme.sh's contract for a DNS provider: name_info, name_add FULLDOMAIN VALUE and name_rm. PEBBLETEST_TOKEN
// stands for a credential; the hook saves it as real ones do.
const hook = `#!/usr/bin/env sh
# shellcheck disable=SC2034
dns_pebbletest_info='Pebble test DNS
Site: localhost
Docs: localhost
Options:
 PEBBLETEST_URL Management API
 PEBBLETEST_TOKEN Credential
'

dns_pebbletest_add() {
  if [ "$PEBBLETEST_TOKEN" = "wrong" ]; then
    _err "the provider refuses the credential"
    return 1
  fi
  _saveaccountconf_mutable PEBBLETEST_TOKEN "$PEBBLETEST_TOKEN"
  _post "{\"Host\": \"$1.\", \"Value\": \"$2\"}" "$PEBBLETEST_URL/set-txt" >/dev/null
}

dns_pebbletest_rm() {
  _post "{\"Host\": \"$1.\", \"Value\": \"$2\"}" "$PEBBLETEST_URL/clear-txt" >/dev/null
}
`

// WriteDNSHook writes the hook HookName below dir, as acme.sh's --home expects it. Its variables are PEBBLETEST_URL
// (Pebble.DNSManagement) and PEBBLETEST_TOKEN (anything but "wrong").
func WriteDNSHook(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "dnsapi"), 0o700); err != nil {
		return fmt.Errorf("write DNS hook: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dnsapi", HookName+".sh"), []byte(hook), 0o600); err != nil {
		return fmt.Errorf("write DNS hook: %w", err)
	}
	return nil
}
