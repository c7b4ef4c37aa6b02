package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// Times of the HTTP server. Writing may take long: a clone over a slow line.
const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = time.Minute
	writeTimeout      = 10 * time.Minute
	idleTimeout       = 2 * time.Minute
	shutdownTimeout   = 15 * time.Second
	maxHeaderBytes    = 32 << 10
)

// listen opens the listener and says in a sentence why it cannot.
func listen(ctx context.Context, cfg *Config) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program has this port: stop it (ss -ltnp shows which), or set listen to another address", cfg.Listen)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: not permitted: take a port above 1023, or give the service CAP_NET_BIND_SERVICE", cfg.Listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine does not have that address: set listen to one that it has", cfg.Listen)
	case err != nil:
		return nil, fmt.Errorf("listen: %w", err)
	}
	if cfg.TLSCert == "" {
		return l, nil
	}
	pair := &keyPair{cert: cfg.TLSCert, key: cfg.TLSKey}
	if _, err := pair.get(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: pair.get, NextProtos: []string{"h2", "http/1.1"},
	}), nil
}

// takePort puts the port that was found into the public URL where port 0 was asked for.
func takePort(publicURL string, l net.Listener) string {
	u, err := url.Parse(publicURL)
	if err != nil || u.Port() != "0" {
		return publicURL
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return publicURL
	}
	u.Host = net.JoinHostPort(u.Hostname(), port)
	return u.String()
}

// keyPair is a certificate with its key in files, read again when they change: the hub's own certificate is renewed
// without a restart.
type keyPair struct {
	cert, key string

	mu     sync.Mutex
	loaded *tls.Certificate
	stamp  [2]time.Time
}

func (p *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var stamp [2]time.Time
	for i, path := range []string{p.cert, p.key} {
		info, err := os.Stat(path)
		if err != nil {
			return p.fallback(fmt.Errorf("read TLS certificate: %w", err))
		}
		stamp[i] = info.ModTime()
	}
	if p.loaded != nil && stamp == p.stamp {
		return p.loaded, nil
	}
	loaded, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return p.fallback(fmt.Errorf("read TLS certificate %s: %w", p.cert, err))
	}
	p.loaded, p.stamp = &loaded, stamp
	return p.loaded, nil
}

// fallback serves what was good before: the files may be between two writes.
func (p *keyPair) fallback(err error) (*tls.Certificate, error) {
	if p.loaded != nil {
		return p.loaded, nil
	}
	return nil, err
}

// serve answers requests until ctx is done, then calls ending and lets those under way end.
func serve(ctx context.Context, l net.Listener, handler http.Handler, ending func(), log *slog.Logger) error {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(ending)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(within); err != nil {
		log.WarnContext(within, "requests cut off at the end", "error", err)
		return errors.Join(server.Close())
	}
	return nil
}
