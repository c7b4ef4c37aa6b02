package acmesh_test

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// issue orders one certificate and returns its chain.
func (w *world) issue(t *testing.T, name string, change func(*issuer.Request)) []*x509.Certificate {
	t.Helper()
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, name)
	req.Challenge = w.dns("x")
	if change != nil {
		change(&req)
	}
	got, err := w.issuer.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return got.Chain
}

func TestExternalAccountBinding(t *testing.T) {
	t.Parallel()
	key := []byte("a key of thirty-two bytes or more")
	w := newWorld(t, issuertest.PebbleConfig{EAB: map[string]string{"kid-1": base64.RawURLEncoding.EncodeToString(key)}})
	_, err := w.issuer.Thumbprint(t.Context())
	failed := new(issuer.Error)
	if !errors.As(err, &failed) || failed.Class != issuer.Account || failed.ACMEType != "externalAccountRequired" {
		t.Errorf("no binding: %v", err)
	}
	for name, tc := range map[string]struct {
		kid string
		key []byte
		err error
		ok  bool
	}{
		"another key":    {"kid-1", []byte("another key of thirty-two bytes..."), nil, false},
		"an unknown id":  {"kid-2", key, nil, false},
		"cannot be read": {"", nil, errors.New("it is locked"), false},
		"the right one":  {"kid-1", key, nil, true},
	} {
		w.cfg.EAB = func() (string, []byte, error) { return tc.kid, tc.key, tc.err }
		w.cfg.StateDir = filepath.Join(t.TempDir(), "state")
		w.open(t)
		_, err := w.issuer.Thumbprint(t.Context())
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (classOf(t, err) != issuer.Account || strings.Contains(err.Error(), string(key))) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.cfg.EAB = func() (string, []byte, error) { return "kid-1", key, nil }
	w.cfg.StateDir = filepath.Join(t.TempDir(), "state")
	w.open(t)
	w.issue(t, "eab.test", nil)
}

func TestAccountAndItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	info, err := w.issuer.Account(t.Context())
	if err != nil || info.Status != "valid" || !strings.HasPrefix(info.URL, "https://") || len(info.Contact) != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
	before, err := w.issuer.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.issuer.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The next order makes a new account; the old key is kept aside.
	after, err := w.issuer.Thumbprint(t.Context())
	if err != nil || after == before {
		t.Errorf("the same account after its end (%v)", err)
	}
	aside, err := filepath.Glob(filepath.Join(w.cfg.StateDir, "*", "account.key.*"))
	if err != nil || len(aside) != 1 {
		t.Errorf("keys put aside: %v, %v", aside, err)
	}
	w.issue(t, "after.test", nil)
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	chain := w.issue(t, "revoke.test", nil)
	for range 2 { // the second time it is revoked already
		if err := w.issuer.Revoke(t.Context(), chain[0], 4); err != nil {
			t.Fatal(err)
		}
	}
	other := w.issue(t, "other.test", nil)
	if err := w.issuer.Revoke(t.Context(), other[0], 99); classOf(t, err) != issuer.Permanent {
		t.Errorf("an unknown reason: %v", err)
	}
	w.cfg.StateDir = filepath.Join(t.TempDir(), "another account")
	w.cfg.StateDir = strings.ReplaceAll(w.cfg.StateDir, " ", "-")
	w.open(t)
	if err := w.issuer.Revoke(t.Context(), other[0], 4); err == nil || classOf(t, err) != issuer.Permanent {
		t.Errorf("by another account: %v", err)
	}
	_ = w.pebble.Close()
	if err := w.issuer.Revoke(t.Context(), other[0], 4); classOf(t, err) != issuer.Retryable {
		t.Errorf("the CA is away: %v", err)
	}
}

func TestRenewalInfo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	chain := w.issue(t, "ari.test", nil)
	info, err := w.issuer.RenewalInfo(t.Context(), chain[0], chain[1])
	if err != nil || !info.Start.Before(info.End) || info.RetryAfter <= 0 || info.End.After(chain[0].NotAfter) {
		t.Fatalf("%+v, %v", info, err)
	}
	// By serial number and issuer's key alone, as the hub asks.
	again, err := w.issuer.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: chain[0].SerialNumber}, chain[1])
	if err != nil || !again.Start.Equal(info.Start) {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := w.issuer.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: big.NewInt(1)}, nil); !errors.Is(err, issuer.ErrUnsupported) {
		t.Errorf("a certificate without its issuer: %v", err)
	}
	if _, err := w.issuer.RenewalInfo(t.Context(), &x509.Certificate{SerialNumber: big.NewInt(1)}, chain[1]); err == nil {
		t.Error("a certificate that the CA does not know has a window")
	}
}

