// This file keeps what the blocks of a configuration say of certificates: nginx's contexts and their inheritance.

package nginxconf

import (
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

const numPairs = 7

// pairs are the directives that name a certificate; that of its key is the same with "_key".
var pairs = [numPairs]struct {
	certificate string
	client      bool
}{
	{certificate: "ssl_certificate"},
	{certificate: "ssl_sign_certificate"}, // Tengine with SM2: one pair to sign, one to encrypt
	{certificate: "ssl_enc_certificate"},
	{certificate: "proxy_ssl_certificate", client: true},
	{certificate: "grpc_ssl_certificate", client: true},
	{certificate: "uwsgi_ssl_certificate", client: true},
	{certificate: "zone_sync_ssl_certificate", client: true},
}

// reference is a value that a directive names, not yet made absolute.
type reference struct {
	value string
	at    position
}

// scope is one block of nginx's contexts: main, http, stream, mail, server, location and others.
type scope struct {
	// kind is the directive that opened the block, "" for main.
	kind   string
	parent *scope
	// certificates and keys are by the index of pairs; nginx inherits them apart, and only as a whole.
	certificates, keys *[numPairs][]reference
	// settings are the other directives that matter, by name; the last one holds.
	settings  map[string]string
	names     []string
	hasName   map[string]bool
	listens   []listen
	variables map[string]string
	// used says which of pairs a server inherits or shows.
	used [numPairs]bool
}

var _ block = (*scope)(nil)

// module is the outermost block around a scope: http, stream or mail.
func (s *scope) module() string {
	for s.parent != nil && s.parent.parent != nil {
		s = s.parent
	}
	return s.kind
}

// isServer says that s is a virtual server, and not a server of an upstream block, which has no content.
func (s *scope) isServer() bool {
	return s.kind == "server" && s.parent.parent != nil && s.parent.parent.parent == nil
}

// enter implements block.
func (s *scope) enter(p *parser, words []string, at position) block {
	switch words[0] {
	case "types", "charset_map":
		return ignored{}
	case "map", "geo", "split_clients":
		return newMapping(p, s.module(), words)
	}
	if strings.HasPrefix(words[0], "ssl_certificate_by_lua") {
		s.directive(p, words, at)
	}
	return &scope{kind: words[0], parent: s}
}

// directive implements block.
func (s *scope) directive(p *parser, words []string, at position) {
	name, args := words[0], words[1:]
	if strings.HasPrefix(name, "ssl_certificate_by_lua") {
		p.fault(at, "Lua code chooses certificates here; which ones cannot be read from the configuration")
		return
	}
	if len(args) == 0 {
		return
	}
	switch name {
	case "ssl", "ssl_reject_handshake", "starttls", "protocol":
		s.set(name, args[0])
	case "ssl_stapling_file":
		p.fault(at, "the OCSP response is read from %s and stays that of the old certificate after a renewal", args[0])
	case "server_name":
		for _, a := range args {
			s.addNames(p.serverNames(a, at))
		}
	case "listen":
		s.listens = append(s.listens, p.parseListen(args, at)...)
	case "set":
		if len(args) == 2 {
			if s.variables == nil {
				s.variables = make(map[string]string)
			}
			s.variables[strings.TrimPrefix(args[0], "$")] = args[1]
		}
	default:
		s.pair(name, reference{args[0], at})
	}
}

// pair keeps a certificate or a key.
func (s *scope) pair(name string, r reference) {
	if !strings.Contains(name, "ssl_") {
		return
	}
	name, isKey := strings.CutSuffix(name, "_key")
	for i := range pairs {
		if pairs[i].certificate != name {
			continue
		}
		list := &s.certificates
		if isKey {
			list = &s.keys
		}
		if *list == nil {
			*list = new([numPairs][]reference)
		}
		(*list)[i] = append((*list)[i], r)
	}
}

func (s *scope) set(name, value string) {
	if s.settings == nil {
		s.settings = make(map[string]string)
	}
	s.settings[name] = value
}

// leave implements block.
func (s *scope) leave(p *parser) {
	if s.isServer() {
		p.servers = append(p.servers, s)
	}
	if s.certificates != nil {
		p.holders = append(p.holders, s)
	}
}

// setting is the value of a directive in s or the blocks around it.
func (s *scope) setting(name string) string {
	for ; s != nil; s = s.parent {
		if v, ok := s.settings[name]; ok {
			return v
		}
	}
	return ""
}

// certificatesOf returns the certificates of one of pairs that hold in s, and the scope that names them.
func (s *scope) certificatesOf(pair int) ([]reference, *scope) {
	for ; s != nil; s = s.parent {
		if s.certificates != nil && len(s.certificates[pair]) > 0 {
			return s.certificates[pair], s
		}
	}
	return nil, nil
}

func (s *scope) keysOf(pair int) []reference {
	for ; s != nil; s = s.parent {
		if s.keys != nil && len(s.keys[pair]) > 0 {
			return s.keys[pair]
		}
	}
	return nil
}

// allNames are the names of a virtual server; one of mail servers may stand in the block around.
func (s *scope) allNames() []string {
	for ; s != nil; s = s.parent {
		if len(s.names) > 0 {
			return s.names
		}
	}
	return nil
}

func (s *scope) addNames(names []string) {
	if s.hasName == nil {
		s.hasName = make(map[string]bool)
	}
	for _, n := range names {
		if !s.hasName[n] {
			s.hasName[n] = true
			s.names = append(s.names, n)
		}
	}
}

// serverNames are the names that one word of a server_name directive means.
func (p *parser) serverNames(word string, at position) []string {
	if strings.HasPrefix(word, "~") {
		return []string{word}
	}
	word = strings.ToLower(word)
	if word == "$hostname" {
		data, err := p.readFile("/etc/hostname")
		word = strings.ToLower(strings.TrimSpace(string(data[:min(len(data), 256)])))
		if err != nil || word == "" || strings.ContainsAny(word, " \n\r\t") {
			p.fault(at, "the server's name is that of the machine, which cannot be read")
			return nil
		}
	}
	base, dotted := strings.CutPrefix(word, ".")
	switch {
	case word == "" || word == "_":
		return nil
	case dotted:
		return []string{base, "*." + base}
	}
	return []string{word}
}

// ignored is a block of data.
type ignored struct{}

func (ignored) directive(*parser, []string, position)   {}
func (ignored) enter(*parser, []string, position) block { return ignored{} }
func (ignored) leave(*parser)                           {}

// makeSites turns what was read into sites.
func (p *parser) makeSites() {
	sockets := socketsOf(p.servers)
	for _, s := range p.servers {
		served := s.served(sockets)
		for i := range pairs {
			certificates, holder := s.certificatesOf(i)
			if pairs[i].client || holder == nil || holder != s && len(served) == 0 {
				continue
			}
			holder.used[i] = true
			p.addPairs(s, certificates, i, agent.Site{Names: s.allNames(), Listeners: served})
		}
	}
	for _, s := range p.holders {
		for i := range pairs {
			if pairs[i].client || !s.used[i] {
				p.addPairs(s, s.certificates[i], i, agent.Site{Client: pairs[i].client})
			}
		}
	}
}

// addPairs adds a site for each certificate that s shows; its key is the one in the same place of the other list.
func (p *parser) addPairs(s *scope, certificates []reference, pair int, site agent.Site) {
	keys := s.keysOf(pair)
	for i, c := range certificates {
		if c.value == "" {
			continue // Nothing is inherited then.
		}
		site.File, site.Line, site.Format = c.at.file, c.at.line, agent.FormatPEM
		key := ""
		if i < len(keys) {
			key = keys[i].value
		}
		if key == "" {
			p.fault(c.at, "the certificate has no %s_key", pairs[pair].certificate)
		}
		if len(p.sites) >= maxSites {
			p.fault(c.at, "there are more than %d uses of certificates; the rest is not told", maxSites)
			return
		}
		if strings.Contains(c.value+key, "$") {
			p.expand(s, site, c.value, key)
			continue
		}
		if p.onDisk(c, &site, c.value, key) {
			p.sites = append(p.sites, site)
		}
	}
}

// onDisk sets the paths of a site; false says that its certificate is in no file.
func (p *parser) onDisk(c reference, site *agent.Site, certificate, key string) bool {
	if strings.HasPrefix(certificate, "data:") {
		p.fault(c.at, "the certificate stands in a variable and not in a file")
		return false
	}
	site.Certificate, site.Key = p.full(certificate), ""
	kind, _, special := strings.Cut(key, ":")
	switch {
	case special && slices.Contains([]string{"data", "engine", "store"}, kind):
		p.fault(c.at, "the certificate's key is in no file (%s:)", kind)
	case key != "":
		site.Key = p.full(key)
	}
	return true
}
