// This file finds the files that a path with variables means. nginx knows only at each handshake; here every value
// that map, geo, split_clients, set and server_name can give is tried, and a variable of the client's choice, such as
// $ssl_server_name, stands for whatever files there are.

package nginxconf

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

const (
	// unknown stands in a path for text that is not known.
	unknown = "\x00"
	// maxCases are the combinations of values tried for one certificate.
	maxCases = 10_000
	// maxDepth is how deep variables may be made of variables.
	maxDepth = 10
)

// host is the leaf for all variables that are the name that a client asks for.
const host = "host"

func isHost(variable string) bool {
	return slices.Contains([]string{"ssl_server_name", "server_name", "host", "http_host"}, variable)
}

// mapping is a map, geo or split_clients block: a variable by the value of its source.
type mapping struct {
	source    string
	keys      []string
	values    map[string]string
	fallback  string
	hostnames bool
}

var _ block = (*mapping)(nil)

func newMapping(p *parser, module string, words []string) *mapping {
	m := &mapping{values: make(map[string]string), source: "$remote_addr"}
	switch len(words) {
	case 3:
		m.source = words[1]
		fallthrough
	case 2:
		p.maps[module+words[len(words)-1]] = m
	}
	return m
}

// directive implements block.
func (m *mapping) directive(p *parser, words []string, at position) {
	if len(words) == 1 && words[0] == "hostnames" {
		m.hostnames = true
	}
	if len(words) != 2 {
		return
	}
	key, value := words[0], words[1]
	if key == "default" || key == "*" {
		m.fallback = value
		return
	}
	if p.entries++; p.entries > maxEntries {
		p.fault(position{file: at.file}, "maps have more than %d entries; the rest is not read", maxEntries)
		return
	}
	if key = strings.TrimPrefix(key, `\`); !strings.HasPrefix(key, "~") {
		key = strings.ToLower(key)
	}
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
		m.values[key] = value
	}
}

// enter implements block.
func (m *mapping) enter(*parser, []string, position) block { return ignored{} }

// leave implements block.
func (m *mapping) leave(*parser) {}

// get is the value for a source. One that is not known finds only what is written the same.
func (m *mapping) get(p *parser, source assigned) string {
	if v, ok := m.values[strings.ToLower(source.text)]; ok && source.text != "" {
		return v
	}
	if v, ok := m.values[source.text]; ok {
		return v
	}
	if !source.known {
		return m.fallback
	}
	p.steps += len(m.keys)
	for _, key := range m.keys {
		isPattern := strings.HasPrefix(key, "~")
		if m.hostnames && !isPattern && fitsName(source.text, key) || isPattern && p.fitsPattern(source.text, key, false) {
			return m.values[key]
		}
	}
	return m.fallback
}

// assigned is what a variable is in one case. Text that is not known to be its value is a key of a map that its value
// finds, or empty.
type assigned struct {
	text  string
	known bool
}

// binding is one case: the values of the variables that nothing in the configuration defines.
type binding map[string]assigned

// expansion finds the files of one certificate with variables.
type expansion struct {
	*parser
	scope *scope
	// names are those of the virtual server around the directive; any says that it answers for others too.
	names []string
	any   bool
	site  agent.Site
	at    position
	// certificate and key are as configured.
	certificate, key string
}

// expand adds a site for each file that a certificate with variables can mean.
func (p *parser) expand(s *scope, site agent.Site, certificate, key string) {
	e := &expansion{
		parser: p, scope: s, site: site, at: position{site.File, site.Line}, certificate: certificate, key: key, any: true,
	}
	for server := s; server != nil; server = server.parent {
		if server.isServer() {
			e.names = server.names
			e.any = len(e.names) == 0 || slices.ContainsFunc(server.listens, func(l listen) bool { return l.isDefault })
		}
	}
	faults := len(p.faults)
	var sites []agent.Site
	for _, b := range e.cases() {
		path := e.value(certificate, b, 0)
		if path == "" || strings.HasPrefix(path, unknown) {
			continue // A map without a default, or a path of which nothing is known.
		}
		if strings.HasPrefix(path, "data:") {
			p.onDisk(reference{at: e.at}, &site, path, "")
			continue
		}
		found := e.found(path, b)
		if found == nil && !strings.Contains(path, unknown) {
			p.fault(e.at, "there is no file for the certificate %s", path)
		}
		sites = merge(sites, found)
	}
	if len(sites) == 0 && len(p.faults) == faults {
		p.fault(e.at, "which files the certificate %s means cannot be told", certificate)
	}
	p.sites = append(p.sites, sites[:min(len(sites), max(0, maxSites-len(p.sites)))]...)
}

// merge adds sites to others, and their names to those of the same pair.
func merge(sites, more []agent.Site) []agent.Site {
	for _, s := range more {
		i := slices.IndexFunc(sites, func(o agent.Site) bool { return o.Certificate == s.Certificate && o.Key == s.Key })
		if i < 0 {
			sites = append(sites, s)
			continue
		}
		names := slices.Clone(sites[i].Names)
		for _, n := range s.Names {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
		sites[i].Names = names
	}
	return sites
}

// cases are all combinations of what the undefined variables in the two paths can be.
func (e *expansion) cases() []binding {
	leaves := make(map[string][]string)
	e.collect(e.certificate, leaves, 0)
	e.collect(e.key, leaves, 0)
	cases := []binding{{}}
	for _, leaf := range slices.Sorted(maps.Keys(leaves)) {
		choices := e.choices(leaf, leaves[leaf])
		e.steps += len(cases) * len(choices)
		if len(cases)*len(choices) > maxCases || e.steps > maxSteps {
			e.fault(e.at, "the certificate %s depends on too many values of variables; not all are tried", e.certificate)
			choices = choices[len(choices)-1:]
		}
		next := make([]binding, 0, len(cases)*len(choices))
		for _, c := range choices {
			for _, b := range cases {
				b = maps.Clone(b)
				b[leaf] = c
				next = append(next, b)
			}
		}
		cases = next
	}
	return cases
}

// collect finds the undefined variables in a value, and the keys of the maps that they are the source of.
func (e *expansion) collect(value string, leaves map[string][]string, depth int) {
	if e.steps++; e.steps > maxSteps || depth > maxDepth {
		return
	}
	for _, part := range split(value) {
		leaf := part.variable
		if leaf == "" {
			continue
		}
		set, isSet := e.set(leaf)
		m := e.maps[e.scope.module()+"$"+leaf]
		switch {
		case isSet:
			e.collect(set, leaves, depth+1)
			continue
		case isHost(leaf):
			leaf = host
		case m != nil:
			for _, key := range m.keys {
				e.collect(m.values[key], leaves, depth+1)
			}
			e.collect(m.fallback, leaves, depth+1)
			if leaf = e.sourceLeaf(m); leaf == "" {
				e.collect(m.source, leaves, depth+1)
				continue
			}
			leaves[leaf] = append(leaves[leaf], m.keys...)
			continue
		}
		if leaves[leaf] == nil {
			leaves[leaf] = []string{}
		}
	}
}

// sourceLeaf is the undefined variable that is the source of a map, or the whole source where it is made of several;
// empty where the source is defined itself.
func (e *expansion) sourceLeaf(m *mapping) string {
	parts := split(m.source)
	if len(parts) != 1 {
		return m.source
	}
	name := parts[0].variable
	_, isSet := e.set(name)
	switch {
	case isHost(name):
		return host
	case isSet || e.maps[e.scope.module()+"$"+name] != nil:
		return ""
	}
	return name
}

// choices are what an undefined variable can be; the last may be that nothing is known of it.
func (e *expansion) choices(leaf string, keys []string) []assigned {
	var all []assigned
	if leaf == host {
		for _, name := range e.names {
			if isConcrete(name) {
				all = append(all, assigned{name, true})
			}
		}
		if !e.any && len(all) == len(e.names) {
			return all // These are all that it can be.
		}
	}
	for _, key := range keys {
		known := isConcrete(key)
		if leaf == host && known && !e.fits(key) {
			continue
		}
		all = append(all, assigned{key, known})
	}
	seen := make(map[assigned]bool)
	all = slices.DeleteFunc(all, func(a assigned) bool {
		again := seen[a]
		seen[a] = true
		return again
	})
	return append(all, assigned{})
}

// isConcrete says that the key of a map or a server name is no pattern.
func isConcrete(key string) bool {
	return key != "" && !strings.HasPrefix(key, "~") && !strings.HasPrefix(key, ".") && !strings.Contains(key, "*")
}

// value puts the values of one case into a path.
func (e *expansion) value(value string, b binding, depth int) string {
	if e.steps++; e.steps > maxSteps || depth > maxDepth {
		if e.steps > maxSteps {
			e.fault(e.at, "variables have too many values; not all are tried")
		}
		return unknown
	}
	var out strings.Builder
	for _, part := range split(value) {
		text := part.text
		if part.variable != "" {
			text = e.variable(part.variable, b, depth)
		}
		if out.Len()+len(text) > maxWord {
			return unknown
		}
		out.WriteString(text)
	}
	return out.String()
}

func (e *expansion) variable(name string, b binding, depth int) string {
	if v, ok := e.set(name); ok {
		return e.value(v, b, depth+1)
	}
	if isHost(name) {
		return b[host].path()
	}
	m := e.maps[e.scope.module()+"$"+name]
	if m == nil {
		return b[name].path()
	}
	source := b[e.sourceLeaf(m)]
	if e.sourceLeaf(m) == "" {
		text := e.value(m.source, b, depth+1)
		source = assigned{text, !strings.Contains(text, unknown)}
	}
	return e.value(m.get(e.parser, source), b, depth+1)
}

// path is a in a path.
func (a assigned) path() string {
	if !a.known {
		return unknown
	}
	return a.text
}

// set finds what a set directive gives a variable.
func (e *expansion) set(name string) (string, bool) {
	for s := e.scope; s != nil; s = s.parent {
		if v, ok := s.variables[name]; ok {
			return v, true
		}
	}
	return "", false
}

// found returns a site for each file that the certificate's path of one case fits.
func (e *expansion) found(path string, b binding) []agent.Site {
	pattern := e.full(path)
	files, err := e.glob(escape(pattern))
	if err != nil {
		e.fault(e.at, "the files of the certificate %s cannot be listed: %v", e.certificate, err)
	}
	var sites []agent.Site
	for _, file := range files {
		b := b
		if strings.Contains(pattern, unknown) {
			b = e.bind(b, pattern, file)
		}
		name := b[host]
		if b == nil || name.known && !e.fits(name.text) {
			continue
		}
		site := e.site
		if name.text != "" {
			site.Names = []string{name.text}
		}
		key := e.value(e.key, b, 0)
		if strings.Contains(key, unknown) {
			e.fault(e.at, "which file the key of the certificate %s is cannot be told", file)
			key = ""
		}
		e.onDisk(reference{at: e.at}, &site, file, key)
		sites = append(sites, site)
	}
	return sites
}

// bind finds the variable that makes pattern the path of file, and returns b with its value; nil where the value
// means another file. Where several are not known, b stays as it is.
func (e *expansion) bind(b binding, pattern, file string) binding {
	prefix, _, _ := strings.Cut(pattern, unknown)
	_, suffix, _ := strings.Cut(pattern, unknown)
	suffix, more, several := strings.Cut(suffix, unknown)
	text := strings.TrimPrefix(file, prefix)
	if !several && more == "" {
		text = strings.TrimSuffix(text, suffix)
	} else if n := strings.Index(text, suffix); n > 0 && suffix != "" {
		text = text[:n]
	}
	var open []string
	for _, leaf := range slices.Sorted(maps.Keys(b)) {
		if b[leaf].known {
			continue
		}
		open = append(open, leaf)
		with := maps.Clone(b)
		with[leaf] = assigned{text, true}
		if e.full(e.value(e.certificate, with, 0)) == file {
			return with
		}
	}
	if len(open) == 1 {
		return nil
	}
	return b
}

// escape makes a pattern of a path with unknown parts.
func escape(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		switch {
		case c == unknown[0]:
			b.WriteByte('*')
			continue
		case strings.IndexByte(`*?[\`, c) >= 0:
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// fits says that the server around the directive answers for a name.
func (e *expansion) fits(name string) bool {
	if e.any {
		return true
	}
	for _, n := range e.names {
		if strings.HasPrefix(n, "~") && e.fitsPattern(name, n, true) || fitsName(name, n) {
			return true
		}
	}
	return false
}

// fitsName says that a name is meant by one with or without a wildcard at its beginning or end.
func fitsName(name, pattern string) bool {
	if rest, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, rest) && len(name) > len(rest)
	}
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, rest) && len(name) > len(rest)
	}
	return name == pattern || strings.HasPrefix(pattern, ".") && (strings.HasSuffix(name, pattern) || name == pattern[1:])
}

// fitsPattern says that a name matches a regular expression after "~" or "~*"; otherwise where it is one that only
// nginx's library understands.
func (p *parser) fitsPattern(name, pattern string, otherwise bool) bool {
	re, ok := p.patterns[pattern]
	if !ok {
		re, _ = regexp.Compile("(?i:" + strings.TrimPrefix(strings.TrimPrefix(pattern, "~"), "*") + ")")
		p.patterns[pattern] = re
	}
	if re == nil {
		return otherwise
	}
	return re.MatchString(name)
}

// part is some text of a value, or the name of a variable.
type part struct{ text, variable string }

var variablePattern = regexp.MustCompile(`\$(?:([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\})`)

func split(value string) []part {
	var parts []part
	for value != "" {
		m := variablePattern.FindStringSubmatchIndex(value)
		if m == nil {
			return append(parts, part{text: value})
		}
		if m[0] > 0 {
			parts = append(parts, part{text: value[:m[0]]})
		}
		name := value[m[0]+1 : m[1]]
		parts = append(parts, part{variable: strings.Trim(name, "{}")})
		value = value[m[1]:]
	}
	return parts
}
