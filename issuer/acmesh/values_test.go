package acmesh_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// evilValues would run as commands, end lines or texts, or fill memory. The first three make the file marker.
func evilValues(marker string) []string {
	return []string{
		"'; touch " + marker + "; '", "$(touch " + marker + ")", "`touch " + marker + "`", "a\nb", "a\x00b", `a"b`, "a'b", "a$b", "a`b",
		strings.Repeat("x", 10_000), strings.Repeat("x.", 5000) + "test", "/" + strings.Repeat("x", 10_000),
	}
}

// TestBadAccountValuesNeverRun is TestBadValuesNeverRun for what an issuer's account is made of.
func TestBadAccountValuesNeverRun(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			next.ServeHTTP(out, r)
		})
	}})
	marker := filepath.Join(t.TempDir(), "ran")
	refuse := func(what, value string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s %.60q: no error", what, value)
		} else if len(value) > 5 && strings.Contains(err.Error(), value) {
			t.Errorf("%s: the error repeats the value", what)
		}
	}
	for _, value := range evilValues(marker) {
		for what, change := range map[string]func(*acmesh.Config){
			"e-mail": func(c *acmesh.Config) { c.Email = value }, "part of an e-mail": func(c *acmesh.Config) { c.Email = value + "@example.com" },
			"e-mail's domain": func(c *acmesh.Config) { c.Email = "ops@" + value },
			"URL":             func(c *acmesh.Config) { c.Directory = value }, "part of a URL": func(c *acmesh.Config) { c.Directory = "https://ca.test/" + value },
			"host of a URL": func(c *acmesh.Config) { c.Directory = "https://" + value + "/directory" },
		} {
			cfg := w.cfg
			change(&cfg)
			_, err := acmesh.New(cfg)
			refuse(what, value, err)
		}
		for _, part := range []string{value, "kid-" + value} {
			w.cfg.EAB = func() (string, []byte, error) { return part, []byte("a key of thirty-two bytes or more"), nil }
			w.open(t)
			_, err := w.issuer.Thumbprint(t.Context())
			refuse("EAB key id", part, err)
			if classOf(t, err) != issuer.Account {
				t.Errorf("EAB key id: %v", err)
			}
		}
	}
	for _, key := range []string{"", strings.Repeat("k", 10_000)} {
		w.cfg.EAB = func() (string, []byte, error) { return "kid-1", []byte(key), nil }
		w.open(t)
		_, err := w.issuer.Thumbprint(t.Context())
		refuse("EAB HMAC key", key, err)
	}
	if n := requests.Load(); n > 0 {
		t.Errorf("the CA was asked %d times", n)
	}
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a value was run as a command")
	}
}

// TestOddHMACKeysStaySecret: the key is bytes, all of which are allowed. It signs in this process, and is told nobody.
func TestOddHMACKeysStaySecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{EAB: map[string]string{"kid-1": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}})
	marker := filepath.Join(t.TempDir(), "ran")
	for _, value := range evilValues(marker)[:9] {
		key := value + strings.Repeat("canary", 10)
		w.cfg.EAB = func() (string, []byte, error) { return "kid-1", []byte(key), nil }
		w.open(t)
		_, err := w.issuer.Thumbprint(t.Context())
		if err == nil || classOf(t, err) != issuer.Account || strings.Contains(err.Error(), "canary") {
			t.Errorf("%q: %v", value, err)
		}
	}
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was run as a command")
	}
	w.leavesNothing(t, "canary")
}
