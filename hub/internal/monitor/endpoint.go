// This file looks at endpoints that operators listed: what do they show, and would a client take it?

package monitor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub"
)

const (
	probeEvery   = time.Hour
	probeRetry   = 5 * time.Minute
	probeTimeout = 10 * time.Second
	probesAtOnce = 32
	probeBatch   = 200
	// probeFailures is after how many failures in a row somebody is told: networks have hiccups.
	probeFailures = 3
)

// Endpoints keeps what operators listed.
type Endpoints interface {
	DueEndpoints(ctx context.Context, now time.Time, limit int) ([]hub.Endpoint, error)
	SetProbed(ctx context.Context, name string, failures int64, next time.Time) error
}

// Probe returns the certificates that an endpoint shows, the leaf first.
type Probe func(ctx context.Context, e hub.Endpoint) ([]*x509.Certificate, error)

// errForbidden is for addresses at which machines keep what is only for themselves.
var errForbidden = errors.New("link-local addresses are not looked at")

// Dial is a Probe over the network. What it shows is not judged here.
func Dial(ctx context.Context, e hub.Endpoint) ([]*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	dialer := &tls.Dialer{
		NetDialer: &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				return err
			}
			// The address that is connected to is checked, not the name: that may lead anywhere.
			if ip := net.ParseIP(host); ip == nil || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsMulticast() || ip.IsUnspecified() {
				return errForbidden
			}
			return nil
		}},
		Config: &tls.Config{ServerName: e.ServerName, InsecureSkipVerify: true}, //nolint:gosec // what is shown is judged afterwards
	}
	conn, err := dialer.DialContext(ctx, "tcp", e.Address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	state, ok := conn.(*tls.Conn)
	if !ok || len(state.ConnectionState().PeerCertificates) == 0 {
		return nil, errors.New("it shows no certificate")
	}
	return state.ConnectionState().PeerCertificates, nil
}

// probeEndpoints looks at the endpoints that are due.
func (m *Monitor) probeEndpoints(ctx context.Context) error {
	due, err := m.cfg.Endpoints.DueEndpoints(ctx, m.cfg.Now(), probeBatch)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	slots, faults := make(chan struct{}, probesAtOnce), make([]error, len(due))
	for i := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if faults[i] = m.probe(ctx, due[i]); errors.Is(faults[i], hub.ErrNotFound) {
				faults[i] = nil // nobody watches it any more: it was removed meanwhile
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// probe looks at one endpoint and tells what it saw.
func (m *Monitor) probe(ctx context.Context, e hub.Endpoint) error {
	chain, err := m.cfg.Probe(ctx, e)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := m.cfg.Now()
	if err != nil {
		if err := m.cfg.Endpoints.SetProbed(ctx, e.Name, e.Failures+1, now.Add(probeRetry)); err != nil {
			return err
		}
		if e.Failures+1 < probeFailures {
			return nil
		}
		return m.cfg.Alerts.Raise(ctx, hub.Alert{
			Kind: hub.AlertEndpointFaulty, Object: e.Name, Level: hub.AlertWarning,
			Message: fmt.Sprintf("%s does not answer as a TLS server: %v; look at it, or stop watching it: certferry endpoint rm %s", e.Address, err, e.Name),
		})
	}
	// Not all in the same second: a fifth of the time, by chance.
	next := now.Add(probeEvery - time.Duration(float64(probeEvery)/5*m.cfg.Random()))
	if err := m.cfg.Endpoints.SetProbed(ctx, e.Name, 0, next); err != nil {
		return err
	}
	w := hub.Watch{
		Kind: hub.WatchEndpoint, Object: e.Name, Names: chain[0].DNSNames, Issuer: chain[0].Issuer.CommonName, LeafSHA256: bundle.LeafSHA256(chain[0]),
		NotBefore: chain[0].NotBefore, NotAfter: chain[0].NotAfter, SeenAt: now, Problem: judge(e, chain, now),
	}
	if err := m.Take(ctx, []hub.Watch{w}); err != nil {
		return err
	}
	if w.Problem == "" {
		return m.cfg.Alerts.Clear(ctx, hub.AlertEndpointFaulty, e.Name)
	}
	return m.cfg.Alerts.Raise(ctx, hub.Alert{
		Kind: hub.AlertEndpointFaulty, Object: e.Name, Level: hub.AlertCritical, Message: "clients refuse what " + e.Address + " shows: " + w.Problem,
	})
}

// judge says why a client would refuse a chain, leaving the end of its time aside; empty for nothing.
func judge(e hub.Endpoint, chain []*x509.Certificate, now time.Time) string {
	if err := chain[0].VerifyHostname(e.ServerName); err != nil {
		return "the certificate is for other names than " + e.ServerName
	}
	if e.Trust != "system" {
		return ""
	}
	if now.After(chain[0].NotAfter) {
		now = chain[0].NotAfter // that is told by another alert
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Intermediates: intermediates, CurrentTime: now}); err != nil {
		return "its chain leads to no root that this machine trusts"
	}
	return ""
}
