// This file hashes passwords and says which are good enough.

package auth

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/alexedwards/argon2id"

	"github.com/certferry/certferry/hub"
)

const (
	minPassword = 12
	maxPassword = 256
)

// common lists parts that make a long password easy to guess.
//
//go:embed common.txt
var common string

// checkPassword applies OWASP ASVS 5.0 §6.2: length above all, no composition rules, nothing that everybody tries.
func checkPassword(name, password string) error {
	fault := func(message string) error {
		return &hub.Error{Class: hub.ErrInvalid, Message: "the password is not good enough", Faults: []hub.Fault{{Location: "body.password", Message: message}}}
	}
	lower := strings.ToLower(password)
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return fault("must be text")
	case n < minPassword:
		return fault(fmt.Sprintf("must have at least %d characters", minPassword))
	case n > maxPassword:
		return fault(fmt.Sprintf("must have at most %d characters", maxPassword))
	case len(distinct(lower)) < 5:
		return fault("must not repeat the same few characters")
	case isCommon(lower):
		return fault("is one that everybody tries first")
	case name != "" && strings.Trim(strings.ReplaceAll(lower, strings.ToLower(name), ""), "0123456789!.-_ ") == "":
		return fault("must not be the account's name")
	}
	return nil
}

func distinct(s string) map[rune]bool {
	set := map[rune]bool{}
	for _, r := range s {
		set[r] = true
	}
	return set
}

// isCommon says whether the password is a common one, also with digits and signs around it or written twice.
func isCommon(lower string) bool {
	core := strings.Trim(lower, "0123456789!@#$%^&*.-_ ")
	if half := len(core) / 2; half > 0 && core[:half] == core[half:] {
		core = core[:half]
	}
	words := strings.Fields(common)
	return core == "" || slices.Contains(words, core) || slices.Contains(words, lower)
}

func (a *Auth) hash(ctx context.Context, password string) (string, error) {
	if err := a.hashing.Acquire(ctx, 1); err != nil {
		return "", fmt.Errorf("wait to hash password: %w", err)
	}
	defer a.hashing.Release(1)
	hash, err := argon2id.CreateHash(password, a.cfg.Argon2)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}

func (a *Auth) matches(ctx context.Context, password, hash string) (bool, error) {
	if len(password) > utf8.UTFMax*maxPassword {
		return false, nil // longer than any account's, and hashing it would cost us, not the caller
	}
	if err := a.hashing.Acquire(ctx, 1); err != nil {
		return false, fmt.Errorf("wait to check password: %w", err)
	}
	defer a.hashing.Release(1)
	match, err := argon2id.ComparePasswordAndHash(password, hash)
	if err != nil {
		return false, fmt.Errorf("check password: %w", err)
	}
	return match, nil
}
