package privateca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
	"github.com/certferry/certferry/issuer/privateca"
)

// fixture is a CA in a folder, whose clock a test turns.
type fixture struct {
	*testing.T

	dir string
	now time.Time
	ca  *privateca.CA
}

func newFixture(t *testing.T, permitted ...string) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: filepath.Join(t.TempDir(), "ca"), now: time.Now()}
	f.must(privateca.Init(f.dir, "Test", f.now, permitted...))
	f.open()
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) open() {
	f.Helper()
	var err error
	f.ca, err = privateca.New(privateca.Config{Dir: f.dir, CRLURL: "http://hub.example/crl/private-ca.crl", Now: func() time.Time { return f.now }})
	f.must(err)
}

func (f *fixture) issue(kind bundle.KeyType, names ...string) []*x509.Certificate {
	f.Helper()
	req, _ := issuertest.NewRequest(f, kind, names...)
	got, err := f.ca.Issue(f.Context(), req)
	f.must(err)
	return got.Chain
}

// write puts certificates or a CRL into a file.
func (f *fixture) write(name, kind string, all ...[]byte) string {
	f.Helper()
	var out bytes.Buffer
	for _, der := range all {
		f.must(pem.Encode(&out, &pem.Block{Type: kind, Bytes: der}))
	}
	path := filepath.Join(f.TempDir(), name)
	f.must(os.WriteFile(path, out.Bytes(), 0o600))
	return path
}

// openssl asks the other judge.
func (f *fixture) openssl(leaf []byte, intermediate []byte, crl []byte) string {
	f.Helper()
	root := filepath.Join(f.dir, "root.crt")
	args := []string{"verify", "-x509_strict", "-CAfile", root, "-untrusted", f.write("intermediate.pem", "CERTIFICATE", intermediate)}
	if crl != nil {
		args = append(args, "-crl_check", "-CRLfile", f.write("list.pem", "X509 CRL", crl))
	}
	out, err := exec.CommandContext(f.Context(), "openssl", append(args, f.write("leaf.pem", "CERTIFICATE", leaf))...).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		f.Skipf("skipped: openssl does not run: %v", err)
	}
	return string(out)
}

