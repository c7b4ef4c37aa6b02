// Package vault keeps the secrets that the hub needs at DNS providers and CAs. What the database holds is sealed to the
// hub's escrow key; values leave the vault for one run of acme.sh at a time and are shown to nobody.
//
// Files of the administrator's, <name>.env in a folder, are credentials too. Where both have a name, the database counts.
package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

// Store keeps sealed credentials.
type Store interface {
	PutCredential(ctx context.Context, c hub.Credential, create bool, event hub.AuditEvent) error
	DeleteCredential(ctx context.Context, name string, event hub.AuditEvent) error
	Credential(ctx context.Context, name string) (hub.Credential, error)
	Credentials(ctx context.Context) ([]hub.Credential, error)
}

// Files are credentials in files.
type Files interface {
	// Names lists them.
	Names() ([]string, error)
	// Values reads one; fs.ErrNotExist where there is none.
	Values(name string) (map[string]string, error)
}

// Config is what a Vault needs. All is required but Files and Test.
type Config struct {
	Store Store
	Files Files
	// Seal encrypts and signs, Open undoes it.
	Seal func(plain []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)
	// Providers lists what the DNS hooks say of themselves.
	Providers func() ([]issuer.DNSHook, error)
	// Test tries a challenge of type dns-01 with a TXT record below domain; nil where acme.sh is not there.
	Test func(ctx context.Context, c issuer.Challenge, domain string, tell func(issuer.Event)) error
	Now  func() time.Time
}

// Vault keeps credentials.
type Vault struct {
	cfg Config

	mu sync.Mutex
	// tests are the newest of each credential.
	tests map[string]*Test
}

// New makes a Vault.
func New(cfg Config) *Vault { return &Vault{cfg: cfg, tests: map[string]*Test{}} }

// eabVariables bind an account at a CA.
var eabVariables = []issuer.DNSOption{
	{Name: "EAB_KID", Description: "Key identifier, as the CA gave it"},
	{Name: "EAB_HMAC_KEY", Description: "HMAC key in base64url, as the CA gave it", Secret: true},
}

// Providers lists what credentials can be for.
func (v *Vault) Providers() ([]issuer.DNSHook, error) {
	all, err := v.cfg.Providers()
	if err != nil {
		return nil, err
	}
	eab := issuer.DNSHook{Hook: hub.EABProvider, Title: "External account binding of a CA", Hint: "For CAs that ask for an account of their own first, such as ZeroSSL and Google.", Options: eabVariables}
	return append([]issuer.DNSHook{eab}, all...), nil
}

// Put makes a credential, or replaces one where create is not set.
func (v *Vault) Put(ctx context.Context, c hub.Credential, values map[string]string, create bool, event hub.AuditEvent) error {
	if err := v.check(c, values); err != nil {
		return err
	}
	plain, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("keep credential %s: %w", c.Name, err)
	}
	defer clear(plain)
	if c.Sealed, err = v.cfg.Seal(plain); err != nil {
		return fmt.Errorf("keep credential %s: %w", c.Name, err)
	}
	c.Variables = slices.Sorted(maps.Keys(values))
	defer v.forgetTest(c.Name)
	err = v.cfg.Store.PutCredential(ctx, c, create, event)
	switch {
	case create && errors.Is(err, hub.ErrConflict):
		return &hub.Error{Class: hub.ErrConflict, Message: "there is a credential of this name already: choose another name, or change that one"}
	case errors.Is(err, hub.ErrNotFound):
		return errNone()
	}
	return err
}

func errNone() error {
	return &hub.Error{Class: hub.ErrNotFound, Message: "there is no credential of this name: certferry credential ls lists them"}
}

