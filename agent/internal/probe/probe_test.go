package probe_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

// serve answers handshakes with cfg and returns the address.
func serve(t *testing.T, cfg *tls.Config) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if cfg != nil {
					_ = tls.Server(conn, cfg).Handshake()
				}
			}()
		}
	}()
	return l.Addr().String()
}

func pair(b *bundle.Bundle) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{b.Leaf.Raw}, PrivateKey: b.Key}
}

// TestProbe sees a leaf only where the server proved that it has the key.
func TestProbe(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	good, other := ca.Issue(t, "www.example.com"), ca.Issue(t, "www.example.com")
	swapped := pair(good)
	swapped.PrivateKey = other.Key

	tests := []struct {
		name   string
		cfg    *tls.Config
		wanted bool
	}{
		{name: "plain", cfg: &tls.Config{Certificates: []tls.Certificate{pair(good)}}, wanted: true},
		{name: "TLS 1.2", cfg: &tls.Config{Certificates: []tls.Certificate{pair(good)}, MaxVersion: tls.VersionTLS12}, wanted: true},
		{name: "client certificate wanted", cfg: &tls.Config{Certificates: []tls.Certificate{pair(good)}, ClientAuth: tls.RequireAnyClientCert}, wanted: true},
		{name: "client certificate wanted, TLS 1.2", cfg: &tls.Config{Certificates: []tls.Certificate{pair(good)}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}, wanted: true},
		{name: "foreign key", cfg: &tls.Config{Certificates: []tls.Certificate{swapped}}},
		{name: "foreign key, TLS 1.2", cfg: &tls.Config{Certificates: []tls.Certificate{swapped}, MaxVersion: tls.VersionTLS12}},
		{name: "no certificate", cfg: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }}},
		{name: "no TLS", cfg: nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cs, err := new(probe.Prober).Probe(t.Context(), serve(t, tt.cfg), "www.example.com")
			if got := err == nil && bundle.LeafSHA256(cs.PeerCertificates[0]) == good.LeafSHA256(); got != tt.wanted {
				t.Errorf("seen: %v, want %v; error: %v", got, tt.wanted, err)
			}
		})
	}
}

// TestProbeGivesUp on a server that says nothing, and on none.
func TestProbeGivesUp(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // Nobody accepts.
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	p := &probe.Prober{Timeout: 50 * time.Millisecond}
	if _, err := p.Probe(t.Context(), l.Addr().String(), "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent server: %v", err)
	}
	if _, err := p.Probe(t.Context(), deployertest.FreeAddress(t), "x"); err == nil || !strings.Contains(err.Error(), "connect to") {
		t.Errorf("no server: %v", err)
	}
}

// TestEndpoints: every address with every name, once.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		probe agent.Probe
		names []string
		want  []probe.Endpoint
	}{
		{name: "none", names: []string{"a.test"}},
		{
			name: "certificate's names", probe: agent.Probe{Addresses: []string{"127.0.0.1:1", "[::1]:1"}}, names: []string{"a.test", "*.a.test"},
			want: []probe.Endpoint{{"127.0.0.1:1", "a.test"}, {"127.0.0.1:1", "certferry-probe.a.test"}, {"[::1]:1", "a.test"}, {"[::1]:1", "certferry-probe.a.test"}},
		},
		{
			name: "policy's names", probe: agent.Probe{Addresses: []string{"127.0.0.1:1", "127.0.0.1:1"}, ServerNames: []string{"b.test"}}, names: []string{"a.test"},
			want: []probe.Endpoint{{"127.0.0.1:1", "b.test"}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := probe.Endpoints(agent.Target{Probe: tt.probe}, tt.names); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestBudget is 15 seconds unless the policy says otherwise.
func TestBudget(t *testing.T) {
	t.Parallel()
	if got := probe.Budget(agent.Target{}); got != 15*time.Second {
		t.Errorf("default %s", got)
	}
	if got := probe.Budget(agent.Target{Probe: agent.Probe{Timeout: time.Minute}}); got != time.Minute {
		t.Errorf("own %s", got)
	}
}

// script answers with the leaves in turn, the last for ever; nil is an error.
type script struct {
	leaves []*x509.Certificate
	asked  atomic.Int64
}

func (s *script) Probe(context.Context, string, string) (tls.ConnectionState, error) {
	leaf := s.leaves[min(int(s.asked.Add(1)), len(s.leaves))-1]
	if leaf == nil {
		return tls.ConnectionState{}, errors.New("refused")
	}
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, nil
}

// TestAwait wants four in a row.
func TestAwait(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	older, newer := ca.Issue(t, "a.test").Leaf, ca.Issue(t, "a.test").Leaf
	tests := []struct {
		name   string
		leaves []*x509.Certificate
		asked  int64
		seen   *x509.Certificate
		want   string
	}{
		{name: "at once", leaves: []*x509.Certificate{newer}, asked: 4, seen: newer},
		{name: "old worker in between", leaves: []*x509.Certificate{newer, newer, newer, older, newer}, asked: 8, seen: newer},
		{name: "starting", leaves: []*x509.Certificate{nil, nil, newer}, asked: 6, seen: newer},
		{name: "never", leaves: []*x509.Certificate{older}, seen: older, want: "still serves"},
		{name: "down", leaves: []*x509.Certificate{nil}, want: "refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				s := &script{leaves: tt.leaves}
				seen, err := probe.Await(ctx, s, probe.Endpoint{Address: "a:1", ServerName: "a.test"}, bundle.LeafSHA256(newer))
				if tt.seen == nil && seen != "" || tt.seen != nil && seen != bundle.LeafSHA256(tt.seen) {
					t.Errorf("seen %q", seen)
				}
				if tt.asked != 0 && s.asked.Load() != tt.asked {
					t.Errorf("asked %d times, want %d", s.asked.Load(), tt.asked)
				}
				if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			})
		})
	}
}

type nothing struct{}

func (nothing) Probe(context.Context, string, string) (tls.ConnectionState, error) {
	return tls.ConnectionState{}, nil
}

// TestLeafWithoutCertificate: a prober that shows nothing is an error, not a leaf.
func TestLeafWithoutCertificate(t *testing.T) {
	t.Parallel()
	if _, err := probe.Leaf(t.Context(), nothing{}, probe.Endpoint{}); err == nil {
		t.Error("a leaf out of nothing")
	}
}
