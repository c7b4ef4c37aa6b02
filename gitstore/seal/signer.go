// This file reads the keys of people: whatever OpenPGP key they sign their commits with.

package seal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

// maxSigners bounds a file of people's keys, in bytes: keys carry the signatures of others.
const maxSigners = 1 << 20

// ParseSigners reads the public keys of one armored block, as gpg --armor --export writes them. Other than the keys of
// this program they may be of any algorithm, may end, and need not encrypt; they serve Verify only.
func ParseSigners(armored []byte) ([]*PublicKey, error) {
	if len(armored) > maxSigners {
		return nil, fmt.Errorf("parse public keys: more than %d bytes", maxSigners)
	}
	body, err := unarmor(armored, openpgp.PublicKeyType)
	if err != nil {
		return nil, fmt.Errorf("parse public keys: %w", err)
	}
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("parse public keys: they cannot be read: %w", err)
	}
	keys := make([]*PublicKey, 0, len(entities))
	for _, entity := range entities {
		if entity.PrivateKey != nil || slices.ContainsFunc(entity.Subkeys, func(s openpgp.Subkey) bool { return s.PrivateKey != nil }) {
			return nil, errors.New("parse public keys: a secret key is among them; export public keys only")
		}
		keys = append(keys, &PublicKey{entity})
	}
	if len(keys) == 0 {
		return nil, errors.New("parse public keys: there is none")
	}
	return keys, nil
}
