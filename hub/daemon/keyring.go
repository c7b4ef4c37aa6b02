// This file replaces the hub's signing key. The offline root key signs a keyring that names the new one; agents pin the
// root key only, and take the keyring from their branch, so no server is visited.
//
// A new key first waits in keys/next. Once its keyring is signed, the folder is renamed to keys/install, from which each
// file goes to its place: after a crash anywhere in between the next start finishes that.

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
	"github.com/certferry/certferry/gitstore/seal"
)

// Names of files in keys/next, keys/install and keys/retired.
const (
	signingFile  = "signing.key"
	escrowFile   = "escrow.key"
	stolenFile   = "stolen" // its presence says that the key to be replaced is in other hands
	stolenSuffix = ".stolen"
	publicSuffix = ".pub"
	escrowPrefix = "escrow-"
)

func (p paths) retired() string { return filepath.Join(p.keys(), "retired") }
func (p paths) next() string    { return filepath.Join(p.keys(), "next") }
func (p paths) install() string { return filepath.Join(p.keys(), "install") }

// RotateOptions say how the signing key is replaced.
type RotateOptions struct {
	// RootKey is the path of the root key; by default where Init left it. Without one the keyring waits to be signed.
	RootKey string
	// RootPassphrase is asked if the root key has a passphrase.
	RootPassphrase func() ([]byte, error)
	// Compromised says that somebody else has the hub's keys: the escrow key is replaced too, and commits that the old
	// signing key signed do not count as the hub's any more.
	Compromised bool
}

// Rotation is what became of RotateKey or InstallKeyring.
type Rotation struct {
	Version uint64 `json:"version" yaml:"version"`
	// Signing are the fingerprints of the keyring's keys, Retired those that are not in it any more.
	Signing []string `json:"signing" yaml:"signing"`
	Retired []string `json:"retired" yaml:"retired"`
	// Installed says that the keyring is in force; otherwise the file Keyring waits for the root key's signature.
	Installed bool   `json:"installed" yaml:"installed"`
	Keyring   string `json:"keyring,omitempty" yaml:"keyring,omitempty"`
	// Compromised says that the escrow key was replaced as well.
	Compromised bool `json:"compromised" yaml:"compromised"`
}

// RotateKey makes a new signing key and a keyring with it alone, while the hub is stopped, and installs both where the
// root key is at hand.
func RotateKey(cfg Config, opt RotateOptions, now func() time.Time) (r Rotation, err error) {
	err = withKeys(cfg, now, func(k *keys) error {
		p := cfg.paths()
		root, err := findRoot(&cfg, opt, k)
		if err != nil {
			return err
		}
		ring, err := stage(&cfg, k, opt.Compromised, now())
		if err != nil {
			return fmt.Errorf("make key: %w", err)
		}
		file := filepath.Join(p.next(), manifest.KeyringFile)
		r = describeRotation(k.keyring, ring)
		r.Compromised = opt.Compromised
		if root == nil {
			r.Keyring = file
			return nil
		}
		if _, err := signFile(file, root, now()); err != nil {
			return err
		}
		r.Installed = true
		return installNext(&cfg)
	})
	return r, err
}

func describeRotation(before, after *manifest.Keyring) Rotation {
	r := Rotation{Version: after.Version, Signing: []string{}, Retired: []string{}}
	for _, k := range after.Keys {
		r.Signing = append(r.Signing, k.Fingerprint)
	}
	for _, k := range before.Keys {
		if !slices.Contains(r.Signing, k.Fingerprint) {
			r.Retired = append(r.Retired, k.Fingerprint)
		}
	}
	return r
}

// findRoot reads the root key, if it is at hand.
func findRoot(cfg *Config, opt RotateOptions, k *keys) (*seal.PrivateKey, error) {
	path := opt.RootKey
	if path == "" {
		path = cfg.paths().rootKey()
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil //nolint:nilnil // it belongs offline
		}
	}
	root, _, err := (&custodian{cfg: &Config{Passphrase: opt.RootPassphrase}}).read(path, "root key")
	if err != nil {
		return nil, err
	}
	if root.Fingerprint() != k.root.Fingerprint() {
		return nil, fmt.Errorf("read root key %s: it is %s, and agents pinned %s", path, root.Fingerprint(), k.root.Fingerprint())
	}
	return root, nil
}

