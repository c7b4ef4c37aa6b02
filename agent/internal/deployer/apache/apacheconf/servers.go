// This file makes sites of virtual hosts: what a host says itself, what it takes over from the server level, and at
// which sockets it is served.

package apacheconf

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

// server is the server level or a virtual host.
type server struct {
	line      line
	addresses []address
	name      string
	aliases   []string
	engine    string // on, off, optional, or empty where nothing is said

	certificates, keys []reference
	chain              reference
	clients            []reference
}

// reference is a file that a directive names.
type reference struct {
	path string
	line line
}

func (r *reader) certificate(l line, args []string) {
	r.server.certificates = append(r.server.certificates, reference{args[0], l})
}

func (r *reader) key(l line, args []string) {
	r.server.keys = append(r.server.keys, reference{args[0], l})
}

func (r *reader) chain(l line, args []string) { r.server.chain = reference{args[0], l} }

func (r *reader) client(l line, args []string) {
	r.server.clients = append(r.server.clients, reference{args[0], l})
}

func (r *reader) clientFolder(l line, args []string) {
	children, isFolder := r.folder(r.absolute(args[0]))
	if !isFolder {
		r.fault(l, "%s is not a folder", args[0])
	}
	for _, child := range children {
		r.client(l, []string{child})
	}
}

// finish makes sites of all that was read.
func (r *reader) finish() *Configuration {
	c := &Configuration{Faults: r.faults}
	main := r.servers[0]
	for _, s := range r.servers {
		for _, reference := range s.certificates {
			c.Certificates = append(c.Certificates, r.absolute(reference.path))
		}
		for _, client := range s.clients {
			path := r.absolute(client.path)
			c.Sites = append(c.Sites, agent.Site{
				Names: s.names(), Certificate: path, Key: path, Format: agent.FormatPEM, Client: true,
				File: client.line.file, Line: client.line.number,
			})
		}
		if s != main {
			s.inherit(main)
		}
		if s.engine == "on" || s.engine == "optional" {
			c.Sites = append(c.Sites, r.sites(s)...)
		}
	}
	slices.Sort(c.Certificates)
	c.Certificates = slices.Compact(c.Certificates)
	c.Faults, c.Notes = r.faults, r.notes
	return c
}

// inherit takes over from the server level what s does not say. Of several certificates each counts for itself: a
// host with one takes over the second of two.
func (s *server) inherit(main *server) {
	if s.engine == "" {
		s.engine = main.engine
	}
	if s.chain.path == "" {
		s.chain = main.chain
	}
	s.certificates = append(s.certificates, main.certificates[min(len(s.certificates), len(main.certificates)):]...)
	s.keys = append(s.keys, main.keys[min(len(s.keys), len(main.keys)):]...)
}

// sites are the certificates of s. The first key file belongs to the first certificate file and so on; a certificate
// without one holds its key itself.
func (r *reader) sites(s *server) []agent.Site {
	names := s.names()
	if i := slices.IndexFunc(names, func(name string) bool { return r.managed[name] }); i >= 0 {
		r.note(s.line, "mod_md gets the certificate of %s itself; the files that SSLCertificateFile names are not used", names[i])
		return nil
	}
	if len(s.certificates) == 0 {
		r.fault(s.line, "SSLEngine is on, but there is no SSLCertificateFile: httpd does not start so")
	}
	var sites []agent.Site
	listeners := r.listeners(s)
	for i, certificate := range s.certificates {
		if strings.HasPrefix(certificate.path, "pkcs11:") {
			r.note(certificate.line, "the certificate is kept in a token, not in a file")
			continue
		}
		site := agent.Site{
			Names: names, Listeners: listeners, Certificate: r.absolute(certificate.path), Format: agent.FormatPEM,
			File: certificate.line.file, Line: certificate.line.number,
		}
		site.Key = site.Certificate
		if i < len(s.keys) {
			site.Key = r.absolute(s.keys[i].path)
		}
		if i < len(s.keys) && strings.HasPrefix(s.keys[i].path, "pkcs11:") {
			r.note(s.keys[i].line, "the key is kept in a token, not in a file")
			site.Key = ""
		}
		if s.chain.path != "" {
			site.Chain = r.absolute(s.chain.path)
		}
		sites = append(sites, site)
	}
	return sites
}

