// This file keeps the keys that a server has while its key is replaced: the present one, the next one that the hub may
// know already, and the one before, which opens the local history.

package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/internal/failpoint"
)

const (
	nextKeyFile = "key.next.asc"
	oldKeyFile  = "key.old.asc"
)

// Keys are the armored private keys beside the present one; nil where there is none.
type Keys struct {
	// Next was made to replace the present key; Old was the present one before.
	Next []byte
	Old  []byte
}

// Keys reads the keys beside the present one.
func (d *Dir) Keys() (Keys, error) {
	var k Keys
	for name, into := range map[string]*[]byte{nextKeyFile: &k.Next, oldKeyFile: &k.Old} {
		data, err := os.ReadFile(d.Path(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Keys{}, fmt.Errorf("read agent key: %w", err)
		}
		*into = data
	}
	return k, nil
}

// SaveNextKey keeps the key that shall replace the present one. It must be on disk before the hub hears of it.
func (d *Dir) SaveNextKey(armored []byte) error {
	if err := atomicfile.Write(d.Path(nextKeyFile), armored, 0o600); err != nil {
		return fmt.Errorf("store next agent key: %w", err)
	}
	return nil
}

// Promote makes the next key the present one: id must name its fingerprint. The identity is what decides; a crash before
// it is replaced leaves the present key in force, one after it is finished by FinishPromotion.
func (d *Dir) Promote(id Identity) error {
	present, err := os.ReadFile(d.Path(keyFile))
	if err != nil {
		return fmt.Errorf("read agent key: %w", err)
	}
	if err := atomicfile.Write(d.Path(oldKeyFile), present, 0o600); err != nil {
		return fmt.Errorf("store former agent key: %w", err)
	}
	failpoint.Hit("agent.rotate.kept")
	if err := d.save(identityFile, id); err != nil {
		return err
	}
	failpoint.Hit("agent.rotate.named")
	return d.FinishPromotion()
}

// FinishPromotion puts the next key in the present one's place, where that was not done yet.
func (d *Dir) FinishPromotion() error {
	if err := os.Rename(d.Path(nextKeyFile), d.Path(keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace agent key: %w", err)
	}
	if err := atomicfile.SyncDir(d.path); err != nil {
		return fmt.Errorf("replace agent key: %w", err)
	}
	return nil
}