// stage makes what waits in keys/next, in place of what waited there before.
func stage(cfg *Config, k *keys, stolen bool, now time.Time) (*manifest.Keyring, error) {
	next := cfg.paths().next()
	if err := os.RemoveAll(next); err != nil {
		return nil, err
	}
	fresh, err := stageKey(cfg, cfg.SigningKey, filepath.Join(next, signingFile), "Certferry signing key "+k.keyring.RepoID, now)
	if err != nil {
		return nil, err
	}
	if stolen {
		if _, err := stageKey(cfg, cfg.EscrowKey, filepath.Join(next, escrowFile), "Certferry escrow key "+k.keyring.RepoID, now); err != nil {
			return nil, err
		}
		if err := writeFile(filepath.Join(next, stolenFile), nil); err != nil {
			return nil, err
		}
	}
	public, err := fresh.Public().Armor()
	if err != nil {
		return nil, err
	}
	ring := &manifest.Keyring{
		Format: manifest.Format, RepoID: k.keyring.RepoID, Version: k.keyring.Version + 1, IssuedAt: now.UTC().Truncate(time.Second),
		Keys: []manifest.KeyringKey{{Fingerprint: fresh.Fingerprint(), PublicKey: string(public)}},
	}
	data, err := ring.Encode()
	if err != nil {
		return nil, err
	}
	return ring, writeFile(filepath.Join(next, manifest.KeyringFile), data)
}

// stageKey makes a key that is kept as the present one is.
func stageKey(cfg *Config, present, path, name string, now time.Time) (*seal.PrivateKey, error) {
	c := &custodian{cfg: cfg}
	_, locked, err := c.read(present, "key")
	if err != nil {
		return nil, err
	}
	key, err := seal.Generate(name, now)
	if err != nil {
		return nil, err
	}
	data, err := c.armor(key, locked)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, data)
}

// SignKeyring signs the file keyring with the root key in another, on a machine that needs no hub, and writes the
// signature beside it. ask is asked for the root key's passphrase if it has one.
func SignKeyring(rootKey, keyring string, ask func() ([]byte, error), now time.Time) (*manifest.Keyring, error) {
	root, _, err := (&custodian{cfg: &Config{Passphrase: ask}}).read(rootKey, "root key")
	if err != nil {
		return nil, err
	}
	return signFile(keyring, root, now)
}

// signFile signs a keyring, which must be one: the root key signs nothing else.
func signFile(path string, root *seal.PrivateKey, now time.Time) (*manifest.Keyring, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the path is the administrator's
	if err != nil {
		return nil, fmt.Errorf("read keyring: %w", err)
	}
	ring, err := manifest.DecodeKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("read keyring %s: %w", path, err)
	}
	signature, err := seal.Sign(manifest.KeyringSignatureDomain, data, root, now)
	if err != nil {
		return nil, fmt.Errorf("sign keyring: %w", err)
	}
	return ring, replaceFile(path+".sig", signature)
}

// InstallKeyring puts a keyring that was signed elsewhere into force, with the key that waits for it, while the hub is
// stopped.
func InstallKeyring(cfg Config, keyring, signature string, now func() time.Time) (r Rotation, err error) {
	err = withKeys(cfg, now, func(k *keys) error {
		data, err := os.ReadFile(keyring) //nolint:gosec // the path is the administrator's
		if err != nil {
			return fmt.Errorf("read keyring: %w", err)
		}
		sig, err := os.ReadFile(signature) //nolint:gosec // the path is the administrator's
		if err != nil {
			return fmt.Errorf("read keyring's signature: %w", err)
		}
		ring, err := checkNewKeyring(&cfg, k, data, sig, now())
		if err != nil {
			return fmt.Errorf("check keyring %s: %w", keyring, err)
		}
		next := cfg.paths().next()
		r = describeRotation(k.keyring, ring)
		r.Installed, r.Compromised = true, exists(filepath.Join(next, stolenFile))
		if err := os.MkdirAll(next, dirMode); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := replaceFile(filepath.Join(next, manifest.KeyringFile), data); err != nil {
			return err
		}
		if err := replaceFile(filepath.Join(next, manifest.KeyringSigFile), sig); err != nil {
			return err
		}
		return installNext(&cfg)
	})
	return r, err
}

