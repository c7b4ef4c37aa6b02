// This file says which values may reach acme.sh. What it lets through holds no character that a shell, a
// configuration file or a log line would read as anything but itself.

package acmesh

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh/dnshook"
)

var (
	plainPath = regexp.MustCompile(`^/[A-Za-z0-9._/-]{0,999}$`)
	dnsName   = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}$`)
	aliasName = regexp.MustCompile(`^(_?[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}$`)
	orderID   = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)
	directory = regexp.MustCompile(`^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9._/~-]*$`)
	email     = regexp.MustCompile(`^[A-Za-z0-9._+-]{1,64}@([a-z0-9-]{1,63}\.)+[a-z0-9-]{2,63}$`)
	profile   = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)
	chainName = regexp.MustCompile(`^[A-Za-z0-9 ._()-]{0,128}$`)
	hookName  = regexp.MustCompile(`^dns_[a-z0-9_]{1,60}$`)
	eabKeyID  = regexp.MustCompile(`^[A-Za-z0-9._~:/+=@-]{1,256}$`)
)

const (
	// maxURL bounds a directory's URL, maxEABKey the key that binds an account, in bytes.
	maxURL    = 1000
	maxEABKey = 1024
)

func checkAccount(cfg *Config) error {
	switch {
	case len(cfg.Directory) > maxURL || !directory.MatchString(cfg.Directory):
		return fmt.Errorf("the directory must be a plain https URL")
	case isLinkLocal(cfg.Directory):
		return fmt.Errorf("the directory is at a link-local address, where clouds keep secrets of machines")
	case cfg.Email != "" && (len(cfg.Email) > 254 || !email.MatchString(cfg.Email)):
		return fmt.Errorf("the e-mail address has characters that are not allowed")
	case cfg.CABundle != "" && !plainPath.MatchString(cfg.CABundle):
		return fmt.Errorf("the CA bundle must be an absolute path of letters, digits and . _ / -")
	case cfg.HooksDir != "" && !plainPath.MatchString(cfg.HooksDir):
		return fmt.Errorf("the hooks' folder must be an absolute path of letters, digits and . _ / -")
	}
	return nil
}

// checkEAB refuses what no CA hands out as an external account binding (RFC 8555 §7.3.4). Its errors repeat nothing of it.
func checkEAB(kid string, hmac []byte) error {
	switch {
	case !eabKeyID.MatchString(kid):
		return errors.New("the key id has characters that are not allowed, or more than 256")
	case len(hmac) == 0 || len(hmac) > maxEABKey:
		return fmt.Errorf("the HMAC key must hold 1 to %d bytes", maxEABKey)
	}
	return nil
}

// isLinkLocal says that a URL leads to a link-local address (RFC 3927).
func isLinkLocal(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err == nil && ip.IsLinkLocalUnicast()
}

func permanent(format string, args ...any) error {
	return &issuer.Error{Class: issuer.Permanent, Detail: fmt.Sprintf(format, args...)}
}

// checkRequest refuses everything that must not reach acme.sh. Its errors repeat no value.
func (i *Issuer) checkRequest(req issuer.Request) error {
	switch {
	case !orderID.MatchString(req.ID):
		return permanent("the order's id may hold lower-case letters, digits and hyphens only")
	case !profile.MatchString(req.Profile):
		return permanent("the profile has characters that are not allowed")
	case !chainName.MatchString(req.PreferredChain):
		return permanent("the preferred chain has characters that are not allowed")
	}
	if err := checkNames(&req); err != nil {
		return err
	}
	if _, err := req.ParseCSR(); err != nil {
		return err
	}
	return i.checkChallenges(&req)
}

// Check says what Issue would refuse of an order before it runs, but for its CSR: names, challenges, hooks and their
// variables, webroots. Where acme.sh is pinned, its script and the hooks are held against their published sums too. Nothing
// is asked of the CA or of a DNS provider.
func (i *Issuer) Check(names []string, challenge issuer.Challenge, overrides map[string]issuer.Challenge) error {
	req := &issuer.Request{Names: names, Challenge: challenge, Overrides: overrides}
	if err := checkNames(req); err != nil {
		return err
	}
	if err := i.checkChallenges(req); err != nil {
		return err
	}
	h := &home{credentials: map[string]string{}}
	hooks, err := h.takeHooks(i, req)
	if err != nil {
		return err
	}
	return i.verifyFiles(hooks)
}

func checkNames(req *issuer.Request) error {
	if len(req.Names) == 0 || len(req.Names) > 100 {
		return permanent("an order takes 1 to 100 names")
	}
	for n, name := range req.Names {
		if len(name) > 253 || !dnsName.MatchString(name) {
			return permanent("name %d is not one that an ACME CA signs: it needs two or more labels of lower-case letters, digits and hyphens", n+1)
		}
		if req.ChallengeOf(name).Type != issuer.DNS01 && strings.HasPrefix(name, "*.") {
			return permanent("a wildcard can be proven by dns-01 only")
		}
	}
	return nil
}

func (i *Issuer) checkChallenges(req *issuer.Request) error {
	for name := range req.Overrides {
		if !slices.Contains(req.Names, name) {
			return permanent("a challenge is for a name that the order does not have")
		}
	}
	for _, name := range req.Names {
		if err := i.checkChallenge(req.ChallengeOf(name)); err != nil {
			return err
		}
	}
	return nil
}

func (i *Issuer) checkChallenge(c issuer.Challenge) error {
	switch c.Type {
	case issuer.HTTP01:
		return i.cfg.checkHTTP(c)
	case issuer.DNS01:
		return i.checkDNS(c)
	case issuer.TLSALPN01:
		if c.Method != "" || c.Webroot != "" || c.Hook != "" || len(c.Credentials) > 0 || c.Alias != "" || c.DomainAlias != "" {
			return permanent("tls-alpn-01 takes no method, no webroot and no DNS hook")
		}
		return nil
	default:
		return permanent("the challenge must be http-01, dns-01 or tls-alpn-01")
	}
}

func (c *Config) checkHTTP(ch issuer.Challenge) error {
	if ch.Hook != "" || len(ch.Credentials) > 0 || ch.Alias != "" || ch.DomainAlias != "" {
		return permanent("http-01 takes no DNS hook, no alias and no credentials")
	}
	switch ch.Method {
	case "webroot":
		if !plainPath.MatchString(ch.Webroot) || filepath.Clean(ch.Webroot) != ch.Webroot {
			return permanent("the webroot must be an absolute folder of letters, digits and . _ / -")
		}
		return c.checkWebroot(ch.Webroot)
	case "standalone", "stateless":
	default:
		return permanent("the method of http-01 must be webroot, standalone or stateless")
	}
	return nil
}

// checkDNS finds the hook and holds the credentials against what the hook says that it takes.
func (i *Issuer) checkDNS(c issuer.Challenge) error {
	if !hookName.MatchString(c.Hook) {
		return permanent("the DNS hook must be named as acme.sh names it, such as dns_cf")
	}
	if c.Alias != "" && c.DomainAlias != "" {
		return permanent("a name has either an alias or a domain alias")
	}
	for _, alias := range []string{c.Alias, c.DomainAlias} {
		if alias != "" && (len(alias) > 253 || !aliasName.MatchString(alias)) {
			return permanent("the alias must be a DNS name of letters, digits, hyphens and underscores")
		}
	}
	if variable := dnshook.Command(c.Hook); variable != "" && !slices.Contains(i.cfg.CommandHooks, c.Hook) {
		return permanent("the hook %s runs its variable %s as a command on the hub: the hub's administrator must allow it by acme_command_hooks", c.Hook, variable)
	}
	provider, err := dnshook.Read(c.Hook, filepath.Dir(i.cfg.Script), i.cfg.HooksDir)
	if err != nil {
		return permanent("acme.sh has no DNS hook %s", c.Hook)
	}
	known := provider.Variables()
	for name, value := range c.Credentials {
		if err := issuer.CheckVariable(name, value); err != nil {
			return permanent("a credential of %s cannot be used: %v", c.Hook, err)
		}
		if err := dnshook.CheckValue(c.Hook, name, value); err != nil {
			return permanent("a credential of %s cannot be used: %v", c.Hook, err)
		}
		if len(known) > 0 && !slices.Contains(known, name) {
			return permanent("the hook %s does not know the variable %s; it takes %s", c.Hook, name, strings.Join(known, ", "))
		}
	}
	return nil
}
