package daemon

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/reconcile"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
)

// issuers makes the drivers of issuers, one for each: what orders at one ACME account share stands in its driver.
type issuers struct {
	cfg *Config
	now func() time.Time
	log *slog.Logger
	// publicURL is the hub's address, where private CAs publish what they revoked; empty for nowhere.
	publicURL string
	// credentials returns the variables of a credential by its name.
	credentials func(name string) (map[string]string, error)

	mu   sync.Mutex
	made map[string]madeDriver
}

type madeDriver struct {
	intent *manifest.Issuer
	driver issuer.Issuer
}

func newIssuers(cfg *Config, now func() time.Time, log *slog.Logger) *issuers {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &issuers{cfg: cfg, now: now, log: log, credentials: cfg.credential, made: map[string]madeDriver{}}
}

// driver answers the driver of an issuer as main has it now.
func (f *issuers) driver(intent *manifest.Issuer) (issuer.Issuer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have, ok := f.made[intent.Name]; ok && reflect.DeepEqual(have.intent, intent) {
		return have.driver, nil
	}
	driver, err := f.make(intent)
	if err != nil {
		return nil, fmt.Errorf("set up issuer %s: %w", intent.Name, err)
	}
	f.made[intent.Name] = madeDriver{intent, driver}
	return driver, nil
}

func (f *issuers) make(intent *manifest.Issuer) (issuer.Issuer, error) {
	if intent.Type == "privateca" {
		return f.privateCA(intent)
	}
	acme := intent.ACME
	switch {
	case intent.Type != "acmesh" || acme == nil:
		return nil, &issuer.Error{Class: issuer.Account, Detail: "this hub does not know issuers of the type " + intent.Type}
	case !slices.Contains(f.cfg.ACMEDirectories, acme.Directory):
		return nil, &issuer.Error{Class: issuer.Account, Detail: "the hub's configuration does not allow this CA: add its directory to acme_directories"}
	case f.cfg.ACMEScript == "":
		return nil, &issuer.Error{Class: issuer.Account, Detail: "acme.sh is not set up: run certferry-hub acme install, or set acme_script to the path of a copy"}
	}
	if ca, known := acmesh.CAOf(acme.Directory); known && ca.NeedsEAB && acme.EABCredential == "" && !acmesh.HasAccount(f.accounts(), acme.Directory) {
		return nil, &issuer.Error{Class: issuer.Account, Detail: ca.Title + " wants each account bound to one there: get a key id and an HMAC key from it (" + ca.Help +
			"), keep them with certferry credential create --provider eab, and name that credential with --eab-credential"}
	}
	return f.acmesh(acme)
}

// accounts is the folder of the accounts at ACME CAs.
func (f *issuers) accounts() string { return filepath.Join(f.cfg.paths().acme(), "accounts") }

func (f *issuers) acmesh(acme *manifest.ACMEIssuer) (issuer.Issuer, error) {
	cfg := acmesh.Config{
		Script: f.cfg.ACMEScript, HooksDir: f.cfg.ACMEHooksDir, CommandHooks: f.cfg.ACMECommandHooks, Webroots: f.cfg.ACMEWebroots, Closed: []string{f.cfg.DataDir},
		StateDir: f.accounts(), WorkDir: f.cfg.ACMEWorkDir,
		Directory: acme.Directory, Email: acme.Email, CABundle: f.cfg.ACMECABundle,
		StandalonePort: f.cfg.ACMEStandalonePort, TLSPort: f.cfg.ACMETLSPort, DNSWait: f.cfg.ACMEDNSWait, Now: f.now, Logger: f.log,
		Verify: f.cfg.verifyACME(),
	}
	if f.cfg.acmeNeedsUser() {
		return nil, &issuer.Error{Class: issuer.Local, Detail: acmeWantsUser}
	}
	if f.cfg.ACMEUser != "root" {
		cfg.User = f.cfg.ACMEUser
	}
	if !f.cfg.ACMEDNSBlind {
		cfg.LookupTXT = acmesh.Zones{}.LookupTXT
	}
	if acme.EABCredential != "" {
		cfg.EAB = func() (string, []byte, error) { return f.eab(acme.EABCredential) }
	}
	driver, err := acmesh.New(cfg)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Err: err}
	}
	return driver, nil
}

// Variables of a credential that binds an ACME account to one at the CA.
const (
	eabKeyID   = "EAB_KID"
	eabHMACKey = "EAB_HMAC_KEY"
)

// eab reads what binds an account (RFC 8555 §7.3.4). CAs hand the key out in base64url.
func (f *issuers) eab(credential string) (kid string, hmac []byte, err error) {
	values, err := f.credentials(credential)
	if err != nil {
		return "", nil, err
	}
	if values[eabKeyID] == "" || values[eabHMACKey] == "" {
		return "", nil, fmt.Errorf("credential %s must hold %s and %s, as the CA gave them", credential, eabKeyID, eabHMACKey)
	}
	hmac, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(values[eabHMACKey], "="))
	if err != nil {
		return "", nil, fmt.Errorf("read %s of credential %s: it must be base64url, as the CA gave it", eabHMACKey, credential)
	}
	return values[eabKeyID], hmac, nil
}

// staging is the twin of an issuer at its CA's staging, nil where the CA has none. It has an account of its own there.
func (f *issuers) staging(of *manifest.Issuer) *manifest.Issuer {
	if of.ACME == nil {
		return nil
	}
	ca, known := acmesh.CAOf(of.ACME.Directory)
	if !known || ca.Staging == "" || !slices.Contains(f.cfg.ACMEDirectories, ca.Staging) {
		return nil
	}
	twin, acme := *of, *of.ACME
	acme.Directory = ca.Staging
	acme.PreferredChain = "" // roots of the staging have other names
	twin.ACME = &acme
	if ca.Staging != of.ACME.Directory {
		twin.Name = of.Name + ".staging"
	}
	return &twin
}

// limitsOf are the limits that are counted for an issuer. All issuers of one directory share an account.
func limitsOf(i *manifest.Issuer) reconcile.Limits {
	if i.ACME == nil {
		return reconcile.Limits{}
	}
	ca, _ := acmesh.CAOf(i.ACME.Directory)
	return reconcile.Limits{Account: i.ACME.Directory, Limits: ca.Limits}
}

// leftovers clears up after orders of a process that was killed. All drivers share one folder.
func (f *issuers) leftovers(ctx context.Context) ([]issuer.Leftover, error) {
	if f.cfg.ACMEScript == "" {
		return nil, nil
	}
	driver, err := f.acmesh(&manifest.ACMEIssuer{Directory: f.cfg.ACMEDirectories[0]})
	if err != nil {
		return nil, err
	}
	recoverer, ok := driver.(issuer.Recoverer)
	if !ok {
		return nil, nil
	}
	return recoverer.Recover(ctx, f.credentials)
}