// checkNewKeyring makes sure that agents will take the keyring, and that the hub has a key of it.
func checkNewKeyring(cfg *Config, k *keys, data, sig []byte, now time.Time) (*manifest.Keyring, error) {
	if _, err := seal.Verify(manifest.KeyringSignatureDomain, data, sig, []*seal.PublicKey{k.root}, now); err != nil {
		return nil, fmt.Errorf("it is not signed by the root key %s: %w", k.root.Fingerprint(), err)
	}
	ring, err := manifest.DecodeKeyring(data)
	if err != nil {
		return nil, err
	}
	switch {
	case ring.RepoID != k.keyring.RepoID:
		return nil, errors.New("it belongs to another repository")
	case ring.Version <= k.keyring.Version:
		return nil, fmt.Errorf("its version %d is not newer than version %d, which is in force", ring.Version, k.keyring.Version)
	}
	own := k.signing
	if waiting := filepath.Join(cfg.paths().next(), signingFile); exists(waiting) {
		if own, _, err = (&custodian{cfg: cfg}).read(waiting, "waiting key"); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(ring.Keys, func(key manifest.KeyringKey) bool { return key.Fingerprint == own.Fingerprint() }) {
		return nil, fmt.Errorf("the hub's key %s is not in it: certferry-hub key rotate makes one that fits", own.Fingerprint())
	}
	return ring, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// installNext puts what waits in keys/next, with its signature, into force.
func installNext(cfg *Config) error {
	p := cfg.paths()
	for file, path := range map[string]string{signingFile: cfg.SigningKey, escrowFile: cfg.EscrowKey} {
		waiting := filepath.Join(p.next(), file)
		if !exists(waiting) || sameKey(cfg, waiting, path) {
			continue
		}
		if err := checkReplaceable(path); err != nil {
			return fmt.Errorf("install key: nothing was changed: put %s there by hand, then run certferry-hub key install %s %s: %w", waiting,
				filepath.Join(p.next(), manifest.KeyringFile), filepath.Join(p.next(), manifest.KeyringSigFile), err)
		}
	}
	if err := os.Rename(p.next(), p.install()); err != nil {
		return fmt.Errorf("install key: %w", err)
	}
	if err := syncDir(p.keys()); err != nil {
		return err
	}
	return finishInstall(cfg)
}

// sameKey says whether two files hold the same private key.
func sameKey(cfg *Config, a, b string) bool {
	c := &custodian{cfg: cfg}
	one, _, err := c.read(a, "key")
	if err != nil {
		return false
	}
	other, _, err := c.read(b, "key")
	return err == nil && one.Fingerprint() == other.Fingerprint()
}

// finishInstall moves what is in keys/install to its places. It may be called again wherever it ended, and does nothing
// where there is no such folder.
func finishInstall(cfg *Config) error {
	p := cfg.paths()
	if !exists(p.install()) {
		return nil
	}
	if !exists(filepath.Join(p.install(), manifest.KeyringFile)) {
		return os.RemoveAll(p.install()) // the last step was under way
	}
	for _, step := range installSteps(p, cfg) {
		if err := step(cfg); err != nil {
			return fmt.Errorf("install key: %w", err)
		}
	}
	return nil
}

// installSteps are what finishInstall does, each of them once or again.
func installSteps(p paths, cfg *Config) []func(*Config) error {
	steps := []func(*Config) error{retireKeys, retireEscrow}
	for _, file := range []struct{ name, path string }{
		{signingFile, cfg.SigningKey},
		{escrowFile, cfg.EscrowKey},
		{manifest.KeyringSigFile, p.keyringSig()},
		{manifest.KeyringFile, p.keyring()}, // last: what is retired is found by the former one
	} {
		steps = append(steps, func(cfg *Config) error { return installFile(cfg, filepath.Join(p.install(), file.name), file.path) })
	}
	return append(steps,
		func(*Config) error { return os.RemoveAll(p.install()) },
		func(*Config) error { return syncDir(p.keys()) })
}

func installFile(cfg *Config, from, to string) error {
	data, err := os.ReadFile(from) //nolint:gosec // a path of our own
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if filepath.Ext(from) == ".key" && sameKey(cfg, from, to) { // the administrator put it there
		return nil
	}
	return replaceFile(to, data)
}

// retireKeys keeps the public keys that the new keyring does not hold any more.
func retireKeys(cfg *Config) error {
	p := cfg.paths()
	before, err := readKeyring(p.keyring())
	if err != nil {
		return err
	}
	after, err := readKeyring(filepath.Join(p.install(), manifest.KeyringFile))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.retired(), dirMode); err != nil {
		return err
	}
	stolen := exists(filepath.Join(p.install(), stolenFile))
	for _, k := range before.Keys {
		if slices.ContainsFunc(after.Keys, func(a manifest.KeyringKey) bool { return a.Fingerprint == k.Fingerprint }) {
			continue
		}
		if stolen {
			if err := replaceFile(filepath.Join(p.retired(), k.Fingerprint+stolenSuffix), nil); err != nil {
				return err
			}
		}
		if err := replaceFile(filepath.Join(p.retired(), k.Fingerprint+publicSuffix), []byte(k.PublicKey)); err != nil {
			return err
		}
	}
	return nil
}

func readKeyring(path string) (*manifest.Keyring, error) {
	data, err := os.ReadFile(path) //nolint:gosec // a path of our own
	if err != nil {
		return nil, err
	}
	return manifest.DecodeKeyring(data)
}

// retireEscrow keeps the escrow key that is replaced: it opens what was sealed to it.
func retireEscrow(cfg *Config) error {
	p := cfg.paths()
	coming := filepath.Join(p.install(), escrowFile)
	if !exists(coming) || sameKey(cfg, coming, cfg.EscrowKey) {
		return nil
	}
	c := &custodian{cfg: cfg}
	key, _, err := c.read(cfg.EscrowKey, "escrow key")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(cfg.EscrowKey)
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(p.retired(), escrowPrefix+key.Fingerprint()+".key"), data)
}

