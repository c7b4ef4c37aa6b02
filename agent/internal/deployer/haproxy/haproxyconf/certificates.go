// This file finds the files behind a certificate: folders, bundles, keys beside their certificate, lists and stores.

package haproxyconf

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

// pair is one certificate with its key.
type pair struct{ certificate, key string }

// bundleSuffixes are what HAProxy adds where the file itself does not exist.
var bundleSuffixes = []string{".rsa", ".ecdsa", ".dsa"}

// use notes that the certificate called name is served at listeners, or shown to servers.
func (p *parser) use(name string, listeners []agent.Listener, names []string, client bool) {
	site := agent.Site{Names: names, Client: client, File: p.file, Line: p.line}
	if strings.HasPrefix(name, "@") {
		e := p.stores[name]
		if e == nil {
			p.fault("%q stands in no crt-store", name)
			return
		}
		e.used = true
		site.Certificate, site.Key, site.File, site.Line = e.certificate, e.key, e.file, e.line
		p.addSite(site, listeners)
		return
	}
	for _, found := range p.locate(p.path(p.crtBase, name)) {
		site.Certificate, site.Key = found.certificate, found.key
		p.addSite(site, listeners)
	}
}

// path is where a relative name leads.
func (p *parser) path(base, name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return absolute(p.dir, filepath.Join(base, name))
}

// siteKey is what makes two uses of a certificate one site.
type siteKey struct {
	file                    string
	line                    int
	certificate, key, names string
	client                  bool
}

var tooMany = fmt.Sprintf("more than %d sites or %d uses of them; the others are left out", maxSites, maxUses)

// full says that no more is read, and notes that.
func (p *parser) full() bool {
	if p.uses < maxUses {
		return false
	}
	p.faultAt(p.mainFile, 0, tooMany)
	return true
}

// addSite adds a site, or listeners to the one that is there already.
func (p *parser) addSite(site agent.Site, listeners []agent.Listener) {
	site.Format = agent.FormatPEM
	key := siteKey{site.File, site.Line, site.Certificate, site.Key, strings.Join(site.Names, " "), site.Client}
	known := p.sites[key]
	if p.uses++; known == nil && len(p.order) >= maxSites {
		p.uses = maxUses
	}
	if p.full() {
		return
	}
	if known == nil {
		known = &site
		p.sites[key] = known
		p.order = append(p.order, key)
	}
	if len(listeners) > 0 {
		p.section.pending = append(p.section.pending, pending{known, listeners})
	}
}

// locate returns the certificates that path means: those of a folder, a file, or the members of a bundle. A file that is
// not there is returned all the same, for its reader to tell.
func (p *parser) locate(path string) []pair {
	if found, ok := p.pairs[path]; ok {
		return found
	}
	var found []pair
	info, err := p.files.Stat(path)
	switch {
	case err == nil && info.IsDir():
		found = p.folder(path)
	case errors.Is(err, fs.ErrNotExist) && p.extra["bundle"]:
		for _, suffix := range bundleSuffixes {
			if _, err := p.files.Stat(path + suffix); err == nil {
				found = append(found, p.withKey(path+suffix))
			}
		}
		if len(found) == 0 {
			found = []pair{{path, path}}
		}
	default:
		found = []pair{p.withKey(path)}
	}
	p.pairs[path] = found
	return found
}

// folder returns the certificates of a folder: each file but hidden ones and those that belong to a certificate.
func (p *parser) folder(path string) []pair {
	entries, err := p.files.ReadDir(path)
	if err != nil {
		p.fault("%v", err)
		return nil
	}
	var found []pair
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || slices.Contains([]string{".issuer", ".ocsp", ".sctl", ".key"}, filepath.Ext(name)) {
			continue
		}
		full := filepath.Join(path, name)
		regular := e.Type().IsRegular()
		if e.Type()&fs.ModeSymlink != 0 {
			info, err := p.files.Stat(full)
			regular = err != nil || info.Mode().IsRegular()
		}
		if regular {
			found = append(found, p.withKey(full))
		}
	}
	return found
}

