// This file checks which files a target asks for, and whether its deployer has a use for them.

package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

type keystoreSpec struct {
	Path         string `yaml:"path"`
	Format       string `yaml:"format"`
	PasswordFile string `yaml:"passwordFile"`
	Alias        string `yaml:"alias"`
	Legacy       bool   `yaml:"legacy"`
}

func (s *keystoreSpec) keystore() agent.Keystore {
	return agent.Keystore{Path: s.Path, Format: agent.Format(s.Format), PasswordFile: s.PasswordFile, Alias: s.Alias, Legacy: s.Legacy}
}

// layout is a way to keep a certificate in files: the keys of a target that are set.
type layout string

const (
	pair        layout = "certificate, key"
	pairChain   layout = "certificate, key, chain"
	combined    layout = "combined"
	keystoreOne layout = "keystore"
)

// layouts are those that each deployer has a use for. "files" takes any.
var layouts = map[string][]layout{
	"apache":   {pair, pairChain, combined},
	"caddy":    {pair},
	"dovecot":  {pair},
	"files":    nil,
	"haproxy":  {combined, pair},
	"lighttpd": {pair, combined},
	"nginx":    {pair},
	"postfix":  {pair, combined},
	"tomcat":   {keystoreOne, pair, pairChain},
}

// Deployers are the names that a policy may use, sorted.
func Deployers() []string { return slices.Sorted(maps.Keys(layouts)) }

func checkDeployer(s *targetSpec, t agent.Target) error {
	known := strings.Join(Deployers(), ", ")
	takes, ok := layouts[t.Deployer]
	switch {
	case t.Deployer == "":
		return fmt.Errorf("deployer is missing: one of %s", known)
	case !ok:
		return fmt.Errorf("deployer %q is not known: one of %s", t.Deployer, known)
	case t.Deployer == "files" && s.Instance != nil:
		return errors.New("the key instance is for software that the agent knows, and files is not")
	case t.Deployer == "files":
		return nil
	case s.Test != nil || s.Reload != nil:
		return fmt.Errorf("test and reload are for the deployer files; %s knows its own", t.Deployer)
	}
	if has := layoutOf(t); !slices.Contains(takes, has) {
		return fmt.Errorf("%s takes %s; this target names %s", t.Deployer, join(takes), has)
	}
	if t.Deployer == "haproxy" && t.Key != "" && t.Key != t.Certificate+".key" {
		return fmt.Errorf("haproxy looks for the key of %s in %s.key; name that as key, or name combined alone", t.Certificate, t.Certificate)
	}
	return nil
}

func join(all []layout) string {
	words := make([]string, len(all))
	for i, l := range all {
		words[i] = string(l)
	}
	return strings.Join(words, ", or ")
}

func layoutOf(t agent.Target) layout {
	var keys []string
	for _, key := range outputKeys(t) {
		if key[1] != "" {
			keys = append(keys, key[0])
		}
	}
	return layout(strings.Join(keys, ", "))
}

// outputKeys are the keys that name files to write, with their values.
func outputKeys(t agent.Target) [][2]string {
	return [][2]string{
		{"certificate", t.Certificate},
		{"key", t.Key},
		{"chain", t.Chain},
		{"combined", t.Combined},
		{"keystore", t.Keystore.Path},
	}
}

// outputs are the files that t writes.
func outputs(t agent.Target) []string {
	var paths []string
	for _, key := range outputKeys(t) {
		if key[1] != "" {
			paths = append(paths, key[1])
		}
	}
	return paths
}

func checkFiles(t agent.Target) error {
	seen := make(map[string]string)
	for _, key := range outputKeys(t) {
		if key[1] == "" {
			continue
		}
		if err := checkPath(key[0], key[1]); err != nil {
			return err
		}
		if other, taken := seen[key[1]]; taken {
			return fmt.Errorf("%s and %s must be two files; the key combined puts all into one", other, key[0])
		}
		seen[key[1]] = key[0]
	}
	switch {
	case len(seen) == 0 && t.Keystore == agent.Keystore{}:
		return errors.New("certificate is missing: name certificate and key, or combined, or keystore")
	case t.Certificate == "" && (t.Key != "" || t.Chain != ""):
		return errors.New("certificate is missing")
	case t.Certificate != "" && t.Key == "":
		return errors.New("key is missing")
	}
	return nil
}

func checkKeystore(s *keystoreSpec) error {
	if s == nil {
		return nil
	}
	if err := checkPath("keystore.path", s.Path); err != nil {
		return err
	}
	if err := checkPath("keystore.passwordFile", s.PasswordFile); err != nil {
		return err
	}
	switch {
	case s.Path == s.PasswordFile:
		return errors.New("keystore: path and passwordFile must be two files")
	case s.Format == string(agent.FormatPKCS12) && s.Alias != "":
		return errors.New("keystore: alias is for the format jks; leave it out of Java's configuration too, there is one entry")
	case s.Format == string(agent.FormatPKCS12):
		return nil
	case s.Format != string(agent.FormatJKS):
		return fmt.Errorf("keystore: format %q must be pkcs12 or jks", s.Format)
	case s.Alias == "":
		return errors.New("keystore: alias is missing; it names the entry of a jks file")
	case len(s.Alias) > 255 || strings.ContainsFunc(s.Alias, isControl):
		return errors.New("keystore: alias must be one short line")
	case s.Legacy:
		return errors.New("keystore: legacy is for the format pkcs12; a jks file is old by itself")
	}
	return nil
}

// checkPassword wants what every reader of both formats takes for the same bytes.
func checkPassword(password string) error {
	switch {
	case len(password) < 6:
		return errors.New("the password must have 6 characters or more; Java's tools take no shorter one")
	case len(password) > 1024 || strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("the password must be one line of ASCII")
	}
	return nil
}
