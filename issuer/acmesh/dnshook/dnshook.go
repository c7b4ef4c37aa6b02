// Package dnshook reads what acme.sh's DNS hooks say of themselves: the provider's name, where to read about it, and the
// variables that it takes. Forms are made of it, and nothing that a hook does not name reaches its environment.
package dnshook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/issuer"
)

// maxFile bounds a hook, in bytes; the largest has 40 KB.
const maxFile = 1 << 20

var (
	hookName     = regexp.MustCompile(`^dns_[a-z0-9_]{1,60}$`)
	keyLine      = regexp.MustCompile(`^([A-Za-z]+):(.*)$`)
	optionLine   = regexp.MustCompile(`^ *([A-Za-z][A-Za-z0-9_]{0,63})\s+(.*)$`)
	defaultValue = regexp.MustCompile(`Default:? "([^"]*)"`)
	secretName   = regexp.MustCompile(`(?i)(key|secret|token|pass|pwd|auth|hmac|credential)`)
	// plainName are names of that form that hold nothing secret.
	plainName = regexp.MustCompile(`(?i)(key_?id|access_key_id|keyname|key_name|_url|_uri|email|user)`)
)

// Parse reads the metadata in a hook's text, and mends by its code what is wrong there; a hook without any has its name as
// its title.
func Parse(hook, text string) issuer.DNSHook {
	p := issuer.DNSHook{Hook: hook, Title: strings.TrimPrefix(hook, "dns_")}
	before, rest, found := strings.Cut(text, hook+"_info='")
	info, after, ended := strings.Cut(rest, "'\n")
	if !found || !ended {
		amend(&p, text)
		return p
	}
	if !strings.HasPrefix(info, "[") {
		parseInfo(&p, info)
	}
	amend(&p, before+after)
	return p
}

// parseInfo reads the metadata of a hook.
func parseInfo(p *issuer.DNSHook, info string) {
	var into *[]issuer.DNSOption
	for i, line := range strings.Split(info, "\n") {
		key, described := keyLine.FindStringSubmatch(line), optionLine.FindStringSubmatch(line)
		switch {
		case i == 0:
			p.Title = clean(line)
		case key != nil:
			into = nil
			switch key[1] {
			case "Site":
				p.Site = address(key[2])
			case "Docs":
				p.Docs = address(key[2])
			case "Options":
				into = &p.Options
			case "OptionsAlt":
				into = &p.Alternative
			}
		case into != nil && described != nil:
			*into = append(*into, option(described[1], described[2]))
		case strings.HasPrefix(line, " ") && into == nil && p.Site == "" && p.Hint == "":
			p.Hint = clean(line)
		}
	}
}

func option(name, text string) issuer.DNSOption {
	o := issuer.DNSOption{Name: name, Description: clean(text), Secret: isSecret(name)}
	if match := defaultValue.FindStringSubmatch(text); match != nil {
		o.Default, o.Optional = match[1], true
	}
	o.Optional = o.Optional || strings.Contains(text, "Optional") || strings.Contains(text, "optional")
	return o
}

// clean makes one plain line.
func clean(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }), " ")
	if len(text) > 500 {
		return strings.ToValidUTF8(text[:500], "")
	}
	return strings.ToValidUTF8(text, "")
}

// address makes a link of what a hook writes without its scheme.
func address(text string) string {
	text, _, _ = strings.Cut(clean(text), " ")
	switch {
	case text == "" || strings.ContainsAny(text, "<>\"'`"):
		return ""
	case strings.HasPrefix(text, "https://"), strings.HasPrefix(text, "http://"):
		return text
	case strings.Contains(text, ":"):
		return ""
	default:
		return "https://" + text
	}
}

// Read reads the hook of a name below the first of dirs that has it; fs.ErrNotExist where none does.
func Read(hook string, dirs ...string) (issuer.DNSHook, error) {
	if !hookName.MatchString(hook) {
		return issuer.DNSHook{}, fmt.Errorf("read DNS hook: %w", fs.ErrNotExist)
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		data, err := readFile(filepath.Join(dir, "dnsapi", hook+".sh"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return issuer.DNSHook{}, fmt.Errorf("read DNS hook %s: %w", hook, err)
		}
		return Parse(hook, string(data)), nil
	}
	return issuer.DNSHook{}, fmt.Errorf("read DNS hook %s: %w", hook, fs.ErrNotExist)
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.New("it is no file, or too large to be a hook")
	}
	return os.ReadFile(path) //nolint:gosec // the folder is the administrator's
}

// List reads all hooks below dirs, by name. Of two hooks of one name the first folder's counts.
func List(dirs ...string) ([]issuer.DNSHook, error) {
	seen := map[string]bool{}
	var all []issuer.DNSHook
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		files, err := os.ReadDir(filepath.Join(dir, "dnsapi"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list DNS hooks: %w", err)
		}
		for _, f := range files {
			hook, isHook := strings.CutSuffix(f.Name(), ".sh")
			if !isHook || seen[hook] || !hookName.MatchString(hook) {
				continue
			}
			p, err := Read(hook, dir)
			if err != nil {
				return nil, err
			}
			seen[hook] = true
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b issuer.DNSHook) int { return strings.Compare(a.Hook, b.Hook) })
	return all, nil
}
