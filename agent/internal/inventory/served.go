// This file compares what is on disk with what is served: a certificate that was renewed and not loaded is one that a
// client still sees expire.

package inventory

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	// mostHandshakes bounds the handshakes of one scan, and handshakesAtOnce those at one time.
	mostHandshakes   = 2000
	handshakesAtOnce = 4
	handshakeTimeout = 3 * time.Second
)

// sight is one handshake that a scan makes.
type sight struct {
	r        *record
	endpoint probe.Endpoint
	leaf     string
	err      error
}

// compare makes a handshake for each record that a running server serves, and notes where another leaf is shown.
// Certificates of two key types at one place are two records: either is right there.
func (l *listing) compare(ctx context.Context, prober agent.Prober) {
	var sights []*sight
	for _, r := range l.records {
		if r.LeafSHA256 == "" || r.root != "" {
			continue
		}
		if e, ok := endpoint(r); ok && len(sights) < mostHandshakes {
			sights = append(sights, &sight{r: r, endpoint: e})
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, handshakesAtOnce)
	for _, s := range sights {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			within, cancel := context.WithTimeout(ctx, handshakeTimeout)
			defer cancel()
			leaf, err := probe.Leaf(within, prober, s.endpoint)
			if s.err = err; err == nil {
				s.leaf = bundle.LeafSHA256(leaf)
			}
		})
	}
	wg.Wait()
	right := map[probe.Endpoint]map[string]bool{}
	for _, s := range sights {
		if right[s.endpoint] == nil {
			right[s.endpoint] = map[string]bool{}
		}
		right[s.endpoint][s.r.LeafSHA256] = true
	}
	for _, s := range sights {
		if s.err == nil && !right[s.endpoint][s.leaf] {
			s.r.problem(apiv1.ProblemNotServed, "%s shows another certificate for %s (leaf %.12s): the file was not loaded",
				s.endpoint.Address, s.endpoint.ServerName, s.leaf)
		}
	}
}

// endpoint is where a client sees the record: the first TCP listener that speaks TLS at once, with a name that a client
// can ask for.
func endpoint(r *record) (probe.Endpoint, bool) {
	for _, site := range r.sites {
		for _, l := range site.Listeners {
			if l.Network != "tcp" || l.ProxyProtocol || l.StartTLS != "" {
				continue
			}
			host, port, err := net.SplitHostPort(l.Address)
			if err != nil {
				continue
			}
			switch host {
			case "", "*", "0.0.0.0":
				host = "127.0.0.1"
			case "::":
				host = "::1"
			}
			for _, name := range site.Names {
				if isName(name) {
					return probe.Endpoint{Address: net.JoinHostPort(host, port), ServerName: name}, true
				}
			}
		}
	}
	return probe.Endpoint{}, false
}
