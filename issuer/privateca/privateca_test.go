package privateca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
	"github.com/certferry/certferry/issuer/privateca"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newCA(t *testing.T, now func() time.Time) (*privateca.CA, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	if err := privateca.Init(dir, "Test", start); err != nil {
		t.Fatal(err)
	}
	ca, err := privateca.New(privateca.Config{Dir: dir, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return ca, dir
}

func at(when time.Time) func() time.Time { return func() time.Time { return when } }

func TestConformance(t *testing.T) {
	t.Parallel()
	ca, _ := newCA(t, at(start))
	issuertest.Run(t, issuertest.Harness{Issuer: ca, Now: at(start), Names: []string{"www.internal.test", "localhost"}, Wildcard: "*.internal.test"})
}

func TestIssuedCertificateIsTrustedThroughTheRoot(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t, at(start))
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "www.internal.test")
	got, err := ca.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.RootPEM())
	intermediates.AddCert(got.Chain[1])
	if _, err := got.Chain[0].Verify(x509.VerifyOptions{
		DNSName: "www.internal.test", Roots: roots, Intermediates: intermediates, CurrentTime: start,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		t.Errorf("verify: %v", err)
	}
	if life := got.Chain[0].NotAfter.Sub(start); life != privateca.DefaultLifetime {
		t.Errorf("lifetime %s, want %s", life, privateca.DefaultLifetime)
	}
	for _, name := range []string{"root.key", "intermediate.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestInitNeverReplaces(t *testing.T) {
	t.Parallel()
	ca, dir := newCA(t, at(start))
	if err := privateca.Init(dir, "Other", start); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("second init: %v", err)
	}
	again, err := privateca.New(privateca.Config{Dir: dir, Now: at(start)})
	if err != nil || string(again.RootPEM()) != string(ca.RootPEM()) {
		t.Errorf("the root changed: %v", err)
	}
}

func TestNewRefusesADamagedCA(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"root.crt", "intermediate.crt", "intermediate.key"} {
		_, dir := newCA(t, at(start))
		if err := os.WriteFile(filepath.Join(dir, name), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := privateca.New(privateca.Config{Dir: dir, Now: at(start)}); err == nil {
			t.Errorf("damaged %s: no error", name)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := privateca.New(privateca.Config{Dir: dir, Now: at(start)}); err == nil {
			t.Errorf("missing %s: no error", name)
		}
	}
	_, dir := newCA(t, at(start))
	if _, err := privateca.New(privateca.Config{Dir: dir, Lifetime: time.Second, Now: at(start)}); err == nil {
		t.Error("a lifetime of a second: no error")
	}
}

func TestLifetimeEndsWithTheIntermediate(t *testing.T) {
	t.Parallel()
	late := start.Add(10*365*24*time.Hour - 24*time.Hour)
	ca, _ := newCA(t, at(late))
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "www.internal.test")
	got, err := ca.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, intermediate := got.Chain[0].NotAfter, got.Chain[1].NotAfter; !leaf.Equal(intermediate) {
		t.Errorf("leaf expires at %s, its issuer at %s", leaf, intermediate)
	}
	expired, _ := newCA(t, at(late.Add(48*time.Hour)))
	_, err = expired.Issue(t.Context(), req)
	if refused := new(issuer.Error); !errors.As(err, &refused) || refused.Class != issuer.Account {
		t.Errorf("expired CA: %v, want class account", err)
	}
}

func TestCancelledOrder(t *testing.T) {
	t.Parallel()
	ca, _ := newCA(t, at(start))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "www.internal.test")
	if _, err := ca.Issue(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled order: %v", err)
	}
}
