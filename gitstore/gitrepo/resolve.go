// This file finds a commit by the first digits of its name, as people write it.

package gitrepo

import (
	"encoding/hex"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// MinPrefix is the least number of digits that may stand for a commit.
const MinPrefix = 7

// Resolve returns the one commit whose name starts with prefix, 7 to 40 lower-case hex digits. The error is
// fs.ErrNotExist where there is none, ErrInvalid where prefix is malformed or more than one commit starts with it.
func (r *Repo) Resolve(prefix string) (Hash, error) {
	if len(prefix) < MinPrefix || len(prefix) > 2*hashLen {
		return Hash{}, invalid("commit: give %d to %d digits", MinPrefix, 2*hashLen)
	}
	low, err := ParseHash(prefix + strings.Repeat("0", 2*hashLen-len(prefix)))
	if err != nil {
		return Hash{}, invalid("commit: give lower-case hex digits")
	}
	var found Hash
	for _, h := range r.packs.from(low, prefix) {
		if _, err := r.object(h, plumbing.CommitObject); err != nil || h == found {
			continue
		}
		if !found.IsZero() {
			return Hash{}, invalid("commit %s: more than one starts like this, give more digits", prefix)
		}
		found = h
	}
	if found.IsZero() {
		return Hash{}, notExist("commit %s", prefix)
	}
	return found, nil
}

// from lists the objects in packs whose names start with prefix; low is the first name that can.
func (s *packStore) from(low Hash, prefix string) []Hash {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []Hash
	for _, p := range s.packs {
		for i, _ := p.idx.find(low); i < p.idx.count && strings.HasPrefix(hex.EncodeToString(p.idx.name(i)), prefix); i++ {
			found = append(found, Hash(p.idx.name(i)))
		}
	}
	return found
}
