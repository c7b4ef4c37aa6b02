// This file seals what the hub keeps for itself outside of the repository, as it seals its own copies of bundles.

package gitstore

import (
	"fmt"

	"github.com/certferry/certferry/gitstore/seal"
)

// SealSecret encrypts to the hub's escrow key and signs with its signing key.
func (s *Store) SealSecret(plain []byte) ([]byte, error) {
	sealed, err := seal.Seal(plain, s.cfg.Escrow.Public(), s.cfg.Hub, s.cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("seal secret: %w", err)
	}
	return sealed, nil
}

// OpenSecret opens what SealSecret made, with former keys too. The caller clears what it gets.
func (s *Store) OpenSecret(sealed []byte) ([]byte, error) {
	plain, err := s.openEscrow(sealed)
	if err != nil {
		return nil, fmt.Errorf("open secret: %w", err)
	}
	return plain, nil
}
