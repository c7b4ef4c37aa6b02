package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
)

// AddIssuer writes an issuer to main while the hub is stopped; it does not replace one that is there. An ACME
// directory must be one that the configuration allows.
func AddIssuer(ctx context.Context, cfg Config, now func() time.Time, issuer *manifest.Issuer) (err error) {
	if err := cfg.Complete(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	data, err := issuer.Encode()
	if err != nil {
		return err
	}
	if _, err := newIssuers(&cfg, now, nil).driver(issuer); err != nil {
		return fmt.Errorf("check issuer %s: %w", issuer.Name, err)
	}
	k, err := loadKeys(&cfg, now())
	if err != nil {
		return err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	store, err := openStore(&cfg, k, now, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	snapshot, err := store.Snapshot()
	if err != nil {
		return err
	}
	if _, taken := snapshot.Issuers[issuer.Name]; taken {
		return fmt.Errorf("add issuer %s: there is one of that name already", issuer.Name)
	}
	_, err = store.Apply(ctx, gitstore.Change{
		Subject: "add issuer " + issuer.Name, Expect: snapshot.Commit,
		Edits: []gitrepo.Edit{{Path: manifest.IssuerPath(issuer.Name), Data: data}},
	})
	return err
}

// KnownCAs are the names of the public CAs that need no URL.
func KnownCAs() []string {
	var ids []string
	for _, ca := range acmesh.KnownCAs() {
		ids = append(ids, ca.ID)
	}
	return ids
}

// DirectoryOf is the ACME directory of a CA that is known by its name.
func DirectoryOf(name string) (string, error) {
	ca, ok := acmesh.CANamed(name)
	if !ok {
		return "", fmt.Errorf("find CA %s: the known ones are %s; give --directory for another one", name, strings.Join(KnownCAs(), ", "))
	}
	return ca.Directory, nil
}

// accounts are those of issuers at their CAs. It is an httpapi.CAs.
type accounts struct{ drivers *issuers }

// Directory is the directory of a CA that is known by its name.
func (accounts) Directory(ca string) (string, error) {
	known, ok := acmesh.CANamed(ca)
	if !ok {
		return "", fmt.Errorf("must be one of %s, or give the directory's URL", strings.Join(KnownCAs(), ", "))
	}
	return known.Directory, nil
}

// CA is the name of the known CA at a directory.
func (accounts) CA(directory string) string {
	known, _ := acmesh.CAOf(directory)
	if known.Directory != directory {
		return ""
	}
	return known.ID
}

// Check says why an issuer cannot be used.
func (a accounts) Check(i *manifest.Issuer) error {
	_, err := a.drivers.driver(i)
	return err
}

// Holder is what holds the account of an issuer.
func (a accounts) Holder(i *manifest.Issuer) (issuer.AccountHolder, error) {
	driver, err := a.drivers.driver(i)
	if err != nil {
		return nil, err
	}
	holder, ok := driver.(issuer.AccountHolder)
	if !ok {
		return nil, issuer.ErrUnsupported
	}
	return holder, nil
}
