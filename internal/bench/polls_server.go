// This file is the server side of the poll comparisons: a process of its own, so that its processor time is that of
// serving and not of asking. It serves one repository twice, by gitserve and by git's own http-backend.

package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi" //nolint:gosec // G504: git's HTTP server is a CGI program; it listens on loopback for the time of a comparison
	"os/exec"      //nolint:depguard // the peer that is measured
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/manifest"
)

const (
	// serveCommand makes this program the server of a folder.
	serveCommand = "serve-polls"
	repoName     = "hub.git"
	certName     = "tls.pem"
	keyName      = "tls.key"
	oursPath     = "/ours"
	peerPath     = "/peer"
	usagePath    = "/usage"
)

// secretOf is the credential of a server.
func secretOf(server string) string { return "secret-of-" + server }

// tokens knows the servers by the hashes of their credentials.
type tokens map[string][sha256.Size]byte

// Authorize implements gitserve.Access.
func (t tokens) Authorize(_ context.Context, username, password string) (gitserve.Grant, error) {
	want, known := t[username]
	have := sha256.Sum256([]byte(password))
	if !known || subtle.ConstantTimeCompare(want[:], have[:]) != 1 {
		return gitserve.Grant{}, gitserve.ErrDenied
	}
	own := manifest.ServerBranch(username)
	return gitserve.Grant{Name: username, Refs: []string{own}, Head: own}, nil
}

// servePolls serves the folder dir until stdin ends. It prints its addresses for HTTP and HTTPS, a line each.
func servePolls(ctx context.Context, dir string, stdin io.Reader, stdout io.Writer) (err error) {
	repo, err := gitrepo.Open(filepath.Join(dir, repoName), gitrepo.Options{Now: clock, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	peer, err := httpBackend(ctx, dir)
	if err != nil {
		return err
	}
	known := tokens{}
	for ref := range repo.Refs() {
		if name, ok := strings.CutPrefix(ref, manifest.ServerBranch("")); ok {
			known[name] = sha256.Sum256([]byte(secretOf(name)))
		}
	}
	ours := gitserve.New(gitserve.Config{Repo: repo, Access: known, Logger: slog.New(slog.DiscardHandler)})
	transferred := new(atomic.Int64)
	server := &http.Server{Handler: pollRoutes(ours, peer, transferred), ReadHeaderTimeout: time.Minute}
	var addresses [2]net.Listener
	for i := range addresses {
		if addresses[i], err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(stdout, addresses[i].Addr()); err != nil {
			return err
		}
	}
	go func() { _ = server.Serve(addresses[0]) }()
	secure := countedListener{addresses[1], transferred}
	go func() { _ = server.ServeTLS(secure, filepath.Join(dir, certName), filepath.Join(dir, keyName)) }()
	_, err = io.Copy(io.Discard, stdin)
	return errors.Join(err, server.Close())
}

// pollRoutes serves both sides, and tells what processor time this process and its ended children took, in
// microseconds, and how many bytes were transferred.
func pollRoutes(ours, peer http.Handler, transferred *atomic.Int64) http.Handler {
	var working sync.RWMutex // processor time is looked at while nothing is served
	counted := func(prefix string, h http.Handler) http.Handler {
		return http.StripPrefix(prefix, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			working.RLock()
			defer working.RUnlock()
			h.ServeHTTP(w, r)
		}))
	}
	mux := http.NewServeMux()
	mux.Handle(oursPath+"/", counted(oursPath, ours))
	mux.Handle(peerPath+"/", counted(peerPath, peer))
	mux.HandleFunc(usagePath, func(w http.ResponseWriter, _ *http.Request) {
		working.Lock()
		defer working.Unlock()
		self, err := cpuTime(syscall.RUSAGE_SELF)
		children, err2 := cpuTime(syscall.RUSAGE_CHILDREN)
		if err := errors.Join(err, err2); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprintln(w, (self + children).Microseconds(), transferred.Load())
	})
	return mux
}

// countedListener counts the bytes of its connections, in both directions.
type countedListener struct {
	net.Listener
	bytes *atomic.Int64
}

// Accept implements net.Listener.
func (l countedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return countedConn{conn, l.bytes}, err
}

type countedConn struct {
	net.Conn
	bytes *atomic.Int64
}

// Read implements net.Conn.
func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.bytes.Add(int64(n))
	return n, err
}

// cpuTime is what this process, or its ended children, took of the processors.
func cpuTime(who int) (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(who, &used); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// httpBackend is git's own server, told to hide from each caller what is not its own. It asks for no credential,
// which is to git's advantage.
func httpBackend(ctx context.Context, dir string) (http.Handler, error) {
	where, err := exec.CommandContext(ctx, "git", "--exec-path").Output()
	if err != nil {
		return nil, fmt.Errorf("find git: %w", err)
	}
	program := filepath.Join(strings.TrimSpace(string(where)), "git-http-backend")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		(&cgi.Handler{
			Path: program, Root: "/", InheritEnv: []string{"PATH"},
			Env: append(quiet, "GIT_PROJECT_ROOT="+dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"),
				"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=transfer.hideRefs", "GIT_CONFIG_VALUE_0=refs/heads",
				"GIT_CONFIG_KEY_1=transfer.hideRefs", "GIT_CONFIG_VALUE_1=!"+manifest.ServerBranch(user)),
		}).ServeHTTP(w, r)
	}), nil
}
