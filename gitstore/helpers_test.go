package gitstore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const repoID = "repo-1"

// world is a hub's keys, a CA and a clock.
type world struct {
	tb     testing.TB
	dir    string
	root   *seal.PrivateKey
	hub    *seal.PrivateKey
	escrow *seal.PrivateKey
	ca     *x509.Certificate
	caKey  crypto.Signer

	mu     sync.Mutex
	now    time.Time
	serial int64
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{tb: tb, dir: tb.TempDir(), now: start}
	w.root, w.hub, w.escrow = w.key("root"), w.key("hub"), w.key("escrow")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: start.AddDate(-1, 0, 0), NotAfter: start.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	w.must(err)
	w.ca, err = x509.ParseCertificate(der)
	w.must(err)
	w.caKey = key
	return w
}

func (w *world) must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) key(name string) *seal.PrivateKey {
	w.tb.Helper()
	k, err := seal.Generate(name, start.Add(-time.Hour))
	w.must(err)
	return k
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// config makes a Store's configuration with a signed keyring of the given version.
func (w *world) config(version uint64) gitstore.Config {
	w.tb.Helper()
	public, err := w.hub.Public().Armor()
	w.must(err)
	ring := &manifest.Keyring{
		Format: manifest.Format, RepoID: repoID, Version: version, IssuedAt: start,
		Keys: []manifest.KeyringKey{{Fingerprint: w.hub.Fingerprint(), PublicKey: string(public)}},
	}
	data, err := ring.Encode()
	w.must(err)
	sig, err := seal.Sign(manifest.KeyringSignatureDomain, data, w.root, start)
	w.must(err)
	return gitstore.Config{
		Dir: w.dir, RepoID: repoID, Hub: w.hub, Escrow: w.escrow, Keyring: data, KeyringSig: sig,
		Committer: gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}, Now: w.clock,
	}
}

func (w *world) open(version uint64) *gitstore.Store {
	w.tb.Helper()
	s, err := gitstore.Open(w.config(version))
	w.must(err)
	w.tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.tb.Error(err)
		}
	})
	return s
}

// bundle makes a certificate that is valid for days from now.
func (w *world) bundle(days int, names ...string) *bundle.Bundle {
	w.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	w.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x04ab00 + w.serial), DNSNames: names, NotBefore: w.clock().Add(-time.Hour),
		NotAfter: w.clock().AddDate(0, 0, days), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, w.ca, key.Public(), w.caKey)
	w.must(err)
	leaf, err := x509.ParseCertificate(der)
	w.must(err)
	return &bundle.Bundle{Leaf: leaf, Chain: []*x509.Certificate{w.ca}, Key: key}
}

func certificateYAML(tb testing.TB, name string, names ...string) gitrepo.Edit {
	tb.Helper()
	c := &manifest.Certificate{
		APIVersion: manifest.APIVersion, Kind: manifest.KindCertificate, Name: name, Names: names, Issuer: "internal",
		KeyType: "ecdsa-p256",
	}
	data, err := c.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return gitrepo.Edit{Path: manifest.CertificatePath(name), Data: data}
}

func serverYAML(tb testing.TB, name string, labels map[string]string) gitrepo.Edit {
	tb.Helper()
	data, err := (&manifest.Server{APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: name, Labels: labels}).Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return gitrepo.Edit{Path: manifest.ServerPath(name), Data: data}
}

func issuerYAML(tb testing.TB, name string) gitrepo.Edit {
	tb.Helper()
	data, err := (&manifest.Issuer{APIVersion: manifest.APIVersion, Kind: manifest.KindIssuer, Name: name, Type: "privateca"}).Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return gitrepo.Edit{Path: manifest.IssuerPath(name), Data: data}
}

var ada = gitstore.Actor{Name: "Ada", Email: "ada@example.com"}

func apply(tb testing.TB, s *gitstore.Store, subject string, edits ...gitrepo.Edit) string {
	tb.Helper()
	commit, err := s.Apply(tb.Context(), gitstore.Change{Subject: subject, Actor: ada, Edits: edits})
	if err != nil {
		tb.Fatal(err)
	}
	return commit
}

func issue(tb testing.TB, s *gitstore.Store, name string, b *bundle.Bundle) string {
	tb.Helper()
	commit, err := s.PutIssued(tb.Context(), gitstore.Issue{
		Certificate: name, Bundle: b, Issued: manifest.IssuedCertificate{Issuer: "internal", KeyType: "ecdsa-p256"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return commit
}

func snapshot(tb testing.TB, s *gitstore.Store) *gitstore.Snapshot {
	tb.Helper()
	snap, err := s.Snapshot()
	if err != nil {
		tb.Fatal(err)
	}
	return snap
}

// run runs a program away from the machine's configuration, in dir.
func run(tb testing.TB, dir string, env []string, stdin, program string, args ...string) string {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		tb.Skipf("SKIP: %s is not installed", program)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}