// loadRetired reads the hub's former keys.
func (k *keys) loadRetired(cfg *Config, c *custodian) error {
	entries, err := os.ReadDir(cfg.paths().retired())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read former keys: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(cfg.paths().retired(), e.Name())
		if fingerprint, ok := strings.CutSuffix(e.Name(), publicSuffix); ok {
			data, err := os.ReadFile(path) //nolint:gosec // a path of our own
			if err != nil {
				return fmt.Errorf("read former key: %w", err)
			}
			key, err := seal.ParsePublicKey(data)
			if err != nil {
				return fmt.Errorf("read former key %s: %w", path, err)
			}
			k.retired = append(k.retired, gitstore.RetiredKey{
				Key: key, Stolen: exists(filepath.Join(cfg.paths().retired(), fingerprint+stolenSuffix)),
			})
		}
		if strings.HasPrefix(e.Name(), escrowPrefix) {
			key, _, err := c.read(path, "former escrow key")
			if err != nil {
				return err
			}
			k.retiredEscrow = append(k.retiredEscrow, key)
		}
	}
	return nil
}

// KeyInfo is one key, for people.
type KeyInfo struct {
	// Role is root, signing, escrow or former; State says what is to be known about it, empty for nothing.
	Role        string `json:"role" yaml:"role"`
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
	State       string `json:"state" yaml:"state"`
}

// ListKeys lists the hub's keys. It may be called while the hub runs.
func ListKeys(cfg Config, now time.Time) (version uint64, all []KeyInfo, err error) {
	k, err := loadKeys(&cfg, now)
	if err != nil {
		return 0, nil, err
	}
	p := cfg.paths()
	root := KeyInfo{"root", k.root.Fingerprint(), "offline"}
	if exists(p.rootKey()) {
		root.State = "on this machine: move it to a safe place offline"
	}
	custody := func(locked bool) string {
		if locked {
			return "in use, under a passphrase"
		}
		return "in use"
	}
	all = []KeyInfo{root, {"signing", k.signing.Fingerprint(), custody(k.signingLocked)}, {"escrow", k.escrow.Fingerprint(), custody(k.escrowLocked)}}
	for _, r := range k.retired {
		info := KeyInfo{"former", r.Key.Fingerprint(), "signed earlier commits"}
		if r.Stolen {
			info.State = "stolen: its commits do not count"
		}
		all = append(all, info)
	}
	for _, e := range k.retiredEscrow {
		all = append(all, KeyInfo{"former", e.Fingerprint(), "opens earlier copies of bundles"})
	}
	if ring, err := readKeyring(filepath.Join(p.next(), manifest.KeyringFile)); err == nil {
		for _, key := range ring.Keys {
			all = append(all, KeyInfo{"signing", key.Fingerprint, "waits until the root key has signed " + filepath.Join(p.next(), manifest.KeyringFile)})
		}
	}
	return k.keyring.Version, all, nil
}