// withKey finds the key of a certificate: in the same file, or else beside it.
func (p *parser) withKey(certificate string) pair {
	beside := certificate + ".key"
	if p.bareExt {
		beside = strings.TrimSuffix(certificate, ".crt") + ".key"
	}
	if !p.extra["key"] {
		return pair{certificate, certificate}
	}
	if _, err := p.files.Stat(beside); err != nil {
		return pair{certificate, certificate}
	}
	if data, err := p.files.ReadFile(certificate); err == nil && strings.Contains(string(data), "PRIVATE KEY-----") {
		return pair{certificate, certificate}
	}
	return pair{certificate, beside}
}

// listEntry is one line of a crt-list.
type listEntry struct {
	name, key string
	names     []string
	file      string
	line      int
}

// list reads a crt-list: lines of a certificate, options in brackets, and names to which it is shown. No quotes, no escapes.
func (p *parser) list(path string) []listEntry {
	if entries, ok := p.lists[path]; ok {
		return entries
	}
	p.lists[path] = nil
	text, ok := p.read(path)
	if !ok {
		return nil
	}
	var entries []listEntry
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		before, options, hasOptions := strings.Cut(line, "[")
		options, after, closed := strings.Cut(options, "]")
		if hasOptions && !closed {
			p.faultAt(path, n, "a bracket is not closed")
			continue
		}
		fields := strings.Fields(before)
		if len(fields) == 0 {
			if strings.TrimSpace(line) != "" {
				p.faultAt(path, n, "the line names no certificate")
			}
			continue
		}
		e := listEntry{name: fields[0], file: path, line: n, key: option(options, "key")}
		for _, name := range append(fields[1:], strings.Fields(after)...) {
			if !strings.HasPrefix(name, "!") {
				e.names = append(e.names, name)
			}
		}
		entries = append(entries, e)
	}
	p.lists[path] = entries
	return entries
}

// option returns the value that follows name among the options of a crt-list's line.
func option(options, name string) string {
	fields := strings.Fields(options)
	if i := slices.Index(fields, name); i >= 0 && i+1 < len(fields) {
		return fields[i+1]
	}
	return ""
}

// useEntry is use for a line of a crt-list, which is where the certificate is named.
func (p *parser) useEntry(e listEntry, listeners []agent.Listener) {
	file, line := p.file, p.line
	defer func() { p.file, p.line = file, line }()
	p.file, p.line = e.file, e.line
	if e.key == "" {
		p.use(e.name, listeners, e.names, false)
		return
	}
	p.addSite(agent.Site{
		Names: e.names, Certificate: p.path(p.crtBase, e.name), Key: p.path(p.keyBase, e.key), File: e.file, Line: e.line,
	}, listeners)
}

// storeEntry is a certificate of a crt-store (HAProxy 3.0 and later).
type storeEntry struct {
	pair

	file string
	line int
	used bool
}

// store reads a line of a crt-store.
func (p *parser) store(words []word) {
	switch words[0].text {
	case "crt-base":
		p.section.crtBase = p.usable("crt-base", words, 1)
	case "key-base":
		p.section.keyBase = p.usable("key-base", words, 1)
	case "load":
		p.load(words)
	}
}

func (p *parser) load(words []word) {
	values := make(map[string]string)
	for i := 1; i < len(words); i += 2 {
		if what := words[i].text; what == "crt" || what == "key" || what == "alias" {
			if values[what] = p.usable("load "+what, words, i+1); values[what] == "" {
				return
			}
		}
	}
	name := values["crt"]
	if name == "" {
		p.fault("load names no certificate")
		return
	}
	e := &storeEntry{file: p.file, line: p.line, pair: p.withKey(p.path(p.section.crtBase, name))}
	if key := values["key"]; key != "" {
		e.key = p.path(p.section.keyBase, key)
	}
	prefix := "@" + p.section.name + "/"
	p.stores[prefix+name] = e
	if alias := values["alias"]; alias != "" {
		p.stores[prefix+alias] = e
	}
}
