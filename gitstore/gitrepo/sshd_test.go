package gitrepo_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// sshd is a real OpenSSH server on a port of its own that lets one key in.
type sshd struct {
	address, user, clientKey, knownHosts, authorized string
}

// newKey writes a private key in OpenSSH's form and returns its public half.
func newKey(t *testing.T, path string) ssh.PublicKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey()
}

func startSSHD(t *testing.T, settings string) *sshd {
	t.Helper()
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("skipped: sshd is not installed (openssh-server)")
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil && os.Geteuid() == 0 {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &sshd{user: me.Username, clientKey: filepath.Join(dir, "client"), knownHosts: filepath.Join(dir, "known_hosts"), authorized: filepath.Join(dir, "authorized")}
	hostKey := newKey(t, filepath.Join(dir, "host"))
	clientKey := newKey(t, s.clientKey)
	if err := os.WriteFile(s.authorized, ssh.MarshalAuthorizedKey(clientKey), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	_ = l.Close()
	config := filepath.Join(dir, "sshd_config")
	_, port, _ := net.SplitHostPort(s.address)
	text := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\n"+
		"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n%s\n", port, filepath.Join(dir, "host"), s.authorized, settings)
	known := knownhosts.Line([]string{knownhosts.Normalize(s.address)}, hostKey) + "\n"
	for path, data := range map[string]string{config: text, s.knownHosts: known} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "-D", "-e", "-f", config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, ended := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "Server listening") {
				listening <- true
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	})
	select {
	case <-listening:
	case <-ended:
		t.Skip("skipped: sshd does not start here")
	case <-time.After(10 * time.Second):
		t.Fatal("sshd does not listen")
	}
	return s
}

func (s *sshd) remote(t *testing.T, path string) *gitrepo.Remote {
	t.Helper()
	auth, err := gitrepo.NewSSH(s.clientKey, s.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	return &gitrepo.Remote{URL: "ssh://" + s.user + "@" + s.address + path, SSH: auth, Limits: gitrepo.PushLimits}
}