func TestRevokedCertificatesStandOnTheList(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	good, bad := f.issue(bundle.ECDSAP256, "good.example"), f.issue(bundle.RSA2048, "bad.example")
	if bad[0].KeyUsage&x509.KeyUsageKeyEncipherment == 0 || good[0].KeyUsage&x509.KeyUsageKeyEncipherment != 0 || len(good[0].CRLDistributionPoints) != 1 {
		t.Errorf("key usage %b and %b, CRL at %v", bad[0].KeyUsage, good[0].KeyUsage, good[0].CRLDistributionPoints)
	}
	before, err := f.ca.CRL()
	f.must(err)
	if out := f.openssl(bad[0].Raw, bad[1].Raw, before); !strings.Contains(out, "OK") {
		t.Errorf("before it was revoked: %s", out)
	}
	for range 2 {
		f.must(f.ca.Revoke(t.Context(), bad[0], 1))
	}
	f.open() // the list outlives the process
	der, err := f.ca.CRL()
	f.must(err)
	list, err := x509.ParseRevocationList(der)
	f.must(err)
	f.must(list.CheckSignatureFrom(bad[1]))
	if len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(bad[0].SerialNumber) != 0 || list.RevokedCertificateEntries[0].ReasonCode != 1 {
		t.Errorf("%+v", list.RevokedCertificateEntries)
	}
	if out := f.openssl(bad[0].Raw, bad[1].Raw, der); !strings.Contains(out, "revoked") {
		t.Errorf("revoked: %s", out)
	}
	if out := f.openssl(good[0].Raw, good[1].Raw, der); !strings.Contains(out, "OK") {
		t.Errorf("not revoked: %s", out)
	}

	// It is made anew in time, its number grows, and what expired leaves it.
	again, err := f.ca.CRL()
	f.must(err)
	if !bytes.Equal(again, der) {
		t.Error("made anew without a reason")
	}
	f.now = f.now.Add(4 * 24 * time.Hour)
	later, err := f.ca.CRL()
	f.must(err)
	next, err := x509.ParseRevocationList(later)
	f.must(err)
	if next.Number.Cmp(list.Number) <= 0 || !next.NextUpdate.After(list.NextUpdate) {
		t.Errorf("number %s after %s", next.Number, list.Number)
	}
	f.now = f.now.Add(100 * 24 * time.Hour)
	last, err := f.ca.CRL()
	f.must(err)
	if list, err = x509.ParseRevocationList(last); err != nil || len(list.RevokedCertificateEntries) != 0 {
		t.Errorf("%+v, %v", list, err)
	}

	foreign := newFixture(t).issue(bundle.ECDSAP256, "x.example")
	for name, tc := range map[string]struct {
		leaf   *x509.Certificate
		reason int
	}{"of another CA": {foreign[0], 1}, "no such reason": {good[0], 7}} {
		failed := new(issuer.Error)
		if err := f.ca.Revoke(t.Context(), tc.leaf, tc.reason); !errors.As(err, &failed) || failed.Class != issuer.Permanent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherObjectOnTheFolderIsHeard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	chain := f.issue(bundle.ECDSAP256, "a.example")
	first := f.ca
	_, err := first.CRL()
	f.must(err)
	f.open()
	f.must(f.ca.Revoke(t.Context(), chain[0], 4))
	der, err := first.CRL()
	f.must(err)
	if list, err := x509.ParseRevocationList(der); err != nil || len(list.RevokedCertificateEntries) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestALineThatACrashCutShort(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	chain := f.issue(bundle.ECDSAP256, "a.example")
	f.must(f.ca.Revoke(t.Context(), chain[0], 4))
	path := filepath.Join(f.dir, "revoked.jsonl")
	data, err := os.ReadFile(path)
	f.must(err)
	f.must(os.WriteFile(path, append(data, data[:20]...), 0o600))
	der, err := f.ca.CRL()
	f.must(err)
	if list, err := x509.ParseRevocationList(der); err != nil || len(list.RevokedCertificateEntries) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	// The next line does not go into its midst.
	other := f.issue(bundle.ECDSAP256, "b.example")
	f.must(f.ca.Revoke(t.Context(), other[0], 4))
	if der, err = f.ca.CRL(); err != nil {
		t.Fatal(err)
	}
	if list, err := x509.ParseRevocationList(der); err != nil || len(list.RevokedCertificateEntries) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	f.must(os.WriteFile(path, append(append(data[:20:20], '\n'), data...), 0o600))
	if _, err := f.ca.CRL(); err == nil {
		t.Error("a damaged line in the midst of the list was passed over")
	}
}

func TestNameConstraints(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "internal.example", "corp.test")
	chain := f.issue(bundle.ECDSAP256, "a.internal.example", "*.b.corp.test", "corp.test")
	if out := f.openssl(chain[0].Raw, chain[1].Raw, nil); !strings.Contains(out, "OK") {
		t.Error(out)
	}
	for _, name := range []string{"example.com", "notinternal.example", "internal.example.com"} {
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "ok.corp.test", name)
		failed := new(issuer.Error)
		if _, err := f.ca.Issue(t.Context(), req); !errors.As(err, &failed) || failed.Class != issuer.Permanent || failed.Name != name || !strings.Contains(failed.Detail, "corp.test") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, domain := range []string{"", "*.example", "a b", "exa\"mple"} {
		if err := privateca.Init(filepath.Join(t.TempDir(), "ca"), "X", f.now, domain); err == nil {
			t.Errorf("made a CA for %q", domain)
		}
	}
}

func TestRenewIntermediate(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "internal.example")
	old := f.issue(bundle.ECDSAP256, "old.internal.example")
	f.must(f.ca.Revoke(t.Context(), old[0], 4))
	f.now = f.now.Add(9 * 365 * 24 * time.Hour)
	f.must(privateca.RenewIntermediate(f.dir, f.now))
	f.open()
	renewed := f.issue(bundle.ECDSAP256, "new.internal.example")
	if !renewed[1].NotAfter.After(old[1].NotAfter) || len(renewed[1].PermittedDNSDomains) != 1 || !bytes.Equal(renewed[1].SubjectKeyId, old[1].SubjectKeyId) {
		t.Errorf("until %s, before until %s, permitted %v", renewed[1].NotAfter, old[1].NotAfter, renewed[1].PermittedDNSDomains)
	}
	// What was signed before chains to the renewed one.
	f.must(old[0].CheckSignatureFrom(renewed[1]))
	f.must(os.Remove(filepath.Join(f.dir, "root.key")))
	if err := privateca.RenewIntermediate(f.dir, f.now); err == nil || !strings.Contains(err.Error(), "bring the root's key back") {
		t.Errorf("without the root's key: %v", err)
	}
	f.issue(bundle.ECDSAP256, "still.internal.example")
}

// TestAnIntermediateEndsWithItsRoot: behind a root that has ended, clients trust nothing.
func TestAnIntermediateEndsWithItsRoot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.now = f.now.Add(19 * 365 * 24 * time.Hour)
	f.must(privateca.RenewIntermediate(f.dir, f.now))
	f.open()
	root, _ := pem.Decode(f.ca.RootPEM())
	trusted, err := x509.ParseCertificate(root.Bytes)
	f.must(err)
	f.now = trusted.NotAfter.Add(-time.Hour)
	for _, c := range f.issue(bundle.ECDSAP256, "late.example") {
		if c.NotAfter.After(trusted.NotAfter) {
			t.Errorf("%s lasts until %s, the root until %s", c.Subject, c.NotAfter, trusted.NotAfter)
		}
	}
	if err := privateca.RenewIntermediate(f.dir, trusted.NotAfter.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), "the root has expired") {
		t.Errorf("behind the end of the root: %v", err)
	}
}