func TestRenewalInfoOfOddCAs(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		directory, answer, retry string
		status                   int
		want                     func(issuer.RenewalInfo, error) bool
	}{
		"none":        {`{"newOrder":"x"}`, "", "", 200, func(_ issuer.RenewalInfo, err error) bool { return errors.Is(err, issuer.ErrUnsupported) }},
		"garbage":     {"", "<html>", "", 200, failed},
		"an error":    {"", "{}", "", 500, failed},
		"ends before": {"", `{"suggestedWindow":{"start":"2026-12-02T00:00:00Z","end":"2026-12-01T00:00:00Z"}}`, "", 200, failed},
		"endless":     {"", `{"suggestedWindow":` + strings.Repeat(" ", 1<<20) + `}`, "", 200, failed},
		"metadata of a cloud": {`{"renewalInfo":"http://169.254.169.254/latest"}`, "", "", 200, func(_ issuer.RenewalInfo, err error) bool {
			return err != nil && strings.Contains(err.Error(), "leads to another place")
		}},
		"a script address": {"", window(`,"explanationURL":"javascript:alert(1)"`), "21600", 200, func(i issuer.RenewalInfo, err error) bool {
			return err == nil && i.ExplanationURL == "" && i.RetryAfter == 6*time.Hour
		}},
		"an explanation": {"", window(`,"explanationURL":"https://ca.test/why"`), "x", 200, func(i issuer.RenewalInfo, err error) bool {
			return err == nil && i.ExplanationURL == "https://ca.test/why" && i.RetryAfter == 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, issuertest.PebbleConfig{Wrap: func(http.Handler) http.Handler {
				return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/dir") {
						if tc.directory != "" {
							_, _ = fmt.Fprint(out, tc.directory)
							return
						}
						_, _ = fmt.Fprintf(out, `{"renewalInfo":"https://%s/ari/"}`, r.Host)
						return
					}
					if !strings.HasPrefix(r.URL.Path, "/ari/") || strings.Count(r.URL.Path, ".") != 1 {
						out.WriteHeader(http.StatusNotFound)
						return
					}
					out.Header().Set("Retry-After", tc.retry)
					out.WriteHeader(tc.status)
					_, _ = fmt.Fprint(out, tc.answer)
				})
			}})
			leaf := &x509.Certificate{SerialNumber: big.NewInt(0xabcdef), AuthorityKeyId: []byte{1, 2, 3}}
			if info, err := w.issuer.RenewalInfo(t.Context(), leaf, nil); !tc.want(info, err) {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func failed(_ issuer.RenewalInfo, err error) bool {
	return err != nil && !errors.Is(err, issuer.ErrUnsupported)
}

func window(more string) string {
	return `{"suggestedWindow":{"start":"2026-12-01T00:00:00Z","end":"2026-12-02T00:00:00Z"}` + more + `}`
}

func TestProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	if os.Getenv("ACME_SH") == "" {
		t.Skip("skipped: the stand-in knows no profiles: set ACME_SH")
	}
	chain := w.issue(t, "profile.test", func(r *issuer.Request) { r.Profile = "shortlived" })
	if life := chain[0].NotAfter.Sub(chain[0].NotBefore); life > 7*24*time.Hour {
		t.Errorf("lives for %s", life)
	}
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "unknown.test")
	req.Challenge, req.Profile = w.dns("x"), "no-such-profile"
	_, err := w.issuer.Issue(t.Context(), req)
	if classOf(t, err) != issuer.Permanent {
		t.Errorf("an unknown profile: %v", err)
	}
}

func TestKnownCAs(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, ca := range acmesh.KnownCAs() {
		if seen[ca.ID] || !strings.HasPrefix(ca.Directory, "https://") || ca.Title == "" || len(ca.CAA) == 0 || !strings.HasPrefix(ca.Help, "https://") {
			t.Errorf("%+v", ca)
		}
		seen[ca.ID] = true
		if ca.Staging != "" {
			if twin, ok := acmesh.CAOf(ca.Staging); !ok || twin.Staging != twin.Directory {
				t.Errorf("%s: its staging is no known CA", ca.ID)
			}
		}
		if again, ok := acmesh.CANamed(ca.ID); !ok || again.Directory != ca.Directory {
			t.Errorf("%s is not found by its name", ca.ID)
		}
	}
	if _, ok := acmesh.CAOf("https://ca.example/directory"); ok {
		t.Error("knows a CA that it does not")
	}
}
