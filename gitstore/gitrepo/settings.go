// This file makes a Remote of what stands in a configuration file, where secrets are named by their files.

package gitrepo

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RemoteSettings describe a remote in a configuration file.
type RemoteSettings struct {
	// URL is https://host/path or ssh://user@host:port/path, without a password; http on loopback only.
	URL string `yaml:"url"`
	// Username goes with PasswordFile; "git" by default, which hosts take beside a token.
	Username string `yaml:"username"`
	// PasswordFile holds the password or token on its first line; it is read at each request.
	PasswordFile string `yaml:"password_file"`
	// SSHKey is a private key file without a passphrase, KnownHosts the file that pins the host's key.
	SSHKey     string `yaml:"ssh_key"`
	KnownHosts string `yaml:"known_hosts"`
	// CAFile holds the PEM certificates that the remote's must chain to; the system's own by default.
	CAFile string `yaml:"ca_file"`
}

// Check finds what is wrong with the settings, without reading any file. The error starts with the key.
func (s *RemoteSettings) Check() error {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" {
		return errors.New("url: must be an address such as https://git.example.com/fleet.git or ssh://git@git.example.com/fleet.git")
	}
	if _, has := u.User.Password(); has || u.User != nil && u.Scheme != "ssh" {
		return errors.New("url: must not hold a user name or password: use username and password_file")
	}
	overSSH := u.Scheme == "ssh"
	host := u.Hostname()
	ip := net.ParseIP(host)
	switch {
	case u.Scheme == "http" && host != "localhost" && (ip == nil || !ip.IsLoopback()):
		return errors.New("url: plain http is spoken on loopback only: use https")
	case u.Scheme != "http" && u.Scheme != "https" && !overSSH:
		return errors.New("url: must start with https:// or ssh://")
	case overSSH && (s.SSHKey == "" || s.KnownHosts == ""):
		return errors.New("ssh_key: an ssh URL needs ssh_key and known_hosts")
	case overSSH && (s.PasswordFile != "" || s.Username != "" || s.CAFile != ""):
		return errors.New("url: username, password_file and ca_file go with https; the ssh user stands in the URL")
	case !overSSH && (s.SSHKey != "" || s.KnownHosts != ""):
		return errors.New("ssh_key: ssh_key and known_hosts go with an ssh URL")
	case s.Username != "" && s.PasswordFile == "":
		return errors.New("password_file: username needs it")
	}
	if overSSH {
		if _, err := parseSSHURL(s.URL); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	return s.checkPaths()
}

func (s *RemoteSettings) checkPaths() error {
	for _, p := range []struct{ key, value string }{
		{"password_file", s.PasswordFile},
		{"ssh_key", s.SSHKey},
		{"known_hosts", s.KnownHosts},
		{"ca_file", s.CAFile},
	} {
		if p.value != "" && !filepath.IsAbs(p.value) {
			return fmt.Errorf("%s: must be an absolute path", p.key)
		}
	}
	return nil
}

// Remote reads the files and returns the remote.
func (s *RemoteSettings) Remote(limits Limits) (*Remote, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	r := &Remote{URL: s.URL, Username: s.Username, PasswordFile: s.PasswordFile, Limits: limits}
	if strings.HasPrefix(s.URL, "ssh://") {
		var err error
		r.SSH, err = NewSSH(s.SSHKey, s.KnownHosts)
		return r, err
	}
	if r.PasswordFile != "" {
		if r.Username == "" {
			r.Username = "git"
		}
		if _, err := readSecret(r.PasswordFile); err != nil {
			return nil, err
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		data, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("read CA file %s: it holds no PEM certificate", s.CAFile)
		}
	}
	r.HTTP = &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 15 * time.Second, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 2,
	}}
	return r, nil
}

// readSecret reads the first line of a file that others must not be able to read.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return "", fmt.Errorf("read password file %s: it is open to other users (mode %o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // G304: the administrator names the file
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.TrimSpace(line)
	if line == "" {
		return "", fmt.Errorf("read password file %s: its first line is empty", path)
	}
	return line, nil
}
