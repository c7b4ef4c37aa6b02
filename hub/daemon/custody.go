// This file is about how the hub's secret files are kept: bare, under a passphrase, or as systemd credentials.

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore/seal"
)

// minPassphrase is the least length of a passphrase, in bytes.
const minPassphrase = 12

// credentialsVariable is what systemd calls the folder of a unit's credentials (systemd.exec(5)).
const credentialsVariable = "CREDENTIALS_DIRECTORY"

// expandCredentials puts the folder of the unit's credentials where paths name it. Nothing else is expanded.
func (c *Config) expandCredentials(environ []string) error {
	const name = "${" + credentialsVariable + "}"
	for _, entry := range environ {
		if value, ok := strings.CutPrefix(entry, credentialsVariable+"="); ok {
			c.SystemdCredentials = value
		}
	}
	fields := reflect.ValueOf(c).Elem()
	for i, key := range Keys() {
		field, ok := reflect.TypeAssert[*string](fields.Field(i).Addr())
		if !ok || !strings.HasPrefix(*field, name+"/") {
			continue
		}
		if c.SystemdCredentials == "" {
			return fault(key, "names "+name+", which systemd sets for the unit only: for a command by hand, set "+EnvPrefix+strings.ToUpper(key)+" to the file")
		}
		*field = c.SystemdCredentials + strings.TrimPrefix(*field, name)
	}
	return nil
}

// othersMay are the bits of a secret file's mode that must not be set. systemd shows a credential to the unit's user by
// an access list, which looks as if the group might read it.
func (c *Config) othersMay(path string) fs.FileMode {
	if c.SystemdCredentials != "" && filepath.Dir(path) == filepath.Clean(c.SystemdCredentials) {
		return 0o037
	}
	return 0o077
}

// custodian reads and writes private keys, and asks for their passphrase once.
type custodian struct {
	cfg        *Config
	passphrase []byte
}

// ask returns the passphrase.
func (c *custodian) ask() ([]byte, error) {
	if c.passphrase != nil {
		return c.passphrase, nil
	}
	var err error
	switch {
	case c.cfg.KeyPassphraseFile != "":
		c.passphrase, err = readPassphrase(c.cfg, c.cfg.KeyPassphraseFile)
	case c.cfg.Passphrase != nil:
		c.passphrase, err = c.cfg.Passphrase()
	default:
		err = errors.New("nobody is there to ask: set key_passphrase_file, or start it on a terminal")
	}
	if err != nil {
		return nil, fmt.Errorf("get passphrase of keys: %w", err)
	}
	return c.passphrase, nil
}

// readPassphrase reads the first line of a file.
func readPassphrase(cfg *Config, path string) ([]byte, error) {
	data, err := readSecretAs(path, "passphrase", cfg.othersMay(path))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	if line = bytes.TrimRight(line, "\r"); len(line) == 0 {
		return nil, fmt.Errorf("read passphrase %s: its first line is empty", path)
	}
	return line, nil
}

// read returns a key, and whether it is under the passphrase.
func (c *custodian) read(path, what string) (key *seal.PrivateKey, locked bool, err error) {
	data, err := readSecretAs(path, what, c.cfg.othersMay(path))
	if err != nil {
		return nil, false, err
	}
	key, err = seal.ParsePrivateKey(data)
	if errors.Is(err, seal.ErrProtected) {
		passphrase, asked := c.ask()
		if asked != nil {
			return nil, true, fmt.Errorf("read %s %s: %w", what, path, asked)
		}
		locked = true
		key, err = seal.Unlock(data, passphrase)
	}
	if err != nil {
		return nil, locked, fmt.Errorf("read %s %s: %w", what, path, err)
	}
	return key, locked, nil
}

// armor encodes a key, under the passphrase if it is to be locked.
func (c *custodian) armor(key *seal.PrivateKey, locked bool) ([]byte, error) {
	if !locked {
		return key.Armor()
	}
	passphrase, err := c.ask()
	if err != nil {
		return nil, err
	}
	return key.ArmorProtected(passphrase)
}

// ProtectKeys puts the hub's signing and escrow keys under a passphrase, while the hub is stopped. Keys that have
// another one already change it.
func ProtectKeys(cfg Config, passphrase []byte, now func() time.Time) error {
	if len(passphrase) < minPassphrase {
		return fmt.Errorf("protect keys: the passphrase must have at least %d characters", minPassphrase)
	}
	return rewriteKeys(cfg, now, func(key *seal.PrivateKey) ([]byte, error) { return key.ArmorProtected(passphrase) })
}

// UnprotectKeys takes the passphrase from the hub's keys, while the hub is stopped.
func UnprotectKeys(cfg Config, now func() time.Time) error {
	return rewriteKeys(cfg, now, (*seal.PrivateKey).Armor)
}

// rewriteKeys writes each private key of the hub anew. All are read first, so that a wrong passphrase changes none.
func rewriteKeys(cfg Config, now func() time.Time, encode func(*seal.PrivateKey) ([]byte, error)) error {
	return withKeys(cfg, now, func(*keys) error {
		c := &custodian{cfg: &cfg}
		paths, err := privateKeys(&cfg)
		if err != nil {
			return err
		}
		anew := map[string][]byte{}
		for _, path := range paths {
			if err := checkReplaceable(path); err != nil {
				return err
			}
			key, _, err := c.read(path, "key")
			if err != nil {
				return err
			}
			if anew[path], err = encode(key); err != nil {
				return err
			}
		}
		for _, path := range paths {
			if err := replaceFile(path, anew[path]); err != nil {
				return err
			}
		}
		return nil
	})
}

// privateKeys lists the files of the hub's private keys, former and coming ones too. The root key is not the hub's.
func privateKeys(cfg *Config) ([]string, error) {
	p := cfg.paths()
	former, err := filepath.Glob(filepath.Join(p.retired(), "escrow-*.key"))
	if err != nil {
		return nil, err
	}
	coming, err := filepath.Glob(filepath.Join(p.next(), "*.key"))
	return slices.Concat([]string{cfg.SigningKey, cfg.EscrowKey}, former, coming), err
}

// withKeys runs fn on the keys of a hub that is stopped.
func withKeys(cfg Config, now func() time.Time, fn func(*keys) error) (err error) {
	if err := cfg.Complete(); err != nil {
		return fmt.Errorf("check configuration: %w", err)
	}
	if err := checkInitialised(cfg.paths()); err != nil {
		return err
	}
	held, err := takeLock(cfg.paths())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if err := finishInstall(&cfg); err != nil {
		return err
	}
	k, err := loadKeys(&cfg, now())
	if err != nil {
		return err
	}
	return fn(k)
}

// checkReplaceable tells beforehand whether replaceFile would work: a systemd credential is not ours to write.
func checkReplaceable(path string) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".probe-*")
	if err != nil {
		return fmt.Errorf("write %s: its folder cannot be written; keys that systemd hands over are replaced there: %w", path, err)
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// replaceFile writes a file so that after a crash the old or the new content is there, whole.
func replaceFile(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write file: %w", err), os.Remove(file.Name()))
	}
	return syncDir(filepath.Dir(path))
}
