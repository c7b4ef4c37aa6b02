// Command tlssite is a TLS site of one page, small enough to read at a glance. It stands in the demo and the
// tests for server software that has no deployer of its own: it loads its certificate at the start and at
// SIGHUP, keeps the old one when the new pair is bad, and offers the two commands that an agent's policy names:
//
//	tlssite -check  -cert FILE -key FILE     is this pair good?
//	tlssite -reload -pid-file FILE           tell the running site to load it
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type options struct {
	listen, cert, key, pidFile, stuckFile string
	check, reload                         bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8443", "address to serve on")
	flag.StringVar(&o.cert, "cert", "", "certificate and chain, PEM")
	flag.StringVar(&o.key, "key", "", "private key, PEM")
	flag.StringVar(&o.pidFile, "pid-file", "", "file that holds the running site's process id")
	flag.StringVar(&o.stuckFile, "stuck-file", "", "while this file exists, reloads are ignored: a fault to try a rollback with")
	flag.BoolVar(&o.check, "check", false, "check the pair and exit")
	flag.BoolVar(&o.reload, "reload", false, "make the running site load its pair again, and exit")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "tlssite:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	switch {
	case o.check:
		_, err := tls.LoadX509KeyPair(o.cert, o.key)
		return err
	case o.reload:
		return signalReload(o.pidFile)
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return serve(ctx, o)
	}
}

func signalReload(pidFile string) error {
	data, err := os.ReadFile(pidFile) //nolint:gosec // the path is the administrator's
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("read process id from %s: not a process id", pidFile)
	}
	return syscall.Kill(pid, syscall.SIGHUP)
}

// serve answers until ctx is done. Without a certificate on disk it starts all the same and refuses handshakes,
// as a site does that waits for its first certificate.
func serve(ctx context.Context, o options) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var current atomic.Pointer[tls.Certificate]
	load := func() {
		if _, err := os.Stat(o.stuckFile); o.stuckFile != "" && err == nil {
			log.WarnContext(ctx, "reload ignored", "stuck_file", o.stuckFile)
			return
		}
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			log.WarnContext(ctx, "certificate not loaded, the old one stays", "error", err)
			return
		}
		current.Store(&pair)
		log.InfoContext(ctx, "certificate loaded", "serial", fmt.Sprintf("%x", pair.Leaf.SerialNumber))
	}

	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	load()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintln(w, "served by tlssite")
		}),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				if pair := current.Load(); pair != nil {
					return pair, nil
				}
				return nil, errors.New("no certificate yet")
			},
		},
	}
	go func() {
		for {
			select {
			case <-hangup:
				load()
			case <-ctx.Done():
				_ = server.Close()
				return
			}
		}
	}()
	if o.pidFile != "" {
		if err := os.WriteFile(o.pidFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil { //nolint:gosec // a process id is no secret
			return err
		}
		defer func() { _ = os.Remove(o.pidFile) }()
	}
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
