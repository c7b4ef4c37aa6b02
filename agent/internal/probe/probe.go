// Package probe looks at what a server really serves: fresh TLS handshakes, and the leaf that came.
//
// It deliberately verifies no chain: the question is not whether the peer is to be trusted but which leaf it
// shows, and that is compared by its SHA-256. Nothing is sent over the connection.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"
)

// handshakeTimeout bounds one handshake where Prober says nothing else.
const handshakeTimeout = 3 * time.Second

// Prober makes handshakes over TCP; it is an agent.Prober. The zero value is ready.
type Prober struct {
	// Timeout bounds one handshake; 0 is 3 seconds.
	Timeout time.Duration
}

// Probe makes one fresh handshake with address, naming serverName, and returns what the server showed. A server
// that proved its key and then turned the client away for want of a client certificate has shown its leaf too.
func (p *Prober) Probe(ctx context.Context, address, serverName string) (tls.ConnectionState, error) {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = handshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return tls.ConnectionState{}, fmt.Errorf("connect to %s: %w", address, err)
	}
	defer func() { _ = conn.Close() }()

	var shown tls.ConnectionState
	asked := false
	client := tls.Client(conn, &tls.Config{
		ServerName:         serverName,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // the leaf is compared by its hash; a chain need not be trusted here
		VerifyConnection: func(cs tls.ConnectionState) error {
			shown = cs
			return nil
		},
		// Asked for only after the server's signature over the handshake was checked.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return new(tls.Certificate), nil
		},
	})
	if err := client.HandshakeContext(ctx); err != nil && (!asked || len(shown.PeerCertificates) == 0) {
		return tls.ConnectionState{}, fmt.Errorf("handshake with %s as %q: %w", address, serverName, err)
	}
	if len(shown.PeerCertificates) == 0 {
		return tls.ConnectionState{}, fmt.Errorf("handshake with %s as %q: %w", address, serverName, errNoCertificate)
	}
	return shown, nil
}

var errNoCertificate = errors.New("the server showed no certificate")

func leafOf(cs tls.ConnectionState) (*x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, errNoCertificate
	}
	return cs.PeerCertificates[0], nil
}
