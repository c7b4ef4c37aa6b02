// This file reads "bind" and "server" lines and the addresses in them.

package haproxyconf

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

// maxPorts bounds the listeners of one line: a range of ports is one each.
const maxPorts = 64

// valued are the parameters of bind and server that a value follows, which is no parameter itself.
var valued = set(`accept-netscaler-cip addr agent-addr agent-inter agent-port agent-send alpn backlog ca-file ca-ignore-err
	ca-sign-file ca-sign-pass ca-verify-file cc check-alpn check-proto check-sni ciphers ciphersuites client-sigalgs cookie
	crl-file crt-ignore-err curves downinter ecdhe error-limit expose-fd fall fastinter gid group guid guid-prefix hash-key id
	idle-ping init-addr init-state inter interface label level log-proto max-reuse maxconn maxqueue minconn mode mss name
	namespace nice npn observe on-error on-marked-down on-marked-up pool-conn-name pool-low-conn pool-max-conn
	pool-purge-delay port process proto proxy-v2-options quic-cc-algo quic-socket redir resolve-net resolve-opts
	resolve-prefer resolvers rise set-proxy-v2-tlv-fmt severity-output shard shards sigalgs slowstart sni socks4 source
	ssl-max-ver ssl-min-ver tcp-md5sig tcp-ut thread tls-tickets-key tls-ticket-keys track uid user usesrc verify verifyhost
	weight ws`)

func set(s string) map[string]bool {
	m := make(map[string]bool)
	for w := range strings.FieldsSeq(s) {
		m[w] = true
	}
	return m
}

// parameters are those of a line that matter here.
type parameters struct {
	ssl, acceptProxy bool
	certificates     []string
	lists            []string
}

func (p *parser) parameters(words []word) parameters {
	var found parameters
	for i := 0; i < len(words); i++ {
		keyword := words[i].text
		switch {
		case keyword == "ssl":
			found.ssl = true
		case keyword == "no-ssl":
			found.ssl = false
		case keyword == "accept-proxy":
			found.acceptProxy = true
		case keyword == "crt" || keyword == "default-crt":
			i++
			if path := p.usable(keyword, words, i); path != "" {
				found.certificates = append(found.certificates, path)
			}
		case keyword == "crt-list":
			i++
			if path := p.usable(keyword, words, i); path != "" {
				found.lists = append(found.lists, path)
			}
		case valued[keyword]:
			i++
		}
	}
	return found
}

func (p *parser) bind(words []word) {
	if len(words) < 2 {
		p.fault("bind names no address")
		return
	}
	found := p.parameters(slices.Concat(p.section.defaults, words[2:]))
	if len(found.certificates)+len(found.lists) == 0 {
		return
	}
	if !found.ssl {
		p.fault("bind names a certificate and not the word ssl: no TLS is spoken here")
		return
	}
	var listeners []agent.Listener
	if address := p.usable("bind", words, 1); address != "" {
		listeners = p.listeners(address, found.acceptProxy)
	}
	for _, path := range found.certificates {
		p.use(path, listeners, nil, false)
	}
	for _, path := range found.lists {
		for _, e := range p.list(absolute(p.dir, path)) {
			if p.full() {
				return
			}
			p.useEntry(e, listeners)
		}
	}
}

func (p *parser) server(words []word) {
	for _, path := range p.parameters(words[1:]).certificates {
		p.use(path, nil, nil, true)
	}
}

func (p *parser) listeners(spec string, proxyProtocol bool) []agent.Listener {
	var all []agent.Listener
	for part := range strings.SplitSeq(spec, ",") {
		some, err := listen(part, p.unixPrefix)
		if err != nil {
			p.fault("bind %q: %v", part, err)
		}
		all = append(all, some...)
		if len(all) > maxPorts {
			p.fault("bind: more than %d ports; the others are left out", maxPorts)
			all = all[:maxPorts]
			break
		}
	}
	for i := range all {
		all[i].ProxyProtocol = proxyProtocol
	}
	return all
}

// listen reads one address, such as ":443", "quic4@*:443", "[::1]:8000-8010", "unix@/run/x.sock" or "abns@x". An
// inherited socket has no address that could be known here.
func listen(spec, unixPrefix string) ([]agent.Listener, error) {
	network := "tcp"
	family, address, ok := strings.Cut(spec, "@")
	if !ok {
		family, address = "", spec
	}
	family = strings.TrimPrefix(strings.TrimPrefix(family, "stream+"), "dgram+")
	switch family {
	case "", "ipv4", "ipv6", "tcp", "tcp4", "tcp6", "mptcp", "mptcp4", "mptcp6":
	case "udp", "udp4", "udp6", "quic4", "quic6", "quic":
		network = "udp"
	case "unix", "uxst", "uxdg":
		return []agent.Listener{{Network: "unix", Address: filepath.Clean(unixPrefix + address)}}, nil
	case "abns", "abnsz":
		return []agent.Listener{{Network: "unix", Address: "@" + address}}, nil
	case "fd", "sockpair", "rhttp", "rev":
		return nil, nil
	default:
		return nil, fmt.Errorf("the address family %q is not known", family)
	}
	if strings.HasPrefix(address, "/") {
		return []agent.Listener{{Network: "unix", Address: filepath.Clean(unixPrefix + address)}}, nil
	}
	return ports(network, family, address)
}

func ports(network, family, address string) ([]agent.Listener, error) {
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return nil, errors.New("it has no port")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(address[:colon], "["), "]")
	if host == "*" {
		host = ""
	}
	if host == "" && strings.HasSuffix(family, "6") {
		host = "::"
	}
	low, high, isRange := strings.Cut(address[colon+1:], "-")
	first, err1 := strconv.ParseUint(low, 10, 16)
	last, err2 := first, error(nil)
	if isRange {
		last, err2 = strconv.ParseUint(high, 10, 16)
	}
	if err := cmp.Or(err1, err2); err != nil || first == 0 || last < first {
		return nil, fmt.Errorf("%q is no port and no range of ports", address[colon+1:])
	}
	var all []agent.Listener
	for port := first; port <= last && len(all) <= maxPorts; port++ {
		all = append(all, agent.Listener{Network: network, Address: net.JoinHostPort(host, strconv.FormatUint(port, 10))})
	}
	return all, nil
}
