// This file asks the servers of a zone for TXT records: what they show, the CA sees; what a cache shows may be old.

package acmesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Zones asks DNS. The zero value asks through the system's resolver.
type Zones struct {
	// Resolver finds the servers of a zone; nil for the system's.
	Resolver *net.Resolver
	// Port is where they answer; "" for 53.
	Port string
}

// askTimeout bounds one question to one server.
const askTimeout = 5 * time.Second

// LookupTXT returns the TXT values of name that every server of its zone shows.
func (z Zones) LookupTXT(ctx context.Context, name string) ([]string, error) {
	servers, err := z.Servers(ctx, name)
	if err != nil {
		return nil, err
	}
	var seen []string
	for i, server := range servers {
		values, err := z.ask(ctx, server, name)
		if notFound := new(net.DNSError); errors.As(err, &notFound) && notFound.IsNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s for %s: %w", server, name, err)
		}
		if i == 0 {
			seen = values
		}
		seen = slices.DeleteFunc(seen, func(v string) bool { return !slices.Contains(values, v) })
	}
	return seen, nil
}

// Servers are the name servers of the zone that name is in.
func (z Zones) Servers(ctx context.Context, name string) ([]string, error) {
	resolver := z.resolver()
	for zone := name; strings.Contains(zone, "."); _, zone, _ = strings.Cut(zone, ".") {
		found, err := resolver.LookupNS(ctx, zone+".")
		if notFound := new(net.DNSError); errors.As(err, &notFound) && notFound.IsNotFound || err == nil && len(found) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("find the name servers of %s: %w", name, err)
		}
		servers := make([]string, 0, len(found))
		for _, ns := range found {
			servers = append(servers, strings.TrimSuffix(ns.Host, "."))
		}
		return servers, nil
	}
	return nil, fmt.Errorf("find the name servers of %s: no zone above it has any", name)
}

func (z Zones) resolver() *net.Resolver {
	if z.Resolver != nil {
		return z.Resolver
	}
	return net.DefaultResolver
}

// ask asks one server.
func (z Zones) ask(ctx context.Context, server, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	addresses, err := z.resolver().LookupHost(ctx, server)
	if err != nil {
		return nil, err
	}
	port := z.Port
	if port == "" {
		port = "53"
	}
	direct := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(addresses[0], port))
	}}
	return direct.LookupTXT(ctx, name+".")
}
