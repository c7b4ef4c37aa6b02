package daemon

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/privateca"
)

var discard = slog.New(slog.DiscardHandler)

// writePair writes a new certificate for localhost and its key, and returns its serial number.
func writePair(t *testing.T, ca *privateca.CA, cfg *Config) string {
	t.Helper()
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	b := issueFor(t, ca, key, "localhost")
	keyPEM, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, cfg.TLSCert, string(b.FullChainPEM()))
	overwrite(t, cfg.TLSKey, string(keyPEM))
	// File systems stamp coarsely; a real renewal is days after the last.
	later := time.Now().Add(time.Duration(b.Leaf.SerialNumber.Int64()&0xffff) * time.Millisecond)
	if err := os.Chtimes(cfg.TLSCert, later, later); err != nil {
		t.Fatal(err)
	}
	return b.Leaf.SerialNumber.String()
}

func issueFor(t *testing.T, ca issuer.Issuer, key crypto.Signer, name string) *bundle.Bundle {
	t.Helper()
	csr, err := bundle.NewCSR(key, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := ca.Issue(t.Context(), issuer.Request{ID: "test", Names: []string{name}, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.Bundle{Leaf: answer.Chain[0], Chain: answer.Chain[1:], Key: key}
}

type fakeAuth struct {
	caller hub.Principal
	err    error
}

func (f fakeAuth) AuthenticateGit(context.Context, string, string) (hub.Principal, error) {
	return f.caller, f.err
}

func TestGitAccess(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	for _, tc := range []struct {
		name string
		auth fakeAuth
		want gitserve.Grant
		err  error
	}{
		{"agent", fakeAuth{caller: hub.Principal{Kind: hub.Agent, Name: "web-1"}}, gitserve.Grant{
			Name: "agent:web-1", Refs: []string{"refs/heads/servers/web-1"}, Head: "refs/heads/servers/web-1",
		}, nil},
		{"person", fakeAuth{caller: hub.Principal{Kind: hub.Person, Name: "ada"}}, gitserve.Grant{
			Name: "ada", All: true, Head: "refs/heads/main",
		}, nil},
		{"nobody", fakeAuth{caller: hub.Principal{Kind: hub.Anonymous}}, gitserve.Grant{}, gitserve.ErrDenied},
		{"denied", fakeAuth{err: &hub.Error{Class: hub.ErrUnauthenticated, Message: "no"}}, gitserve.Grant{}, gitserve.ErrDenied},
		{"fault", fakeAuth{err: broken}, gitserve.Grant{}, broken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := gitAccess{tc.auth, discard}.Authorize(t.Context(), "name", "secret")
			if !errors.Is(err, tc.err) || cmp.Diff(tc.want, got) != "" {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{CredentialsDir: dir}
	overwrite(t, filepath.Join(dir, "cloud.env"), "# the zone's token\n\nCF_Token=abc=def\nexport CF_Zone_ID = \"z 1\"\nEMPTY=\nQUOTED='it''s'\n")
	got, err := cfg.credential("cloud")
	want := map[string]string{"CF_Token": "abc=def", "CF_Zone_ID": "z 1", "EMPTY": "", "QUOTED": "it''s"}
	if err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	for text, line := range map[string]string{
		"A=1\nsecret-value\n":       "line 2",
		"1A=secret-value\n":         "line 1",
		"A=1\nA=secret-value\n":     "line 2",
		"A=secret-value\x00more\n":  "line 1",
		"A-B=secret-value":          "line 1",
		"=secret-value":             "line 1",
		"$(touch secret-value)=1\n": "line 1",
	} {
		overwrite(t, filepath.Join(dir, "bad.env"), text)
		_, err := cfg.credential("bad")
		if err == nil || !strings.Contains(err.Error(), line) || strings.Contains(err.Error(), "secret-value") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, name := range []string{"absent", "../cloud", ""} {
		if _, err := cfg.credential(name); err == nil {
			t.Errorf("credential %q: no error", name)
		}
	}
	chmod(t, filepath.Join(dir, "cloud.env"), 0o644)
	if _, err := cfg.credential("cloud"); err == nil || !strings.Contains(err.Error(), "others may read it") {
		t.Errorf("readable credential: %v", err)
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("A=1\n# b\nexport C='d'\n"))
	f.Add([]byte("A='\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := parseEnv(data)
		for key := range values {
			if err == nil && !variableName.MatchString(key) {
				t.Errorf("key %q came through", key)
			}
		}
	})
}

func TestIssuers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{
		DataDir: dir, ACMEScript: filepath.Join(dir, "acme.sh"), ACMEUnpinned: true, ACMEUser: "root",
		ACMEDirectories: []string{"https://ca.example/dir"},
	}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	overwrite(t, cfg.ACMEScript, "#!/bin/sh\n")
	if err := privateca.Init(cfg.paths().privateCA(), "Test", time.Now()); err != nil {
		t.Fatal(err)
	}
	f := newIssuers(&cfg, time.Now, discard)
	acme := &manifest.Issuer{Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"}}
	first, err := f.driver(acme)
	if err != nil {
		t.Fatal(err)
	}
	copied := *acme
	if again, err := f.driver(&copied); err != nil || again != first {
		t.Errorf("the same issuer has two drivers: %v", err)
	}
	changed := &manifest.Issuer{Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir", Email: "ops@example.com"}}
	if other, err := f.driver(changed); err != nil || other == first {
		t.Errorf("a changed issuer has the old driver: %v", err)
	}

	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	private, err := f.driver(&manifest.Issuer{Name: "short", Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: "24h"}})
	if err != nil {
		t.Fatal(err)
	}
	if life := time.Until(issueFor(t, private, key, "example.com").Leaf.NotAfter); life > 24*time.Hour || life < 23*time.Hour {
		t.Errorf("lifetime is %s", life)
	}

	for name, tc := range map[string]struct {
		intent *manifest.Issuer
		change func(*Config)
		class  issuer.Class
		want   string
	}{
		"unknown type":  {&manifest.Issuer{Name: "x", Type: "later"}, nil, issuer.Account, "does not know"},
		"other CA":      {&manifest.Issuer{Name: "x", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://evil.example/dir"}}, nil, issuer.Account, "acme_directories"},
		"no acme.sh":    {acme, func(c *Config) { c.ACMEScript = "" }, issuer.Account, "acme_script"},
		"lost acme.sh":  {acme, func(c *Config) { c.ACMEScript += "-gone" }, issuer.Local, "acme.sh"},
		"bad lifetime":  {&manifest.Issuer{Name: "x", Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: "soon"}}, nil, issuer.Permanent, "lifetime"},
		"no private CA": {&manifest.Issuer{Name: "x", Type: "privateca"}, func(c *Config) { c.DataDir += "/gone" }, issuer.Local, "CA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cfg
			if tc.change != nil {
				tc.change(&c)
			}
			_, err := newIssuers(&c, time.Now, discard).driver(tc.intent)
			var e *issuer.Error
			if !errors.As(err, &e) || e.Class != tc.class || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestServeEndsWithItsListener(t *testing.T) {
	t.Parallel()
	cfg := Config{Listen: "127.0.0.1:0"}
	l, err := listen(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := serve(t.Context(), l, http.NotFoundHandler(), func() {}, discard); err == nil {
		t.Error("served without a listener")
	}
}

func TestTakePort(t *testing.T) {
	t.Parallel()
	cfg := Config{Listen: "127.0.0.1:0"}
	l, err := listen(t.Context(), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	for given, want := range map[string]string{
		"http://127.0.0.1:0":      "http://" + l.Addr().String(),
		"https://hub.example.com": "https://hub.example.com",
		"http://localhost:8600":   "http://localhost:8600",
		":":                       ":",
	} {
		if got := takePort(given, l); got != want {
			t.Errorf("takePort(%s) = %s, want %s", given, got, want)
		}
	}
}

func TestAddIssuer(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	cfg.ACMEScript, cfg.ACMEUnpinned, cfg.ACMEUser = filepath.Join(t.TempDir(), "acme.sh"), true, "root"
	cfg.ACMEDirectories = []string{"https://ca.example/dir"}
	overwrite(t, cfg.ACMEScript, "#!/bin/sh\n")
	acme := &manifest.Issuer{Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"}}
	if err := AddIssuer(t.Context(), cfg, time.Now, acme); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg    Config
		intent *manifest.Issuer
		want   string
	}{
		"twice":         {cfg, acme, "there is one of that name already"},
		"other CA":      {cfg, &manifest.Issuer{Name: "x", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://evil.example/dir"}}, "acme_directories"},
		"bad name":      {cfg, &manifest.Issuer{Name: "../x", Type: "privateca"}, "name"},
		"bad settings":  {Config{DataDir: "relative"}, acme, "data_dir"},
		"no hub at all": {Config{DataDir: filepath.Join(t.TempDir(), "none")}, &manifest.Issuer{Name: "x", Type: "privateca"}, "CA"},
	} {
		if err := AddIssuer(t.Context(), tc.cfg, time.Now, tc.intent); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	_, _, _, stop := running(t, cfg)
	other := &manifest.Issuer{Name: "other", Type: "privateca"}
	if err := AddIssuer(t.Context(), cfg, time.Now, other); !errors.Is(err, ErrRunning) {
		t.Errorf("while a hub runs: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