// names are the names of s in lower case, without those that are said twice.
func (s *server) names() []string {
	var names []string
	for _, name := range append([]string{s.name}, s.aliases...) {
		if name = serverName(name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// serverName takes scheme and port from a ServerName, and writes patterns as package agent does.
func serverName(name string) string {
	name = strings.ToLower(name)
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	if host, port, ok := strings.Cut(name, ":"); ok && isPort(port) {
		name = host
	}
	name = strings.TrimSuffix(name, ".")
	if rest, isWildcard := strings.CutPrefix(name, "*."); !strings.ContainsAny(name, "*?") || isWildcard && !strings.ContainsAny(rest, "*?") {
		return name
	}
	pattern := regexp.QuoteMeta(name)
	return "~^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(pattern) + "$"
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// address is a socket: an empty host stands for all addresses, an empty port for all ports.
type address struct{ host, port string }

func (a address) listener() agent.Listener {
	return agent.Listener{Network: "tcp", Address: net.JoinHostPort(a.host, a.port)}
}

// parseAddress reads an address of a <VirtualHost> or a Listen, such as *:443, _default_, [::1]:443 or 443.
func parseAddress(s string) (address, error) {
	host, port := s, ""
	switch end := strings.LastIndexByte(s, ':'); {
	case isPort(s):
		host, port = "*", s
	case end >= 0 && !strings.HasSuffix(s, "]"):
		host, port = s[:end], s[end+1:]
	}
	if port == "*" {
		port = ""
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(bare)
	switch {
	case port != "" && !isPort(port), host == "", err != nil && strings.ContainsAny(host, ":[]"), err == nil && ip.Is6() && host == bare:
		return address{}, fmt.Errorf("%q is not an address", clip(s))
	case host == "*", strings.EqualFold(host, "_default_"), err == nil && ip.IsUnspecified():
		return address{"", port}, nil
	case err == nil:
		return address{ip.String(), port}, nil
	}
	return address{strings.ToLower(host), port}, nil
}

// listen notes one socket; what follows the address (https, options=…) only names a default.
func (r *reader) listen(l line, args []string) {
	a, err := parseAddress(args[0])
	if err != nil || a.port == "" {
		r.note(l, "read Listen: %q is not an address with a port", clip(args[0]))
		return
	}
	r.listens = append(r.listens, a)
}

// listeners are the sockets at which s is served: those that both a Listen and the virtual host name. The server
// level has those that no virtual host takes whole.
func (r *reader) listeners(s *server) []agent.Listener {
	var all []agent.Listener
	add := func(a address) {
		if listener := a.listener(); !slices.Contains(all, listener) {
			all = append(all, listener)
		}
	}
	for _, l := range r.listens {
		if s == r.servers[0] {
			if !slices.ContainsFunc(r.servers[1:], func(host *server) bool { return host.takes(l) }) {
				add(l)
			}
			continue
		}
		for _, a := range s.addresses {
			if common, ok := a.meet(l); ok {
				add(common)
			}
		}
	}
	return all
}

func (s *server) takes(l address) bool {
	return slices.ContainsFunc(s.addresses, func(a address) bool {
		return (a.host == "" || a.host == l.host) && (a.port == "" || a.port == l.port)
	})
}

// meet is the part of a that the socket l serves. A host name may mean any address.
func (a address) meet(l address) (address, bool) {
	if a.port != "" && a.port != l.port {
		return address{}, false
	}
	_, err := netip.ParseAddr(a.host)
	switch {
	case a.host == "" || a.host == l.host:
		return l, true
	case l.host == "":
		return address{a.host, l.port}, true
	case err != nil:
		return l, true
	}
	return address{}, false
}
