// This file reads listen directives, and tells which sockets speak TLS.

package nginxconf

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

// listen is one socket of one server.
type listen struct {
	network, address string
	port             int
	tls, proxy       bool
	isDefault        bool
}

// parseListen reads the words of a listen directive after its name. A range of ports is several sockets.
func (p *parser) parseListen(args []string, at position) []listen {
	l := listen{network: "tcp"}
	for _, option := range args[1:] {
		switch option {
		case "ssl":
			l.tls = true
		case "quic", "http3":
			l.network, l.tls = "udp", true
		case "udp":
			l.network = "udp"
		case "proxy_protocol":
			l.proxy = true
		case "default_server", "default":
			l.isDefault = true
		}
	}
	if socket, ok := strings.CutPrefix(args[0], "unix:"); ok {
		l.network, l.address = "unix", socket
		return []listen{l}
	}
	host, ports := splitAddress(args[0])
	if slices.Contains(args, "ipv6only=off") && host == "::" {
		host = ""
	}
	low, high, isRange := strings.Cut(ports, "-")
	first, err := strconv.ParseUint(low, 10, 16)
	last := first
	if isRange && err == nil {
		last, err = strconv.ParseUint(high, 10, 16)
	}
	if err != nil || last < first || last-first >= maxPorts {
		p.fault(at, "listen %q is no address", args[0])
		return nil
	}
	all := make([]listen, 0, last-first+1)
	for port := int(first); port <= int(last); port++ {
		l.address, l.port = net.JoinHostPort(host, strconv.Itoa(port)), port
		all = append(all, l)
	}
	return all
}

// splitAddress splits what nginx takes as an address: a port alone, or a host with or without a port, which is 80
// then. The host is empty for all IPv4 addresses.
func splitAddress(s string) (host, port string) {
	if strings.Trim(s, "0123456789-") == "" {
		return "", s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), "80"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	}
	if host == "*" || host == "0.0.0.0" {
		host = ""
	}
	return strings.ToLower(host), port
}

// socket is a socket that servers share.
type socket struct{ module, network, address string }

func (s *scope) socket(l listen) socket { return socket{s.module(), l.network, l.address} }

// socketsOf returns what the servers say of their sockets together: one that says "ssl" or "proxy_protocol" says it
// for all at the same address.
func socketsOf(servers []*scope) map[socket]listen {
	sockets := make(map[socket]listen)
	for _, s := range servers {
		for _, l := range s.listens {
			all := sockets[s.socket(l)]
			all.tls = all.tls || l.tls
			all.proxy = all.proxy || l.proxy
			sockets[s.socket(l)] = all
		}
	}
	return sockets
}

// served returns the sockets at which a server shows its certificates.
func (s *scope) served(sockets map[socket]listen) []agent.Listener {
	if s.setting("ssl_reject_handshake") == "on" {
		return nil
	}
	var served []agent.Listener
	for _, l := range s.listens {
		all := sockets[s.socket(l)]
		found := agent.Listener{Network: l.network, Address: l.address, ProxyProtocol: all.proxy}
		switch {
		case all.tls || s.setting("ssl") == "on":
		case s.module() == "mail" && slices.Contains([]string{"on", "only"}, s.setting("starttls")):
			found.StartTLS = s.mailProtocol(l.port)
		default:
			continue
		}
		if !slices.Contains(served, found) {
			served = append(served, found)
		}
	}
	return served
}

// mailProtocol is the protocol of a mail server; nginx guesses it by the port where it is not told.
func (s *scope) mailProtocol(port int) string {
	if protocol := s.setting("protocol"); protocol != "" {
		return protocol
	}
	switch port {
	case 143, 993:
		return "imap"
	case 110, 995:
		return "pop3"
	}
	return "smtp"
}
