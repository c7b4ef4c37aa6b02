package daemon

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// Modes of what the hub keeps: nobody else reads any of it.
const (
	dirMode  = 0o700
	fileMode = 0o600
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 64 << 10

// paths are where things stand in the data folder.
type paths struct{ dir string }

func (p paths) keys() string       { return filepath.Join(p.dir, "keys") }
func (p paths) rootKey() string    { return filepath.Join(p.keys(), "root.key") }
func (p paths) rootPub() string    { return filepath.Join(p.keys(), "root.pub") }
func (p paths) keyring() string    { return filepath.Join(p.keys(), manifest.KeyringFile) }
func (p paths) keyringSig() string { return filepath.Join(p.keys(), manifest.KeyringSigFile) }
func (p paths) repo() string       { return filepath.Join(p.dir, "repo.git") }
func (p paths) database() string   { return filepath.Join(p.dir, "certferry.db") }
func (p paths) privateCA() string  { return filepath.Join(p.dir, "privateca") }
func (p paths) acme() string       { return filepath.Join(p.dir, "acme") }
func (p paths) operators() string  { return filepath.Join(p.dir, "operators") }
func (p paths) lock() string       { return filepath.Join(p.dir, "hub.lock") }

// unfinished marks a folder in which Init did not come to its end.
func (p paths) unfinished() string { return filepath.Join(p.dir, "init.unfinished") }

func (c *Config) paths() paths { return paths{c.DataDir} }

// keys are the hub's keys. The root key is not among them: it signs keyrings and stays offline.
type keys struct {
	root       *seal.PublicKey
	rootArmor  []byte
	signing    *seal.PrivateKey
	escrow     *seal.PrivateKey
	keyring    *manifest.Keyring
	keyringRaw []byte
	keyringSig []byte
	// retired and retiredEscrow are former keys.
	retired       []gitstore.RetiredKey
	retiredEscrow []*seal.PrivateKey
	// signingLocked and escrowLocked say that a passphrase is needed to read the key.
	signingLocked, escrowLocked bool
}

// loadKeys reads the keys and makes sure that agents will believe them: the root key signed the keyring, and the
// keyring holds the signing key.
func loadKeys(cfg *Config, now time.Time) (*keys, error) {
	if err := checkInitialised(cfg.paths()); err != nil {
		return nil, err
	}
	if exists(cfg.paths().install()) {
		return nil, fmt.Errorf("open %s: a new key is not wholly in its place: start the hub, or run certferry-hub key rotate again", cfg.DataDir)
	}
	return readBack(cfg, now)
}

// readBack is loadKeys in a folder that may be unfinished.
func readBack(cfg *Config, now time.Time) (*keys, error) {
	p := cfg.paths()
	k := &keys{}
	var err error
	if k.rootArmor, err = os.ReadFile(p.rootPub()); err != nil {
		return nil, fmt.Errorf("read root key: %w", err)
	}
	if k.root, err = seal.ParsePublicKey(k.rootArmor); err != nil {
		return nil, fmt.Errorf("read root key %s: %w", p.rootPub(), err)
	}
	c := &custodian{cfg: cfg}
	if k.signing, k.signingLocked, err = c.read(cfg.SigningKey, "signing key"); err != nil {
		return nil, err
	}
	if k.escrow, k.escrowLocked, err = c.read(cfg.EscrowKey, "escrow key"); err != nil {
		return nil, err
	}
	if err := k.loadRetired(cfg, c); err != nil {
		return nil, err
	}
	if k.keyringRaw, err = os.ReadFile(p.keyring()); err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	if k.keyringSig, err = os.ReadFile(p.keyringSig()); err != nil {
		return nil, fmt.Errorf("read keyring's signature: %w", err)
	}
	if _, err := seal.Verify(manifest.KeyringSignatureDomain, k.keyringRaw, k.keyringSig, []*seal.PublicKey{k.root}, now); err != nil {
		return nil, fmt.Errorf("check keyring %s: it is not signed by the root key %s: %w", p.keyring(), k.root.Fingerprint(), err)
	}
	if k.keyring, err = manifest.DecodeKeyring(k.keyringRaw); err != nil {
		return nil, fmt.Errorf("read keyring %s: %w", p.keyring(), err)
	}
	return k, nil
}

func checkInitialised(p paths) error {
	if _, err := os.Stat(p.unfinished()); err == nil {
		return fmt.Errorf("open %s: certferry-hub init did not come to its end there: remove the folder and run it again", p.dir)
	}
	if _, err := os.Stat(p.keyring()); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("open %s: there is no hub in it: run certferry-hub init first, or set data_dir", p.dir)
	} else if err != nil {
		return fmt.Errorf("open %s: %w", p.dir, err)
	}
	return nil
}

// readSecret reads a file that nobody but its owner may read.
func readSecret(path, what string) ([]byte, error) { return readSecretAs(path, what, 0o077) }

// readSecretAs reads a file whose mode has none of the bits of others.
func readSecretAs(path, what string, others fs.FileMode) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read %s %s: it is not a file", what, path)
	case info.Mode().Perm()&others != 0:
		return nil, fmt.Errorf("read %s %s: others may read it: chmod 600 it, and replace it if somebody did", what, path)
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("read %s %s: it is too large to be one", what, path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the path is the administrator's
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return data, nil
}

// readTokenKey reads the key that signs access tokens: base64 of at least 32 bytes.
func readTokenKey(cfg *Config) ([]byte, error) {
	path := cfg.JWTKey
	data, err := readSecretAs(path, "token key", cfg.othersMay(path))
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(key) < 32 {
		return nil, fmt.Errorf("read token key %s: it must be base64 of at least 32 bytes", path)
	}
	return key, nil
}

// PublicKeys are the hub's public keys, ASCII-armored, for gpg --import.
type PublicKeys struct {
	Root, Signing, Escrow []byte
}

// ExportPublicKeys returns the public keys with which people check commits.
func ExportPublicKeys(cfg Config, now time.Time) (PublicKeys, error) {
	k, err := loadKeys(&cfg, now)
	if err != nil {
		return PublicKeys{}, err
	}
	signing, err := k.signing.Public().Armor()
	if err != nil {
		return PublicKeys{}, fmt.Errorf("export signing key: %w", err)
	}
	escrow, err := k.escrow.Public().Armor()
	if err != nil {
		return PublicKeys{}, fmt.Errorf("export escrow key: %w", err)
	}
	return PublicKeys{Root: k.rootArmor, Signing: signing, Escrow: escrow}, nil
}

// ExportEscrowSecret returns the private escrow key, which opens every bundle on main with gpg --decrypt.
func ExportEscrowSecret(cfg Config, now time.Time) ([]byte, error) {
	k, err := loadKeys(&cfg, now)
	if err != nil {
		return nil, err
	}
	secret, err := k.escrow.Armor()
	if err != nil {
		return nil, fmt.Errorf("export escrow key: %w", err)
	}
	return secret, nil
}
