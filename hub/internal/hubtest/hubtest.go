// Package hubtest gives tests of the hub what they share: a clock to turn, a real store in a temporary folder, and a
// CA that answers as a test tells it to.
package hubtest

import (
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Epoch is when a new Clock stands.
var Epoch = time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)

// Clock is a clock that stands still until it is advanced.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that stands at Epoch.
func NewClock() *Clock { return &Clock{now: Epoch} }

// Now is the time on the clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance turns the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// RepoID is the identity of a NewStore.
const RepoID = "hubtest"

// NewStore opens a store with keys of its own in a temporary folder, with the issuer "private-ca" on main.
func NewStore(tb testing.TB, now func() time.Time) *gitstore.Store {
	tb.Helper()
	root, signing, escrow := NewKey(tb, "root", now()), NewKey(tb, "hub", now()), NewKey(tb, "escrow", now())
	public, err := signing.Public().Armor()
	must(tb, err)
	keyring, err := (&manifest.Keyring{
		Format: manifest.Format, RepoID: RepoID, Version: 1, IssuedAt: now().UTC().Truncate(time.Second),
		Keys: []manifest.KeyringKey{{Fingerprint: signing.Fingerprint(), PublicKey: string(public)}},
	}).Encode()
	must(tb, err)
	signature, err := seal.Sign(manifest.KeyringSignatureDomain, keyring, root, now())
	must(tb, err)
	store, err := gitstore.Open(gitstore.Config{
		Dir: tb.TempDir(), RepoID: RepoID, Hub: signing, Escrow: escrow, Keyring: keyring, KeyringSig: signature,
		Committer: gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}, Now: now,
	})
	must(tb, err)
	tb.Cleanup(func() { must(tb, store.Close()) })
	Put(tb, store, manifest.IssuerPath("private-ca"), &manifest.Issuer{Name: "private-ca", Type: "privateca"})
	return store
}

// NewKey makes an OpenPGP key.
func NewKey(tb testing.TB, name string, now time.Time) *seal.PrivateKey {
	tb.Helper()
	key, err := seal.Generate(name, now)
	must(tb, err)
	return key
}

// Put writes a document to main.
func Put(tb testing.TB, store *gitstore.Store, path string, document interface{ Encode() ([]byte, error) }) {
	tb.Helper()
	data, err := document.Encode()
	must(tb, err)
	_, err = store.Apply(tb.Context(), gitstore.Change{Subject: "put " + path, Edits: []gitrepo.Edit{{Path: path, Data: data}}})
	must(tb, err)
}

// Force writes bytes to main that the store would refuse, as a person with git could.
func Force(tb testing.TB, store *gitstore.Store, path string, data []byte) {
	tb.Helper()
	head, _ := store.Repo().Ref(manifest.MainBranch)
	person := gitrepo.Person{Name: "Somebody", Email: "somebody@example.com"}
	_, err := store.Repo().Apply(tb.Context(), []gitrepo.Update{{
		Ref: manifest.MainBranch, Base: head, Parents: []gitrepo.Hash{head}, Author: person, Committer: person,
		Message: "force " + path, Edits: []gitrepo.Edit{{Path: path, Data: data}},
	}}, nil)
	must(tb, err)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