// check holds a credential against what its provider takes. No message repeats a value.
func (v *Vault) check(c hub.Credential, values map[string]string) error {
	var faults []hub.Fault
	add := func(location, message string) {
		faults = append(faults, hub.Fault{Location: location, Message: message})
	}
	if err := manifest.ValidName(c.Name); err != nil {
		add("body.name", err.Error())
	}
	providers, err := v.Providers()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(providers, func(p issuer.DNSHook) bool { return p.Hook == c.Provider })
	if at < 0 {
		add("body.provider", "there is no such DNS hook: certferry credential providers lists them; without acme.sh there are none")
	} else {
		for location, message := range fit(&providers[at], values) {
			add(location, message)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := issuer.CheckVariable(name, values[name]); err != nil {
			location := "body.values"
			if issuer.IsVariable(name) {
				location += "." + name
			}
			add(location, err.Error())
		}
	}
	if len(values) == 0 {
		add("body.values", "give at least one value")
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b hub.Fault) int { return strings.Compare(a.Location, b.Location) })
		return &hub.Error{Class: hub.ErrInvalid, Message: "the credential has faults: mend them and send it again", Faults: faults}
	}
	return nil
}

// fit says what a provider lacks of the values, and what it does not know.
func fit(p *issuer.DNSHook, values map[string]string) map[string]string {
	faults := map[string]string{}
	known := p.Variables()
	if len(known) == 0 {
		return faults // the hook says nothing of what it takes
	}
	for name := range values {
		if !slices.Contains(known, name) && issuer.IsVariable(name) {
			faults["body.values."+name] = "this provider does not know the variable; it takes " + strings.Join(known, ", ")
		}
	}
	if begun(p, values) {
		return faults // hooks say of an alternative more than they need; the test of the credential tells
	}
	for _, o := range p.Options {
		if !o.Optional && values[o.Name] == "" {
			faults["body.values."+o.Name] = "is missing"
		}
	}
	return faults
}

// begun says that a value is for the provider's other way to log in.
func begun(p *issuer.DNSHook, values map[string]string) bool {
	return slices.ContainsFunc(p.Alternative, func(o issuer.DNSOption) bool {
		return values[o.Name] != "" && !slices.ContainsFunc(p.Options, func(other issuer.DNSOption) bool { return other.Name == o.Name })
	})
}

// Delete forgets a credential.
func (v *Vault) Delete(ctx context.Context, name string, event hub.AuditEvent) error {
	defer v.forgetTest(name)
	err := v.cfg.Store.DeleteCredential(ctx, name, event)
	if errors.Is(err, hub.ErrNotFound) {
		return errNone()
	}
	return err
}

// List lists all credentials by name, without values.
func (v *Vault) List(ctx context.Context) ([]hub.Credential, error) {
	all, err := v.cfg.Store.Credentials(ctx)
	if err != nil || v.cfg.Files == nil {
		return all, err
	}
	names, err := v.cfg.Files.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if slices.ContainsFunc(all, func(c hub.Credential) bool { return c.Name == name }) {
			continue
		}
		values, err := v.cfg.Files.Values(name)
		c := hub.Credential{Name: name, InFile: true}
		if err == nil { // one that cannot be read is listed without its variables
			c.Variables = slices.Sorted(maps.Keys(values))
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b hub.Credential) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Get returns a credential without its values.
func (v *Vault) Get(ctx context.Context, name string) (hub.Credential, error) {
	all, err := v.List(ctx)
	if err != nil {
		return hub.Credential{}, err
	}
	at := slices.IndexFunc(all, func(c hub.Credential) bool { return c.Name == name })
	if at < 0 {
		return hub.Credential{}, errNone()
	}
	return all[at], nil
}

// Values opens a credential.
func (v *Vault) Values(ctx context.Context, name string) (map[string]string, error) {
	c, err := v.cfg.Store.Credential(ctx, name)
	if errors.Is(err, hub.ErrNotFound) && v.cfg.Files != nil {
		values, err := v.cfg.Files.Values(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open credential %s: there is none of this name: certferry credential add %s makes it", name, name)
		}
		return values, err
	}
	if err != nil {
		return nil, fmt.Errorf("open credential %s: %w", name, err)
	}
	plain, err := v.cfg.Open(c.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open credential %s: %w; enter its values again", name, err)
	}
	defer clear(plain)
	values := map[string]string{}
	if err := json.Unmarshal(plain, &values); err != nil {
		return nil, fmt.Errorf("open credential %s: what is sealed cannot be read", name)
	}
	return values, nil
}
