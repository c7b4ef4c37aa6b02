// This file holds what operators do with their own tools: gpg 2.2 reads what this package writes.

package seal_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/seal"
)

// gnupg is gpg with a home of its own, which ends with the test.
type gnupg struct {
	t    *testing.T
	home string
}

func newGnuPG(t *testing.T) *gnupg {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("skipped: gpg is not installed, so nothing shows that operators can read keys, bundles and signatures; install gnupg")
	}
	g := &gnupg{t, t.TempDir()}
	if err := os.Chmod(g.home, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", g.home, "--kill", "all").Run() })
	return g
}

// try runs gpg an hour after start and returns its output and its status lines.
func (g *gnupg) try(args ...string) (output, status string, err error) {
	cmd := exec.Command("gpg", append([]string{
		"--homedir", g.home, "--batch", "--quiet", "--trust-model", "always", "--status-fd", "2", "--faked-system-time", "20261123T130000!",
	}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

func (g *gnupg) run(args ...string) (output, status string) {
	g.t.Helper()
	output, status, err := g.try(args...)
	if err != nil {
		g.t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, status)
	}
	return output, status
}

func (g *gnupg) file(name string, data []byte) string {
	g.t.Helper()
	path := filepath.Join(g.home, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		g.t.Fatal(err)
	}
	return path
}

func TestGPGOpensAnEscrowBundle(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	hub, escrow := newKey(t, "hub"), newKey(t, "escrow")
	secret, err := escrow.Armor()
	if err != nil {
		t.Fatal(err)
	}
	public, err := hub.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	g.run("--import", g.file("escrow.asc", secret), g.file("hub.asc", public))
	output, status := g.run("--decrypt", g.file("bundle.pgp", sealed(t, escrow, hub)))
	if output != "the plain text" {
		t.Errorf("gpg decrypted %q", output)
	}
	if !strings.Contains(status, "[GNUPG:] VALIDSIG "+hub.Fingerprint()) || !strings.Contains(status, "[GNUPG:] GOODMDC") {
		t.Errorf("gpg does not vouch for signature and integrity:\n%s", status)
	}
}

func TestGPGVerifiesASignature(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	hub := newKey(t, "hub")
	public, err := hub.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := seal.Sign("certferry-manifest-v1\n", []byte("{}\n"), hub, start)
	if err != nil {
		t.Fatal(err)
	}
	g.run("--import", g.file("hub.asc", public))
	_, status := g.run("--verify", g.file("document.asc", sig), g.file("document", []byte("certferry-manifest-v1\n{}\n")))
	if !strings.Contains(status, "[GNUPG:] VALIDSIG "+hub.Fingerprint()) {
		t.Errorf("gpg does not name the key:\n%s", status)
	}
	binary, err := seal.SignBinary("certferry-manifest-v1\n", []byte("{}\n"), hub, start)
	if err != nil {
		t.Fatal(err)
	}
	_, status = g.run("--verify", g.file("document.sig", binary), g.file("document", []byte("certferry-manifest-v1\n{}\n")))
	if !strings.Contains(status, "[GNUPG:] VALIDSIG "+hub.Fingerprint()) {
		t.Errorf("gpg does not name the key of a binary signature:\n%s", status)
	}
	if _, status, err := g.try("--verify", g.file("document.asc", sig), g.file("other", []byte("{}\n"))); err == nil {
		t.Errorf("gpg takes the signature for other bytes:\n%s", status)
	}
}

// TestGPGReadsAPublicKey holds that gpg sees one key without an end and one subkey to encrypt to.
func TestGPGReadsAPublicKey(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	public, err := newKey(t, "web-1").Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	output, _ := g.run("--with-colons", "--show-keys", g.file("key.asc", public))
	var kinds []string
	for line := range strings.Lines(output) {
		f := strings.Split(line, ":")
		if f[0] == "pub" || f[0] == "sub" {
			kinds = append(kinds, f[0]+" algorithm "+f[3]+" expires "+f[6])
		}
	}
	if got := strings.Join(kinds, ", "); got != "pub algorithm 22 expires , sub algorithm 18 expires " {
		t.Errorf("gpg sees %s", got)
	}
}

func TestGPGOpensAProtectedKey(t *testing.T) {
	t.Parallel()
	g := newGnuPG(t)
	key, hub := newKey(t, "escrow"), newKey(t, "hub")
	protected, err := key.ArmorProtected([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if is, err := seal.Protected(protected); err != nil || !is {
		t.Errorf("protected: %t %v", is, err)
	}
	if _, err := seal.ParsePrivateKey(protected); !errors.Is(err, seal.ErrProtected) {
		t.Errorf("read without its passphrase: %v", err)
	}
	if _, err := seal.Unlock(protected, []byte("battery staple")); !errors.Is(err, seal.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	again, err := seal.Unlock(protected, []byte("correct horse"))
	if err != nil || again.Fingerprint() != key.Fingerprint() {
		t.Fatalf("unlocked: %v", err)
	}
	if got, err := seal.Open(sealed(t, key, hub), again, keys(hub), start); err != nil || string(got) != "the plain text" {
		t.Errorf("opened by the unlocked key: %q %v", got, err)
	}
	if _, err := key.ArmorProtected(nil); err == nil {
		t.Error("an empty passphrase was taken")
	}
	public, err := hub.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	g.run("--import", g.file("escrow.asc", protected), g.file("hub.asc", public))
	output, _ := g.run("--pinentry-mode", "loopback", "--passphrase", "correct horse", "--decrypt", g.file("bundle.pgp", sealed(t, key, hub)))
	if output != "the plain text" {
		t.Errorf("gpg decrypted %q", output)
	}
}
