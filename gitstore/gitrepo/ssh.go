// This file speaks to remotes over ssh: one key, host keys that are pinned in a known_hosts file, no agent, no
// password, no configuration of a user's.

package gitrepo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSH is how a remote over ssh is asked, and recognised.
type SSH struct {
	signer ssh.Signer
	hosts  ssh.HostKeyCallback
}

// NewSSH reads a private key without a passphrase, in OpenSSH's or PEM form, and a known_hosts file.
func NewSSH(keyFile, knownHostsFile string) (*SSH, error) {
	info, err := os.Stat(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read ssh key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read ssh key %s: it is open to other users (mode %o); run: chmod 600 %s", keyFile, info.Mode().Perm(), keyFile)
	}
	data, err := os.ReadFile(keyFile) //nolint:gosec // G304: the administrator names the file
	if err != nil {
		return nil, fmt.Errorf("read ssh key: %w", err)
	}
	defer clear(data)
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("read ssh key %s: it has a passphrase; make one without: ssh-keygen -t ed25519 -N ''", keyFile)
	case err != nil:
		return nil, fmt.Errorf("read ssh key %s: it is not a private key of OpenSSH", keyFile)
	}
	hosts, err := knownhosts.New(knownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("read known hosts: %w", err)
	}
	return &SSH{signer: signer, hosts: hosts}, nil
}

func (r *Remote) overSSH() bool { return strings.HasPrefix(r.URL, "ssh://") }

// sshTarget is where an ssh URL points to.
type sshTarget struct{ user, address, path string }

// parseSSHURL reads ssh://user@host:port/path.
func parseSSHURL(raw string) (sshTarget, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "ssh" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return sshTarget{}, errors.New("the remote's URL is not valid: write ssh://user@host/path")
	}
	if _, has := u.User.Password(); has {
		return sshTarget{}, errors.New("the remote's URL must not hold credentials")
	}
	t := sshTarget{user: u.User.Username(), path: u.Path}
	if t.user == "" {
		t.user = "git"
	}
	port := u.Port()
	if port == "" {
		port = "22"
	}
	t.address = net.JoinHostPort(u.Hostname(), port)
	// The path stands in quotes in a command of the remote's shell.
	if t.path == "" || t.path == "/" || strings.ContainsFunc(t.path, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`'"\!`, r) }) {
		return sshTarget{}, errors.New("the remote's URL is not valid: its path is empty or holds quotes")
	}
	// ssh://host/~user/path is git's way to name a home folder.
	if strings.HasPrefix(t.path, "/~") {
		t.path = t.path[1:]
	}
	return t, nil
}

// algorithms lists the kinds of host keys that are pinned for a host: asking for another kind would make a server
// show a key that nobody pinned.
func (s *SSH) algorithms(address string) ([]string, error) {
	probe, err := ssh.NewPublicKey(make(ed25519.PublicKey, ed25519.PublicKeySize))
	if err != nil {
		return nil, err
	}
	var unknown *knownhosts.KeyError
	if err := s.hosts(address, &net.TCPAddr{IP: net.IPv4zero}, probe); !errors.As(err, &unknown) || len(unknown.Want) == 0 {
		return nil, fmt.Errorf("%w: %s is not in the known_hosts file; add it: ssh-keyscan, then compare the fingerprint", ErrHostKey, address)
	}
	var names []string
	for _, k := range unknown.Want {
		if k.Key.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		names = append(names, k.Key.Type())
	}
	return names, nil
}

// dial opens a connection that ends with ctx.
func (r *Remote) dial(ctx context.Context) (*sshLink, error) {
	if r.SSH == nil {
		return nil, errors.New("the remote needs an ssh key and a known_hosts file")
	}
	target, err := parseSSHURL(r.URL)
	if err != nil {
		return nil, err
	}
	algorithms, err := r.SSH.algorithms(target.address)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: 15 * time.Second}).DialContext(ctx, "tcp", target.address)
	if err != nil {
		return nil, connectionFault(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, target.address, &ssh.ClientConfig{
		User: target.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(r.SSH.signer)},
		HostKeyCallback: r.SSH.hosts, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-certferry",
	})
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, sshFault(ctx, err)
	}
	return &sshLink{client: ssh.NewClient(c, channels, requests), target: target, stop: stop}, nil
}

