package daemon

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
)

func TestStagingIsTheTwinOfAKnownCA(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir()}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	f := newIssuers(&cfg, time.Now, nil)
	of := func(directory string) *manifest.Issuer {
		return &manifest.Issuer{Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: directory, Email: "ops@example.com", PreferredChain: "ISRG Root X1"}}
	}
	live := of("https://acme-v02.api.letsencrypt.org/directory")
	twin := f.staging(live)
	if twin == nil || twin.ACME.Directory != "https://acme-staging-v02.api.letsencrypt.org/directory" || twin.ACME.Email != "ops@example.com" || twin.ACME.PreferredChain != "" || twin.Name == "le" {
		t.Fatalf("%+v", twin)
	}
	if live.ACME.Directory != "https://acme-v02.api.letsencrypt.org/directory" {
		t.Error("the issuer itself was changed")
	}
	for name, i := range map[string]*manifest.Issuer{
		"no staging": of("https://acme.zerossl.com/v2/DV90"), "own CA": of("https://ca.example/dir"),
		"private CA": {Name: "p", Type: "privateca"},
	} {
		if got := f.staging(i); got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	cfg.ACMEDirectories = []string{live.ACME.Directory}
	if f.staging(live) != nil {
		t.Error("a staging that the administrator does not allow is used")
	}
}

// TestCAsThatWantABinding: an issuer of one is refused with what to do, unless an account is there already.
func TestCAsThatWantABinding(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir(), ACMEScript: "/opt/acme.sh/acme.sh", ACMEUser: "root"}
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	f := newIssuers(&cfg, time.Now, nil)
	zero := &manifest.Issuer{Name: "zero", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://acme.zerossl.com/v2/DV90"}}
	wants := func() bool {
		_, err := f.driver(zero)
		var known *issuer.Error
		return errors.As(err, &known) && known.Class == issuer.Account && strings.Contains(known.Detail, "--eab-credential")
	}
	if !wants() {
		t.Error("ZeroSSL without a binding is accepted")
	}
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := (&bundle.Bundle{Key: key}).KeyPEM()
	if err == nil {
		err = acmesh.ImportAccount(f.accounts(), zero.ACME.Directory, "", pem)
	}
	if err != nil {
		t.Fatal(err)
	}
	if wants() {
		t.Error("an account that was imported is not enough")
	}
	zero.ACME.EABCredential = "eab"
	if wants() {
		t.Error("a binding is not enough")
	}
}

func TestLimitsGoByTheDirectory(t *testing.T) {
	t.Parallel()
	le := limitsOf(&manifest.Issuer{ACME: &manifest.ACMEIssuer{Directory: "https://acme-v02.api.letsencrypt.org/directory"}})
	own := limitsOf(&manifest.Issuer{ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"}})
	if len(le.Limits) < 4 || le.Account == "" || own.Account != "https://ca.example/dir" || len(own.Limits) != 0 {
		t.Errorf("%+v, %+v", le, own)
	}
	if got := limitsOf(&manifest.Issuer{Type: "privateca"}); got.Account != "" {
		t.Errorf("a private CA is counted: %+v", got)
	}
}

func TestBindingOfAnAccountComesFromACredential(t *testing.T) {
	t.Parallel()
	f := &issuers{}
	for name, tc := range map[string]struct {
		values map[string]string
		err    error
		want   string
	}{
		"right":       {map[string]string{"EAB_KID": "kid", "EAB_HMAC_KEY": "c2VjcmV0LWtleS0x"}, nil, ""},
		"padded":      {map[string]string{"EAB_KID": "kid", "EAB_HMAC_KEY": "c2VjcmV0LWtleTE="}, nil, ""},
		"no key":      {map[string]string{"EAB_KID": "kid"}, nil, "must hold"},
		"not base64":  {map[string]string{"EAB_KID": "kid", "EAB_HMAC_KEY": "canary!!"}, nil, "base64url"},
		"not to read": {nil, fs.ErrNotExist, "not exist"},
	} {
		f.credentials = func(string) (map[string]string, error) { return tc.values, tc.err }
		kid, key, err := f.eab("bind")
		if tc.want == "" && (err != nil || kid != "kid" || !strings.HasPrefix(string(key), "secret")) {
			t.Errorf("%s: %s, %v", name, kid, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "canary")) {
			t.Errorf("%s: %v", name, err)
		}
		if tc.err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
