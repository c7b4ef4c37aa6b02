package daemon

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/vault"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh/dnshook"
)

// newVault makes the vault of the hub's credentials.
func (h *Hub) newVault(drivers *issuers) *vault.Vault { return vault.New(h.vaultConfig(drivers)) }

func (h *Hub) vaultConfig(drivers *issuers) vault.Config {
	cfg := vault.Config{
		Store: h.db, Files: credentialFiles{&h.cfg}, Now: h.opt.Now,
		Seal: h.store.SealSecret, Open: h.store.OpenSecret,
		Providers: func() ([]issuer.DNSHook, error) {
			if h.cfg.ACMEScript == "" && h.cfg.ACMEHooksDir == "" {
				return nil, nil
			}
			dirs := []string{h.cfg.ACMEHooksDir}
			if h.cfg.ACMEScript != "" {
				dirs = append([]string{filepath.Dir(h.cfg.ACMEScript)}, dirs...)
			}
			return dnshook.List(dirs...)
		},
	}
	if h.cfg.ACMEScript != "" {
		cfg.Test = drivers.testDNS
	}
	return cfg
}

// testDNS tries a DNS hook: any driver of acme.sh can.
func (f *issuers) testDNS(ctx context.Context, c issuer.Challenge, domain string, tell func(issuer.Event)) error {
	driver, err := f.acmesh(&manifest.ACMEIssuer{Directory: f.cfg.ACMEDirectories[0]})
	if err != nil {
		return err
	}
	tester, ok := driver.(issuer.DNSTester)
	if !ok {
		return issuer.ErrUnsupported
	}
	return tester.TestDNS(ctx, c, domain, tell)
}

// credentialFiles are the <name>.env files of the administrator's.
type credentialFiles struct{ cfg *Config }

// Names lists them.
func (f credentialFiles) Names() ([]string, error) {
	entries, err := os.ReadDir(f.cfg.CredentialsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".env"); ok && manifest.ValidName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Values reads one.
func (f credentialFiles) Values(name string) (map[string]string, error) {
	return f.cfg.credential(name)
}
