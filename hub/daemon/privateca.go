package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/httpapi"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/privateca"
)

// privateCAOf is the folder of a private CA; "" is the one that the hub was made with.
func (p paths) privateCAOf(name string) string {
	if name == "" {
		return p.privateCA()
	}
	return filepath.Join(p.privateCA(), "named", name)
}

// privateCA opens the CA of an issuer.
func (f *issuers) privateCA(intent *manifest.Issuer) (*privateca.CA, error) {
	cfg := privateca.Config{Now: f.now}
	name := ""
	if p := intent.PrivateCA; p != nil {
		name = p.CA
		if p.Lifetime != "" {
			lifetime, err := time.ParseDuration(p.Lifetime)
			if err != nil {
				return nil, &issuer.Error{Class: issuer.Permanent, Detail: "its lifetime cannot be read"}
			}
			cfg.Lifetime = lifetime
		}
	}
	cfg.Dir = f.cfg.paths().privateCAOf(name)
	if f.publicURL != "" {
		cfg.CRLURL = f.publicURL + httpapi.CRLPath + intent.Name + ".crl"
	}
	ca, err := privateca.New(cfg)
	if errors.Is(err, fs.ErrNotExist) && name != "" {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "there is no private CA " + name + ": make it with certferry-hub privateca init " + name, Err: err}
	}
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Err: err}
	}
	return ca, nil
}

// authorities are what private CAs publish. It is an httpapi.Authorities.
type authorities struct {
	drivers *issuers
	store   *gitstore.Store
}

func (a authorities) open(name string) (*privateca.CA, error) {
	snapshot, err := a.store.Snapshot()
	if err != nil {
		return nil, err
	}
	intent := snapshot.Issuers[name]
	if intent == nil || intent.Type != "privateca" {
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "there is no private CA behind an issuer of this name"}
	}
	driver, err := a.drivers.driver(intent)
	if err != nil {
		return nil, err
	}
	ca, ok := driver.(*privateca.CA)
	if !ok {
		return nil, fmt.Errorf("open private CA %s: the driver is another one", name)
	}
	return ca, nil
}

// CRL is the list of what an issuer's CA revoked, in DER.
func (a authorities) CRL(name string) ([]byte, error) {
	ca, err := a.open(name)
	if err != nil {
		return nil, err
	}
	return ca.CRL()
}

// Root is the root certificate of an issuer's CA, in PEM.
func (a authorities) Root(name string) ([]byte, error) {
	ca, err := a.open(name)
	if err != nil {
		return nil, err
	}
	return ca.RootPEM(), nil
}

// PrivateCA is a private CA of a hub.
type PrivateCA struct {
	// Name is empty for the one that the hub was made with.
	Name string `json:"name" yaml:"name"`
	Dir  string `json:"dir" yaml:"dir"`
}

// InitPrivateCA makes a further private CA while the hub is stopped. Where permitted is not empty, it can sign for these
// domains only.
func InitPrivateCA(cfg Config, name string, permitted []string, now time.Time) (made PrivateCA, err error) {
	if err := cfg.Complete(); err != nil {
		return PrivateCA{}, fmt.Errorf("check configuration: %w", err)
	}
	if err := manifest.ValidName(name); err != nil {
		return PrivateCA{}, fmt.Errorf("make private CA: %w", err)
	}
	if err := checkInitialised(cfg.paths()); err != nil {
		return PrivateCA{}, err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return PrivateCA{}, err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	made = PrivateCA{Name: name, Dir: cfg.paths().privateCAOf(name)}
	if err := os.MkdirAll(filepath.Dir(made.Dir), 0o700); err != nil {
		return PrivateCA{}, fmt.Errorf("make private CA: %w", err)
	}
	return made, privateca.Init(made.Dir, name, now, permitted...)
}

// PrivateCAs lists the private CAs of a hub.
func PrivateCAs(cfg Config) ([]PrivateCA, error) {
	if err := cfg.Complete(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	all := []PrivateCA{{Dir: cfg.paths().privateCA()}}
	entries, err := os.ReadDir(filepath.Join(cfg.paths().privateCA(), "named"))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list private CAs: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() && manifest.ValidName(e.Name()) == nil {
			all = append(all, PrivateCA{Name: e.Name(), Dir: cfg.paths().privateCAOf(e.Name())})
		}
	}
	slices.SortFunc(all[1:], func(a, b PrivateCA) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// ExportPrivateRoot is the root certificate of a private CA in PEM, for the trust stores of clients.
func ExportPrivateRoot(cfg Config, name string, now func() time.Time) ([]byte, error) {
	ca, err := openPrivateCA(cfg, name, now)
	if err != nil {
		return nil, err
	}
	return ca.RootPEM(), nil
}

// RenewPrivateIntermediate gives the intermediate of a private CA new dates under the same root, while the hub is stopped.
func RenewPrivateIntermediate(cfg Config, name string, now time.Time) (err error) {
	if err := cfg.Complete(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	if _, err := openPrivateCA(cfg, name, func() time.Time { return now }); err != nil {
		return err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	return privateca.RenewIntermediate(cfg.paths().privateCAOf(name), now)
}

func openPrivateCA(cfg Config, name string, now func() time.Time) (*privateca.CA, error) {
	if err := cfg.Complete(); err != nil {
		return nil, fmt.Errorf("check configuration: %w", err)
	}
	if name != "" && manifest.ValidName(name) != nil {
		return nil, fmt.Errorf("open private CA: %w", manifest.ValidName(name))
	}
	return privateca.New(privateca.Config{Dir: cfg.paths().privateCAOf(name), Now: now})
}
