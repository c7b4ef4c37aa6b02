package daemon

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/privateca"
)

// issuers makes the drivers of issuers, one for each: an ACME account takes one order at a time, and its driver sees
// to that.
type issuers struct {
	cfg *Config
	now func() time.Time
	log *slog.Logger

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
	return &issuers{cfg: cfg, now: now, log: log, made: map[string]madeDriver{}}
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
		return f.privateCA(intent.PrivateCA)
	}
	switch acme := intent.ACME; {
	case intent.Type != "acmesh" || acme == nil:
		return nil, &issuer.Error{Class: issuer.Account, Detail: "this hub does not know issuers of the type " + intent.Type}
	case !slices.Contains(f.cfg.ACMEDirectories, acme.Directory):
		return nil, &issuer.Error{Class: issuer.Account, Detail: "the hub's configuration does not allow this CA: add its directory to acme_directories"}
	case f.cfg.ACMEScript == "":
		return nil, &issuer.Error{Class: issuer.Account, Detail: "acme.sh is not set up: get a copy and set acme_script to its path"}
	default:
		driver, err := acmesh.New(acmesh.Config{
			Script: f.cfg.ACMEScript, HooksDir: f.cfg.ACMEHooksDir,
			StateDir: filepath.Join(f.cfg.paths().acme(), "accounts"), WorkDir: filepath.Join(f.cfg.paths().acme(), "work"),
			Directory: acme.Directory, Email: acme.Email, CABundle: f.cfg.ACMECABundle,
			StandalonePort: f.cfg.ACMEStandalonePort, DNSWait: f.cfg.ACMEDNSWait, Now: f.now, Logger: f.log,
		})
		if err != nil {
			return nil, &issuer.Error{Class: issuer.Local, Err: err}
		}
		return driver, nil
	}
}

func (f *issuers) privateCA(intent *manifest.PrivateCAIssuer) (issuer.Issuer, error) {
	cfg := privateca.Config{Dir: f.cfg.paths().privateCA(), Now: f.now}
	if intent != nil && intent.Lifetime != "" {
		lifetime, err := time.ParseDuration(intent.Lifetime)
		if err != nil {
			return nil, &issuer.Error{Class: issuer.Permanent, Detail: "its lifetime cannot be read"}
		}
		cfg.Lifetime = lifetime
	}
	ca, err := privateca.New(cfg)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Err: err}
	}
	return ca, nil
}
