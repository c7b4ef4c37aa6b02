// This file checks how a certificate wants control of its names to be proven, and where it wants its key.

package manifest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// CustodyServer is the keyCustody of a certificate whose private key is made on its server and never leaves it.
const CustodyServer = "server"

// validCustody holds a key on a server to that one server.
func (c *Certificate) validCustody() error {
	switch {
	case c.KeyCustody == "", c.KeyCustody == "hub":
		return nil
	case c.KeyCustody != CustodyServer:
		return errors.New("must be hub or server")
	}
	for i := range c.Deployments {
		if d := &c.Deployments[i]; d.Server == "" || d.Server != c.Deployments[0].Server {
			return errors.New("a key that stays on its server takes deployments on one server only, by its name")
		}
	}
	if len(c.Deployments) == 0 {
		return errors.New("a key that stays on its server needs a deployment that names the server")
	}
	return nil
}

// validateChallenges checks that each challenge suits the names that it is for.
func (c *Certificate) validateChallenges(f *faults) {
	rest := slices.Clone(c.Names)
	for i := range c.Challenges {
		named, key := &c.Challenges[i], fmt.Sprintf("challenges[%d]", i)
		if len(named.Names) == 0 {
			f.addText(key+".names", "is missing")
		}
		for _, name := range named.Names {
			at := slices.Index(rest, name)
			if at < 0 {
				f.addText(key+".names", "may hold names of the certificate only, and each once")
				break
			}
			rest = slices.Delete(rest, at, at+1)
		}
		f.add(key, named.validate(named.Names))
	}
	switch {
	case c.Challenge != nil:
		f.add("challenge", c.Challenge.validate(rest))
	case len(c.Challenges) > 0 && len(rest) > 0:
		f.addText("challenge", "is missing: challenges does not cover all names")
	}
}

// ChallengeOf is the challenge of one of the certificate's names, nil where there is none.
func (c *Certificate) ChallengeOf(name string) *Challenge {
	for i := range c.Challenges {
		if slices.Contains(c.Challenges[i].Names, name) {
			return &c.Challenges[i].Challenge
		}
	}
	return c.Challenge
}

func (c *Challenge) validate(names []string) error {
	if c.Type == "dns-01" {
		return c.validateDNS()
	}
	switch {
	case c.Hook != "", c.Credential != "", c.Alias != "", c.DomainAlias != "":
		return errors.New("hook, credential, alias and domainAlias are for dns-01 only")
	case slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "*.") }):
		return errors.New("a wildcard can be proven by dns-01 only")
	}
	switch c.Type {
	case "http-01":
		return c.validateHTTP()
	case "tls-alpn-01":
		if c.Method != "" || c.Webroot != "" {
			return errors.New("tls-alpn-01 takes no method and no webroot")
		}
		return nil
	default:
		return errors.New("type must be http-01, dns-01 or tls-alpn-01")
	}
}

func (c *Challenge) validateDNS() error {
	if c.Method != "" || c.Webroot != "" {
		return errors.New("dns-01 takes no method and no webroot")
	}
	if hook := strings.TrimPrefix(c.Hook, "dns_"); hook == c.Hook || ValidName(hook) != nil {
		return errors.New("dns-01 needs acme.sh's hook, such as dns_cf")
	}
	if c.Credential != "" {
		if err := ValidName(c.Credential); err != nil {
			return fmt.Errorf("credential: %w", err)
		}
	}
	if c.Alias != "" && c.DomainAlias != "" {
		return errors.New("give either alias or domainAlias")
	}
	for key, alias := range map[string]string{"alias": c.Alias, "domainAlias": c.DomainAlias} {
		// An alias may start with an underscore, as _acme-challenge itself does.
		if plain := strings.TrimPrefix(alias, "_"); alias != "" && (ValidDNSName(plain) != nil || strings.HasPrefix(plain, "*.")) {
			return fmt.Errorf("%s: must be a DNS name", key)
		}
	}
	return nil
}

func (c *Challenge) validateHTTP() error {
	switch c.Method {
	case "webroot":
		if !path.IsAbs(c.Webroot) || path.Clean(c.Webroot) != c.Webroot || c.Webroot == "/" || len(c.Webroot) > 500 ||
			!only(c.Webroot, alphanumeric+"/._-") {
			return errors.New("webroot must be an absolute folder of letters, digits, dots, hyphens and underscores, without empty, . or .. parts in it")
		}
		return nil
	case "standalone", "stateless":
		if c.Webroot != "" {
			return errors.New("webroot is for the method webroot only")
		}
		return nil
	default:
		return errors.New("method must be webroot, standalone or stateless")
	}
}
