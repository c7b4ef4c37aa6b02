// This file decides which handshakes prove a deployment, and waits for them.

package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/bundle"
)

const (
	// consecutive handshakes must show the wanted leaf: old worker processes answer for up to a second after
	// a reload, in turn with the new ones.
	consecutive = 4
	// defaultBudget is how long Await waits for the wanted leaf.
	defaultBudget = 15 * time.Second
	firstPause    = 20 * time.Millisecond
	longestPause  = 320 * time.Millisecond
)

// Endpoint is one thing to look at: an address, and the server name to send.
type Endpoint struct {
	Address    string `json:"address"`
	ServerName string `json:"server_name"`
}

// Endpoints lists what proves a certificate for names at t: every address with every server name.
func Endpoints(t agent.Target, names []string) []Endpoint {
	if len(t.Probe.ServerNames) > 0 {
		names = t.Probe.ServerNames
	}
	var list []Endpoint
	for _, address := range t.Probe.Addresses {
		for _, name := range names {
			e := Endpoint{Address: address, ServerName: Concrete(name)}
			if !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	return list
}

// Concrete makes a server name out of a wildcard: a client never sends "*.example.com".
func Concrete(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		return "certferry-probe." + rest
	}
	return name
}

// Budget is how long to wait for the new leaf at t.
func Budget(t agent.Target) time.Duration {
	if t.Probe.Timeout > 0 {
		return t.Probe.Timeout
	}
	return defaultBudget
}

// Leaf makes one handshake and returns the leaf that came.
func Leaf(ctx context.Context, p agent.Prober, e Endpoint) (*x509.Certificate, error) {
	cs, err := p.Probe(ctx, e.Address, e.ServerName)
	if err != nil {
		return nil, err
	}
	return leafOf(cs)
}

// Await makes fresh handshakes with e until four in a row show the leaf whose SHA-256 is want, or until ctx is
// done. It returns the leaf seen last, if any; the error says what was seen instead.
func Await(ctx context.Context, p agent.Prober, e Endpoint, want string) (seen string, err error) {
	pause := firstPause
	for hits := 0; hits < consecutive; {
		leaf, err := Leaf(ctx, p, e)
		if err == nil {
			seen = bundle.LeafSHA256(leaf)
		}
		if err == nil && seen == want {
			hits++
			continue
		}
		hits = 0
		if !rest(ctx, pause) {
			return seen, notSeen(e, want, seen, err)
		}
		pause = min(2*pause, longestPause)
	}
	return seen, nil
}

func notSeen(e Endpoint, want, seen string, err error) error {
	if err != nil {
		return fmt.Errorf("wait for leaf %s: %w", short(want), err)
	}
	return fmt.Errorf("%s as %q still serves leaf %s, not %s", e.Address, e.ServerName, short(seen), short(want))
}

// rest waits for d and answers false if ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func short(hash string) string { return hash[:min(12, len(hash))] }
