// This file says whom to trust and which proxy to take on the way to CAs and DNS providers: the hub itself and acme.sh, with
// all that it runs, do the same.

package acmesh

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/certferry/certferry/issuer"
)

// bundleFile holds the roots that acme.sh trusts, where they are not the system's alone.
const bundleFile = "ca-bundle.pem"

// systemBundles are where systems keep the roots that they trust, as crypto/x509 looks for them.
var systemBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// systemRoots are the roots of the system in PEM, none where it has no file of them.
func systemRoots() ([]byte, error) {
	files := systemBundles
	if file := os.Getenv("SSL_CERT_FILE"); file != "" { //nolint:forbidigo // as crypto/x509 does
		files = []string{file}
	}
	for _, file := range files {
		data, err := os.ReadFile(file) //nolint:gosec // the system's own, or the administrator's
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, nil
}

// readBundle reads CABundle.
func (c *Config) readBundle() ([]byte, error) {
	data, err := os.ReadFile(c.CABundle)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "read the CA bundle", Err: err}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "read the CA bundle: it holds no certificate"}
	}
	return data, nil
}

// tlsConfig is for clients of this process, nil for the system's roots.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if c.CABundle == "" {
		return nil, nil
	}
	data, err := c.readBundle()
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without roots has ours alone
	}
	pool.AppendCertsFromPEM(data)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, nil
}

// trust writes down for acme.sh what tlsConfig is for this process.
func (h *home) trust(c *Config) error {
	if c.CABundle == "" {
		return nil
	}
	ours, err := c.readBundle()
	if err != nil {
		return err
	}
	roots, err := systemRoots()
	if err != nil {
		return &issuer.Error{Class: issuer.Local, Detail: "read the roots that the system trusts", Err: err}
	}
	h.bundle = filepath.Join(h.dir, bundleFile)
	return h.write(bundleFile, string(roots)+"\n"+string(ours))
}

// proxyFor is the proxy of a request, nil for none.
func (c *Config) proxyFor(req *http.Request) (*url.URL, error) { return c.Proxy.ProxyFunc()(req.URL) }

// proxyEnvironment tells curl what proxyFor tells this process, whom no proxy keeps from this machine's own addresses.
func (c *Config) proxyEnvironment() []string {
	var env []string
	for name, value := range map[string]string{"https_proxy": c.Proxy.HTTPSProxy, "http_proxy": c.Proxy.HTTPProxy} {
		if value != "" {
			env = append(env, name+"="+value)
		}
	}
	if len(env) == 0 {
		return nil
	}
	without := c.Proxy.NoProxy
	if without != "*" {
		without += ",localhost,127.0.0.1,::1"
	}
	return append(env, "no_proxy="+without)
}

// proxySecrets are the passwords of the proxies.
func (c *Config) proxySecrets() []string {
	var secrets []string
	for _, proxy := range []string{c.Proxy.HTTPSProxy, c.Proxy.HTTPProxy} {
		if u, err := url.Parse(proxy); err == nil && u.User != nil {
			if password, ok := u.User.Password(); ok {
				secrets = append(secrets, password)
			}
		}
	}
	return secrets
}