// sshFault sorts what goes wrong before a program of the remote runs.
func sshFault(ctx context.Context, err error) error {
	var changed *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case ctx.Err() != nil:
		return connectionFault(ctx, err)
	case errors.As(err, &changed), errors.As(err, &revoked):
		return fmt.Errorf("%w: its host key is not the pinned one; find out why before you change known_hosts", ErrHostKey)
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return fmt.Errorf("%w: it has no host key of the pinned kind", ErrHostKey)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w: the remote does not accept the ssh key", ErrDenied)
	}
	return connectionFault(ctx, err)
}

// sshLink is an open connection.
type sshLink struct {
	client *ssh.Client
	target sshTarget
	stop   func() bool
}

func (l *sshLink) close() {
	l.stop()
	_ = l.client.Close() // nothing is waited for
}

func (r *Remote) connectSSH(ctx context.Context, service string, v2 bool) (wire, error) {
	link, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	w, err := link.start(ctx, service, v2)
	if err != nil {
		link.close()
		return nil, err
	}
	w.owner = true
	return w, nil
}

// start runs a program of the remote.
func (l *sshLink) start(ctx context.Context, service string, v2 bool) (*sshWire, error) {
	session, err := l.client.NewSession()
	if err != nil {
		return nil, sshFault(ctx, err)
	}
	w := &sshWire{link: l, session: session, errors: &tail{limit: 4 << 10}}
	session.Stderr = w.errors
	if v2 {
		// Most servers take this variable only where they are told to; without it they speak version 0.
		_ = session.Setenv("GIT_PROTOCOL", "version=2")
	}
	stdout, err := session.StdoutPipe()
	if err == nil {
		w.out = bufio.NewReaderSize(stdout, 32<<10)
		w.in, err = session.StdinPipe()
	}
	if err == nil {
		err = session.Start(service + " '" + l.target.path + "'")
	}
	if err != nil {
		_ = session.Close()
		return nil, sshFault(ctx, err)
	}
	return w, nil
}

// sshWire is a conversation over ssh: one stream each way.
type sshWire struct {
	link    *sshLink
	owner   bool
	session *ssh.Session
	in      io.WriteCloser
	out     *bufio.Reader
	errors  *tail
}

func (w *sshWire) greeting() io.Reader { return w.out }

// ask sends a request. A server may refuse before it has read everything, so writing goes on beside reading.
func (w *sshWire) ask(_ context.Context, body io.Reader, _ int64) (io.Reader, error) {
	if b, ok := body.(*bytes.Buffer); ok && b.Len() < 32<<10 { // fits into the window
		if _, err := w.in.Write(b.Bytes()); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return w.out, nil
	}
	failed := make(chan error, 1)
	go func() {
		_, err := io.Copy(w.in, body)
		if c, ok := body.(io.Closer); ok {
			_ = c.Close()
		}
		failed <- err
	}()
	return &duplex{Reader: w.out, failed: failed}, nil
}

// duplex reads an answer while its request is still being written.
type duplex struct {
	io.Reader

	failed <-chan error
}

// Read implements io.Reader. Where the answer ends too soon, the fault of writing says why.
func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.Reader.Read(p)
	if err != nil {
		select {
		case cause := <-d.failed:
			if cause != nil && !errors.Is(cause, io.EOF) {
				err = cause
			}
		default:
		}
	}
	return n, err
}

func (w *sshWire) close(fault error) error {
	if fault != nil {
		// Its last words are on their way when its stream ends.
		done := make(chan struct{})
		go func() {
			_ = w.session.Wait()
			close(done)
		}()
		patience := time.NewTimer(2 * time.Second)
		defer patience.Stop()
		_ = w.in.Close()
		select {
		case <-done:
		case <-patience.C:
		}
		if text := w.errors.text(); text != "" && !classified(fault) {
			fault = serverFault(text)
		}
	} else {
		_, _ = io.WriteString(w.in, "0000") // a program that waits for a request is told that there is none
	}
	_ = w.session.Close()
	if w.owner {
		w.link.close()
	}
	return fault
}

// tail keeps the first bytes that a program says.
type tail struct {
	mu    sync.Mutex
	limit int
	data  []byte
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p[:min(len(p), t.limit-len(t.data))]...)
	return len(p), nil
}

func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return said(string(t.data))
}
