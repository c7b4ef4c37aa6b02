package daemon

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/issuer/privateca"
)

// DefaultIssuer is the issuer that a new hub has.
const DefaultIssuer = "private-ca"

// Made says what Init made.
type Made struct {
	DataDir string `json:"data_dir" yaml:"data_dir"`
	RepoID  string `json:"repo_id" yaml:"repo_id"`
	// RootFingerprint is what agents pin.
	RootFingerprint string `json:"root_fingerprint" yaml:"root_fingerprint"`
	// RootKey is the path of the root key, which belongs offline.
	RootKey string `json:"root_key" yaml:"root_key"`
}

// Init makes everything a new hub needs in cfg.DataDir: keys, keyring, repository with its first commits, database
// and private CA. It touches no hub that is there.
func Init(ctx context.Context, cfg Config, now func() time.Time) (Made, error) {
	if err := cfg.Complete(); err != nil {
		return Made{}, fmt.Errorf("check configuration: %w", err)
	}
	p := cfg.paths()
	if err := prepareFolder(&cfg, p); err != nil {
		return Made{}, err
	}
	held, err := takeLock(p)
	if err != nil {
		return Made{}, err
	}
	made, err := fill(ctx, &cfg, now)
	if err != nil {
		return Made{}, errors.Join(fmt.Errorf("make hub in %s (remove the folder before the next try): %w", p.dir, err), held.Close())
	}
	return made, errors.Join(os.Remove(p.unfinished()), syncDir(p.dir), held.Close())
}

// prepareFolder makes the data folder, or takes an empty one, and marks it as unfinished.
func prepareFolder(cfg *Config, p paths) error {
	if _, err := os.Stat(p.keyring()); err == nil {
		return fmt.Errorf("make hub: %s holds one already, and it is never replaced", p.dir)
	}
	if err := os.MkdirAll(p.dir, dirMode); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return fmt.Errorf("make hub: %s is not empty (it holds %q): give it a folder of its own", p.dir, e.Name())
		}
	}
	for _, path := range []string{cfg.SigningKey, cfg.EscrowKey, cfg.JWTKey} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make hub: the key %s is there already, and it is never replaced", path)
		}
	}
	if err := os.Chmod(p.dir, dirMode); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	return writeFile(p.unfinished(), nil)
}

func fill(ctx context.Context, cfg *Config, now func() time.Time) (Made, error) {
	p := cfg.paths()
	for _, dir := range []string{p.keys(), p.acme(), cfg.CredentialsDir} {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return Made{}, fmt.Errorf("make folder: %w", err)
		}
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	made := Made{DataDir: p.dir, RepoID: hex.EncodeToString(id[:]), RootKey: p.rootKey()}
	var err error
	if made.RootFingerprint, err = makeKeys(cfg, made.RepoID, now()); err != nil {
		return Made{}, err
	}
	var token [32]byte
	_, _ = rand.Read(token[:])
	if err := writeFile(cfg.JWTKey, []byte(base64.StdEncoding.EncodeToString(token[:])+"\n")); err != nil {
		return Made{}, err
	}
	if err := privateca.Init(p.privateCA(), "Certferry "+made.RepoID[:6], now()); err != nil {
		return Made{}, err
	}
	if err := makeRepository(ctx, cfg, now); err != nil {
		return Made{}, err
	}
	db, err := database.Open(ctx, p.database(), now)
	if err != nil {
		return Made{}, err
	}
	return made, db.Close()
}

// makeKeys makes the three keys and the first keyring.
func makeKeys(cfg *Config, repoID string, now time.Time) (rootFingerprint string, err error) {
	p := cfg.paths()
	generated := map[string]*seal.PrivateKey{}
	for name, path := range map[string]string{"root": p.rootKey(), "signing": cfg.SigningKey, "escrow": cfg.EscrowKey} {
		key, err := seal.Generate("Certferry "+name+" key "+repoID, now)
		if err != nil {
			return "", fmt.Errorf("make %s key: %w", name, err)
		}
		armored, err := key.Armor()
		if err != nil {
			return "", fmt.Errorf("make %s key: %w", name, err)
		}
		if err := writeFile(path, armored); err != nil {
			return "", err
		}
		generated[name] = key
	}
	root := generated["root"]
	public, err := root.Public().Armor()
	if err != nil {
		return "", fmt.Errorf("make root key: %w", err)
	}
	keyring, signature, err := signKeyring(repoID, generated["signing"].Public(), root, now)
	if err != nil {
		return "", fmt.Errorf("make keyring: %w", err)
	}
	return root.Fingerprint(), errors.Join(
		writeFile(p.rootPub(), public), writeFile(p.keyringSig(), signature), writeFile(p.keyring(), keyring))
}

func signKeyring(repoID string, signing *seal.PublicKey, root *seal.PrivateKey, now time.Time) (keyring, signature []byte, err error) {
	public, err := signing.Armor()
	if err != nil {
		return nil, nil, err
	}
	keyring, err = (&manifest.Keyring{
		Format: manifest.Format, RepoID: repoID, Version: 1, IssuedAt: now.UTC().Truncate(time.Second),
		Keys: []manifest.KeyringKey{{Fingerprint: signing.Fingerprint(), PublicKey: string(public)}},
	}).Encode()
	if err != nil {
		return nil, nil, err
	}
	signature, err = seal.Sign(manifest.KeyringSignatureDomain, keyring, root, now)
	return keyring, signature, err
}

// makeRepository makes the repository and the default issuer in it.
func makeRepository(ctx context.Context, cfg *Config, now func() time.Time) error {
	// The keys were written a moment ago; reading them back proves that serve will.
	k, err := readBack(cfg, now())
	if err != nil {
		return err
	}
	store, err := openStore(cfg, k, now, nil)
	if err != nil {
		return err
	}
	data, err := (&manifest.Issuer{Name: DefaultIssuer, Type: "privateca"}).Encode()
	if err == nil {
		_, err = store.Apply(ctx, gitstore.Change{
			Subject: "add issuer " + DefaultIssuer,
			Edits:   []gitrepo.Edit{{Path: manifest.IssuerPath(DefaultIssuer), Data: data}},
		})
	}
	return errors.Join(err, store.Close())
}

// writeFile makes a file that was not there, synced.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode) //nolint:gosec // the path is the administrator's
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path) //nolint:gosec // the path is the administrator's
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}
