package acmesh_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// TestCheck: what an order would be refused for is known before it runs.
func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	own := t.TempDir()
	w.cfg.Closed = []string{own}
	w.open(t)
	var checker issuer.Checker = w.issuer
	webroot := func(path string) issuer.Challenge {
		return issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: path}
	}
	absent, unknown, other := w.dns("x"), w.dns("x"), w.dns("another")
	absent.Hook = "dns_nosuch"
	unknown.Credentials = map[string]string{"CF_Token": "x"}
	for name, tt := range map[string]struct {
		names     []string
		challenge issuer.Challenge
		overrides map[string]issuer.Challenge
		says      string
	}{
		"fine":              {[]string{"a.test", "*.a.test"}, w.dns("x"), nil, ""},
		"a webroot":         {[]string{"a.test"}, webroot(t.TempDir()), nil, ""},
		"mixed":             {[]string{"a.test", "*.a.test"}, webroot(t.TempDir()), map[string]issuer.Challenge{"*.a.test": w.dns("x")}, ""},
		"no names":          {nil, w.dns("x"), nil, "1 to 100 names"},
		"a bad name":        {[]string{"a b"}, w.dns("x"), nil, "name 1"},
		"no hook":           {[]string{"a.test"}, absent, nil, "no DNS hook dns_nosuch"},
		"no variable":       {[]string{"a.test"}, unknown, nil, "does not know the variable CF_Token"},
		"a closed webroot":  {[]string{"a.test"}, webroot(own), nil, "the webroot is"},
		"an absent webroot": {[]string{"a.test"}, webroot("/nonexistent"), nil, "the webroot is"},
		"a wildcard":        {[]string{"*.a.test"}, webroot(t.TempDir()), nil, "dns-01 only"},
		"a foreign name":    {[]string{"a.test"}, w.dns("x"), map[string]issuer.Challenge{"b.test": w.dns("x")}, "does not have"},
		"a bad override":    {[]string{"a.test", "b.test"}, w.dns("x"), map[string]issuer.Challenge{"b.test": absent}, "dns_nosuch"},
		"two values":        {[]string{"a.test", "b.test"}, w.dns("x"), map[string]issuer.Challenge{"b.test": other}, "different values"},
	} {
		err := checker.Check(tt.names, tt.challenge, tt.overrides)
		switch {
		case tt.says == "" && err != nil, tt.says != "" && err == nil:
			t.Errorf("%s: %v", name, err)
		case err != nil && (classOf(t, err) != issuer.Permanent || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
	if homes, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "[^.]*")); err != nil || len(homes) > 0 {
		t.Errorf("folders were made: %v, %v", homes, err)
	}
}

// TestCheckOfChangedFiles: a published hook is held against its sum, one of the administrator's own is not.
func TestCheckOfChangedFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	dir := t.TempDir()
	info := []byte("dns_published_info='X\nSite: localhost\nOptions:\n X_Token Token\n'\nuse \"$X_Token\"\n")
	err := errors.Join(
		os.Mkdir(filepath.Join(dir, "dnsapi"), 0o755), os.WriteFile(filepath.Join(dir, "acme.sh"), nil, 0o600),
		os.WriteFile(filepath.Join(dir, "dnsapi", "dns_published.sh"), info, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	w.cfg.Script = filepath.Join(dir, "acme.sh")
	w.cfg.Verify = func(files ...string) error {
		asked = files
		if slices.Contains(files, "dnsapi/dns_published.sh") {
			return errors.New("changed: dnsapi/dns_published.sh")
		}
		return nil
	}
	w.open(t)
	published := issuer.Challenge{Type: issuer.DNS01, Hook: "dns_published", Credentials: map[string]string{"X_Token": "x"}}
	err = w.issuer.Check([]string{"a.test", "b.test"}, w.dns("x"), map[string]issuer.Challenge{"b.test": published})
	if classOf(t, err) != issuer.Local || !strings.Contains(err.Error(), "acme install") || !slices.Equal(asked, []string{"acme.sh", "dnsapi/dns_published.sh"}) {
		t.Errorf("%v, asked for %v", err, asked)
	}
	if err := w.issuer.Check([]string{"a.test"}, w.dns("x"), nil); err != nil || !slices.Equal(asked, []string{"acme.sh"}) {
		t.Errorf("%v, asked for %v", err, asked)
	}
}
