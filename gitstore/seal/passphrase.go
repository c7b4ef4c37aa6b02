// This file keeps private keys under a passphrase, in the form that gpg 2.2 reads and writes (RFC 4880, section 5.5.3).

package seal

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxS2KCount is the most bytes that OpenPGP lets one hash for a passphrase (RFC 4880, section 3.7.1.3): about a second
// for each guess. gpg 2.2 knows nothing stronger.
const maxS2KCount = 65011712

// Errors of keys under a passphrase.
var (
	// ErrProtected: the key has a passphrase, and none was given.
	ErrProtected = errors.New("the key has a passphrase")
	// ErrPassphrase: the passphrase is not the key's.
	ErrPassphrase = errors.New("wrong passphrase")
)

// ArmorProtected encodes the key pair with its secret half under a passphrase.
func (k *PrivateKey) ArmorProtected(passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return nil, errors.New("encode private key: the passphrase is empty")
	}
	plain, err := k.Armor()
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	entity, err := parse(plain, openpgp.PrivateKeyType) // a copy, as the library locks keys in place
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	c := config(entity.PrimaryKey.CreationTime)
	c.S2KConfig = &s2k.Config{S2KMode: s2k.IteratedSaltedS2K, Hash: crypto.SHA256, S2KCount: maxS2KCount}
	if err := entity.EncryptPrivateKeys(passphrase, c); err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(entity.SerializePrivateWithoutSigning(w, nil), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}

// Protected tells whether a private key is under a passphrase.
func Protected(armored []byte) (bool, error) {
	entity, err := parse(armored, openpgp.PrivateKeyType)
	if err != nil {
		return false, fmt.Errorf("parse private key: %w", err)
	}
	return locked(entity), nil
}

// locked tells whether a part of the key needs a passphrase.
func locked(entity *openpgp.Entity) bool {
	if entity.PrivateKey != nil && entity.PrivateKey.Encrypted {
		return true
	}
	for _, s := range entity.Subkeys {
		if s.PrivateKey != nil && s.PrivateKey.Encrypted {
			return true
		}
	}
	return false
}

// Unlock reads a private key that is under a passphrase. The error is ErrPassphrase where it is another one.
func Unlock(armored, passphrase []byte) (*PrivateKey, error) {
	entity, err := parse(armored, openpgp.PrivateKeyType)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	if entity.DecryptPrivateKeys(passphrase) != nil {
		return nil, fmt.Errorf("parse private key: %w", ErrPassphrase)
	}
	return unlocked(entity)
}
