// Package gitstore is what hub and agent agree on about the repository: which files it holds, how a change becomes
// a signed commit, and how the state of a server becomes the signed branch that its agent reads.
//
// The branch main holds what people wish and what was issued. Each server has a branch of its own with a manifest,
// its signature, the keyring and the bundles sealed to that server alone. A Store is the one writer of both; it
// knows neither hub nor agent.
package gitstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Errors that callers tell apart with errors.Is. What does not exist is fs.ErrNotExist.
var (
	// ErrConflict: a file that a Change edits is no longer what it was at Change.Expect; nothing was changed.
	ErrConflict = errors.New("changed by somebody else in the meantime")
	// ErrInvalid: the change breaks the rules of the repository; nothing was changed.
	ErrInvalid = errors.New("invalid change")
)

// Times of a manifest's life.
const (
	// FreshFor is how long a server trusts that it would have heard of something newer.
	FreshFor = 7 * 24 * time.Hour
	// RefreshAfter is the age at which an unchanged manifest is signed again.
	RefreshAfter = 24 * time.Hour
)

// Config is what a Store needs.
type Config struct {
	// Dir is the folder of the bare repository; it is made if absent.
	Dir string
	// RepoID is the repository's identity, which each manifest repeats.
	RepoID string
	// Hub signs commits, manifests and bundles.
	Hub *seal.PrivateKey
	// Escrow opens the hub's own copies of the bundles.
	Escrow *seal.PrivateKey
	// Retired are the hub's former signing keys. What they signed is still the hub's; servers do not trust them.
	Retired []RetiredKey
	// RetiredEscrow open what was sealed before Escrow took their place.
	RetiredEscrow []*seal.PrivateKey
	// Keyring and KeyringSig are the files keyring.json and keyring.json.sig that every server's branch carries.
	Keyring    []byte
	KeyringSig []byte
	// Committer is the hub's name and address; its time is not used.
	Committer gitrepo.Person
	// Now is the clock.
	Now func() time.Time
	// Logger is told what start-up had to mend; nil discards.
	Logger *slog.Logger
}

// RetiredKey is a former signing key of the hub.
type RetiredKey struct {
	Key *seal.PublicKey
	// Stolen says that somebody else has it: a commit with its signature need not be the hub's. It still opens the
	// hub's own copies of bundles, as only the hub writes those.
	Stolen bool
}

// Store is an open repository with its meaning. All methods may be called from several goroutines.
type Store struct {
	cfg     Config
	repo    *gitrepo.Repo
	keyring *manifest.Keyring
	// signers signed commits of the hub, sealers its own copies of bundles: the keyring's keys and former ones.
	signers []*seal.PublicKey
	sealers []*seal.PublicKey

	write sync.Mutex // one change or publication at a time
	view  snapshotCache
	tips  tipCache
}

// Open opens the repository, checks it, and makes the first commit of main if there is none.
func Open(cfg Config) (*Store, error) {
	s := &Store{cfg: cfg}
	if err := s.checkConfig(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	repo, err := gitrepo.Open(cfg.Dir, gitrepo.Options{Sign: s.sign, Now: cfg.Now, Logger: cfg.Logger})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.repo = repo
	if err = s.checkRefs(context.Background()); err == nil {
		err = s.begin()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), repo.Close())
	}
	return s, nil
}

func (s *Store) checkConfig() error {
	switch {
	case s.cfg.Now == nil:
		return errors.New("no clock given")
	case s.cfg.RepoID == "":
		return errors.New("no repository id given")
	case s.cfg.Committer.Name == "":
		return errors.New("no committer given")
	case s.cfg.Hub == nil || s.cfg.Escrow == nil:
		return errors.New("hub key or escrow key is missing")
	}
	keyring, err := manifest.DecodeKeyring(s.cfg.Keyring)
	if err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if keyring.RepoID != s.cfg.RepoID {
		return errors.New("keyring: it belongs to another repository")
	}
	if len(s.cfg.KeyringSig) == 0 {
		return errors.New("keyring: it is not signed; sign it with the root key")
	}
	own := false
	for _, k := range keyring.Keys {
		key, err := seal.ParsePublicKey([]byte(k.PublicKey))
		if err != nil {
			return fmt.Errorf("keyring: key %s: %w", k.Fingerprint, err)
		}
		if key.Fingerprint() != k.Fingerprint {
			return fmt.Errorf("keyring: key %s has another fingerprint", k.Fingerprint)
		}
		own = own || k.Fingerprint == s.cfg.Hub.Fingerprint()
		s.signers, s.sealers = append(s.signers, key), append(s.sealers, key)
	}
	if !own {
		return errors.New("keyring: the hub's key is not in it; no server would trust what this hub signs")
	}
	for _, r := range s.cfg.Retired {
		s.sealers = append(s.sealers, r.Key)
		if !r.Stolen {
			s.signers = append(s.signers, r.Key)
		}
	}
	s.keyring = keyring
	return nil
}

// sign signs a commit.
func (s *Store) sign(payload []byte) ([]byte, error) {
	return seal.Sign("", payload, s.cfg.Hub, s.cfg.Now())
}

// Repo returns the repository, for serving it.
func (s *Store) Repo() *gitrepo.Repo { return s.repo }

// Close waits for a change under way and closes the repository.
func (s *Store) Close() error {
	s.write.Lock()
	defer s.write.Unlock()
	return s.repo.Close()
}
