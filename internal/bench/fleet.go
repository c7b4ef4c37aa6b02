package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

const (
	repoID      = "bench"
	certificate = "example.com"
)

// fleet is a hub's keys, a CA, and servers with keys of their own.
type fleet struct {
	root, hub, escrow *seal.PrivateKey
	keyring           []byte
	keyringSig        []byte
	ca                *x509.Certificate
	caKey             crypto.Signer
	serial            int64
	servers           []gitstore.ServerState
}

func newFleet(servers int) (*fleet, error) {
	f := &fleet{}
	var err error
	for name, key := range map[string]**seal.PrivateKey{"root": &f.root, "hub": &f.hub, "escrow": &f.escrow} {
		if *key, err = seal.Generate(name, clock()); err != nil {
			return nil, err
		}
	}
	if err := f.makeKeyring(); err != nil {
		return nil, err
	}
	if err := f.makeCA(); err != nil {
		return nil, err
	}
	for i := range servers {
		key, err := seal.Generate("server", clock())
		if err != nil {
			return nil, err
		}
		f.servers = append(f.servers, gitstore.ServerState{Server: fmt.Sprintf("web-%d", i), Key: key.Public()})
	}
	return f, nil
}

func (f *fleet) makeKeyring() error {
	public, err := f.hub.Public().Armor()
	if err != nil {
		return err
	}
	ring := &manifest.Keyring{
		Format: manifest.Format, RepoID: repoID, Version: 1, IssuedAt: clock().UTC().Truncate(time.Second),
		Keys: []manifest.KeyringKey{{Fingerprint: f.hub.Fingerprint(), PublicKey: string(public)}},
	}
	if f.keyring, err = ring.Encode(); err != nil {
		return err
	}
	f.keyringSig, err = seal.Sign(manifest.KeyringSignatureDomain, f.keyring, f.root, clock())
	return err
}

func (f *fleet) makeCA() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bench CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: clock().Add(-time.Hour), NotAfter: clock().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	f.caKey = key
	f.ca, err = x509.ParseCertificate(der)
	return err
}

// renew makes the next issue of the certificate: ECDSA P-256, a chain of one.
func (f *fleet) renew(name string) (*bundle.Bundle, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	f.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x04ab0000 + f.serial), DNSNames: []string{name}, NotBefore: clock().Add(-time.Hour),
		NotAfter: clock().AddDate(0, 0, 60).Add(time.Duration(f.serial) * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.ca, key.Public(), f.caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &bundle.Bundle{Leaf: leaf, Chain: []*x509.Certificate{f.ca}, Key: key}, nil
}

// wish gives all servers a bundle.
func (f *fleet) wish(b *bundle.Bundle) []gitstore.ServerState {
	for i := range f.servers {
		f.servers[i].Deployments = []gitstore.Wanted{{Certificate: certificate, Deployer: "nginx", Target: "default", Bundle: b}}
	}
	return f.servers
}

// open opens a Store with the fleet's keys.
func (f *fleet) open(dir string) (*gitstore.Store, error) {
	return gitstore.Open(gitstore.Config{
		Dir: dir, RepoID: repoID, Hub: f.hub, Escrow: f.escrow, Keyring: f.keyring, KeyringSig: f.keyringSig,
		Committer: gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}, Now: clock,
	})
}
