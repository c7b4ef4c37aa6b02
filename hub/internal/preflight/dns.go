// This file asks DNS: resolvers as the CA would ask its own, and the servers of a zone directly.

package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// askTimeout bounds one question to one server.
	askTimeout = 3 * time.Second
	// udpSize is what DNS Flag Day 2020 settled on, in bytes.
	udpSize = 1232
	// maxServers bounds how many servers of a zone are asked.
	maxServers = 8
)

// errSilent says that no resolver answers, which says nothing about the name.
var errSilent = errors.New("no DNS resolver of the hub answers")

// DNS says whom to ask.
type DNS struct {
	// Resolvers are addresses with ports, asked in turn.
	Resolvers []string
	// Port is where the servers of zones answer; "" for 53.
	Port string
}

// SystemDNS asks the resolvers of a file such as /etc/resolv.conf.
func SystemDNS(file string) (*DNS, error) {
	cfg, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return nil, fmt.Errorf("read DNS resolvers: %w", err)
	}
	d := &DNS{}
	for _, server := range cfg.Servers {
		d.Resolvers = append(d.Resolvers, net.JoinHostPort(server, cfg.Port))
	}
	return d, nil
}

// ask asks the resolvers for records; they follow aliases. An answer that is no answer (SERVFAIL) is returned where no
// other resolver has a better one.
func (d *DNS) ask(ctx context.Context, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
	var last *dns.Msg
	for _, server := range d.Resolvers {
		answer, err := exchange(ctx, server, question)
		if err != nil {
			continue
		}
		if answer.Rcode == dns.RcodeSuccess || answer.Rcode == dns.RcodeNameError {
			return answer, nil
		}
		last = answer
	}
	if last != nil {
		return last, nil
	}
	return nil, errSilent
}

// exchange asks one server, over TCP where the answer is too long for UDP.
func exchange(ctx context.Context, server string, question *dns.Msg) (*dns.Msg, error) {
	question = question.Copy()
	question.Id = dns.Id()
	question.SetEdns0(udpSize, false)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, _, err := (&dns.Client{Net: "udp", UDPSize: udpSize}).ExchangeContext(ctx, question, server)
	if err == nil && answer.Truncated {
		answer, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(ctx, question, server)
	}
	return answer, err
}

// lookup is the outcome of a question for addresses.
type lookup struct {
	addresses []netip.Addr
	// broken says that a resolver could not answer; missing that there is no such name.
	broken, missing bool
}

// addresses finds all addresses of a name.
func (d *DNS) addresses(ctx context.Context, name string) (found lookup, err error) {
	for _, kind := range []uint16{dns.TypeAAAA, dns.TypeA} {
		answer, err := d.ask(ctx, name, kind)
		if err != nil {
			return found, err
		}
		found.broken = found.broken || answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError
		found.missing = found.missing || answer.Rcode == dns.RcodeNameError
		for _, record := range answer.Answer {
			var ip net.IP
			switch r := record.(type) {
			case *dns.A:
				ip = r.A
			case *dns.AAAA:
				ip = r.AAAA
			}
			if address, ok := netip.AddrFromSlice(ip); ok {
				found.addresses = append(found.addresses, address.Unmap())
			}
		}
	}
	return found, nil
}

// alias follows the aliases of a name itself, and answers where the last one leads; empty for none.
func (d *DNS) alias(ctx context.Context, name string) (string, error) {
	target := ""
	for range 8 { // longer chains are not followed by CAs either
		answer, err := d.ask(ctx, name, dns.TypeCNAME)
		if err != nil {
			return "", err
		}
		next := ""
		for _, record := range answer.Answer {
			if r, ok := record.(*dns.CNAME); ok && same(r.Hdr.Name, name) {
				next = strings.ToLower(strings.TrimSuffix(r.Target, "."))
			}
		}
		if next == "" {
			return target, nil
		}
		target, name = next, next
	}
	return target, nil
}

// zone finds the zone that a name is in, and its servers.
func (d *DNS) zone(ctx context.Context, name string) (zone string, servers []string, err error) {
	for zone := name; zone != ""; zone = parent(zone) {
		answer, err := d.ask(ctx, zone, dns.TypeNS)
		if err != nil {
			return "", nil, err
		}
		for _, record := range answer.Answer {
			if r, ok := record.(*dns.NS); ok && same(r.Hdr.Name, zone) {
				servers = append(servers, strings.ToLower(strings.TrimSuffix(r.Ns, ".")))
			}
		}
		if len(servers) > 0 {
			slices.Sort(servers)
			return zone, servers[:min(len(servers), maxServers)], nil
		}
	}
	return "", nil, nil
}

// serves says why a server does not answer for a zone; empty where it does.
func (d *DNS) serves(ctx context.Context, server, zone string) (fault string, err error) {
	found, err := d.addresses(ctx, server)
	if err != nil {
		return "", err
	}
	if len(found.addresses) == 0 {
		return "has no address", nil
	}
	port := d.Port
	if port == "" {
		port = "53"
	}
	question := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
	question.RecursionDesired = false
	fault = "does not answer"
	for _, address := range found.addresses {
		answer, err := exchange(ctx, net.JoinHostPort(address.String(), port), question)
		switch {
		case err != nil:
		case answer.Rcode == dns.RcodeSuccess && answer.Authoritative:
			return "", nil
		default:
			fault = "does not know the zone"
		}
	}
	return fault, nil
}

// caa finds the CAA records that hold for a name: those of the nearest name up the tree that has any (RFC 8659 §3).
// broken names a name whose records could not be looked up: a CA must not issue then.
func (d *DNS) caa(ctx context.Context, name string) (at string, records []*dns.CAA, broken string, err error) {
	for at = name; at != ""; at = parent(at) {
		answer, err := d.ask(ctx, at, dns.TypeCAA)
		if err != nil {
			return "", nil, "", err
		}
		if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
			return "", nil, at, nil
		}
		for _, record := range answer.Answer {
			if r, ok := record.(*dns.CAA); ok {
				records = append(records, r)
			}
		}
		if len(records) > 0 {
			return at, records, "", nil
		}
	}
	return "", nil, "", nil
}

func parent(name string) string {
	_, up, _ := strings.Cut(name, ".")
	return up
}

func same(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
