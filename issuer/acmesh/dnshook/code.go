// This file reads a hook's code: some metadata names variables that the hook never reads, or leaves out those that it does.

package dnshook

import (
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/issuer"
)

var (
	// confName is a variable that a hook reads from acme.sh's configuration, or saves there to read it from the environment
	// the next time. A name that is put together at run time, such as "X_$id", is none.
	confName = regexp.MustCompile(`_(?:read|save)accountconf(?:_mutable)?[ \t]+"?([A-Za-z][A-Za-z0-9_]{0,63})"?(?:[ \t)\n]|$)`)
	// ownName is one that the environment may hold: NAME="${NAME:-$(_readaccountconf_mutable NAME)}".
	ownName = regexp.MustCompile(`(?m)^[ \t]*([A-Za-z][A-Za-z0-9_]{0,63})="\$\{([A-Za-z0-9_]+):-\$\(_readaccountconf`)
	word    = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*`)
)

// undescribed is the description of a variable that the metadata leaves out.
const undescribed = "Read by the hook, which does not describe it."

// openHooks make the names of their variables at run time, so that no list of them is whole.
var openHooks = map[string]string{
	"dns_lexicon": "Set PROVIDER, and what Lexicon takes for it, such as LEXICON_CLOUDFLARE_TOKEN.",
}

// amend makes the variables of p those that the hook's code knows. What the code never mentions is not demanded, as it may
// be for a program that the hook runs. What the code reads and the metadata leaves out is allowed.
func amend(p *issuer.DNSHook, code string) {
	if hint, open := openHooks[p.Hook]; open {
		p.Hint, p.Options, p.Alternative = hint, nil, nil
		return
	}
	code = withoutComments(code)
	mentioned := map[string]bool{}
	for _, w := range word.FindAllString(code, -1) {
		mentioned[w] = true
	}
	missing := undeclared(p, code)
	if misnamed(p, mentioned, len(missing)) {
		for i, name := range missing {
			p.Options[i].Name, p.Options[i].Secret = name, isSecret(name)
		}
		return
	}
	own := map[string]bool{}
	for _, match := range ownName.FindAllStringSubmatch(code, -1) {
		own[match[1]] = match[1] == match[2]
	}
	// Nobody knows what a secret that is not described stands in for, so that nothing is demanded beside it.
	either := slices.ContainsFunc(missing, func(name string) bool { return own[name] && isSecret(name) })
	for _, options := range [][]issuer.DNSOption{p.Options, p.Alternative} {
		for i := range options {
			options[i].Optional = options[i].Optional || either || !mentioned[options[i].Name]
		}
	}
	for _, name := range missing {
		p.Options = append(p.Options, issuer.DNSOption{Name: name, Description: undescribed, Optional: true, Secret: isSecret(name)})
	}
}

// undeclared are the variables that the code reads or saves and the metadata leaves out, in the code's order.
func undeclared(p *issuer.DNSHook, code string) []string {
	declared := p.Variables()
	var missing []string
	for _, match := range confName.FindAllStringSubmatch(code, -1) {
		if !slices.Contains(declared, match[1]) && !slices.Contains(missing, match[1]) {
			missing = append(missing, match[1])
		}
	}
	return missing
}

// misnamed says that the metadata has all names wrong: the code mentions none of them and reads as many others, which
// are meant.
func misnamed(p *issuer.DNSHook, mentioned map[string]bool, missing int) bool {
	return missing > 0 && missing == len(p.Options) && len(p.Alternative) == 0 &&
		!slices.ContainsFunc(p.Options, func(o issuer.DNSOption) bool { return mentioned[o.Name] })
}

// withoutComments leaves out lines that are comments.
func withoutComments(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		if !strings.HasPrefix(strings.TrimLeft(line, " \t"), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func isSecret(name string) bool { return secretName.MatchString(name) && !plainName.MatchString(name) }
