// This file is about certificates that exist twice: with an ECDSA key and, for old clients, with an RSA key.

package manifest

import (
	"errors"
	"slices"
	"strings"
)

// Second is the certificate of the second key type, a certificate of its own in all but its file: it has a name of its
// own, is issued, rolled out and rolled back by itself, and changes with c. It is nil where c asks for none.
func (c *Certificate) Second() *Certificate {
	if c.SecondKeyType == "" {
		return nil
	}
	second := *c
	second.Name, second.KeyType, second.SecondKeyType = c.SecondName(), c.SecondKeyType, ""
	second.Deployments = slices.Clone(c.Deployments)
	for i := range second.Deployments {
		second.Deployments[i].Target, second.Deployments[i].SecondTarget = c.Deployments[i].SecondTarget, ""
	}
	return &second
}

// SecondName is what the certificate of the second key type is called: the name with .rsa or .ecdsa behind it.
func (c *Certificate) SecondName() string {
	return c.Name + "." + algorithm(c.SecondKeyType)
}

// FirstName is the certificate in whose file one of this name may stand as the second: the name without its ending, or
// the name itself.
func FirstName(name string) string {
	for _, ending := range []string{".rsa", ".ecdsa"} {
		if first, ok := strings.CutSuffix(name, ending); ok && first != "" {
			return first
		}
	}
	return name
}

// algorithm is the part of a key type before its size; the default is ECDSA.
func algorithm(keyType string) string {
	name, _, _ := strings.Cut(keyType, "-")
	if name == "" {
		return "ecdsa"
	}
	return name
}

func (c *Certificate) validSecond() error {
	if c.SecondKeyType == "" {
		if slices.ContainsFunc(c.Deployments, func(p Placement) bool { return p.SecondTarget != "" }) {
			return errors.New("is missing: a deployment has a secondTarget")
		}
		return nil
	}
	if err := validKeyType(c.SecondKeyType); err != nil {
		return err
	}
	switch {
	case algorithm(c.SecondKeyType) == algorithm(c.KeyType):
		return errors.New("must be RSA beside ECDSA, or ECDSA beside RSA")
	case ValidName(c.SecondName()) != nil:
		return errors.New("leaves no room for its ending behind the name: choose a shorter name")
	case slices.ContainsFunc(c.Deployments, func(p Placement) bool { return p.SecondTarget == "" }):
		return errors.New("needs a secondTarget at each deployment")
	}
	return nil
}
