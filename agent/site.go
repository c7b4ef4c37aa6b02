// This file is the vocabulary of what is found on a machine: server software, the places in its configuration that
// use a certificate, and what is wrong there.

package agent

import "context"

// Instance is one server software on this machine, running or only configured.
type Instance struct {
	// Software is the name of the deployer that knows it: nginx, apache, haproxy …
	Software string
	// Version is what the software says of itself, such as 1.22.1; empty where it was not asked.
	Version string
	// PID is the process that reads the configuration (a master, or the one process there is); 0 where none runs.
	PID int
	// Binary, Prefix and Config are absolute paths as the instance sees them.
	Binary string
	Prefix string
	Config string
	// Root is the folder below which the instance's paths lie, such as /proc/123/root for one in a container; empty
	// where its root folder is this machine's.
	Root   string
	Sites  []Site
	Faults []Fault
}

// Site is one use of a certificate in a configuration. A virtual host with an RSA and an ECDSA pair is two sites.
type Site struct {
	// Names are the server names as configured: DNS names, wildcards, and patterns with a leading "~".
	Names     []string
	Listeners []Listener
	// Certificate, Key and Chain are absolute paths as the instance sees them. Key equals Certificate where one file
	// holds both; Chain is set only where the chain stands in a file of its own.
	Certificate string
	Key         string
	Chain       string
	Format      Format
	// Client says that the certificate is shown to other servers, and not to this one's clients.
	Client bool
	// File and Line are where the configuration names the certificate.
	File string
	Line int
}

// Format is how a certificate and its key are kept in a file.
type Format string

// The formats.
const (
	FormatPEM    Format = "pem"
	FormatPKCS12 Format = "pkcs12"
	FormatJKS    Format = "jks"
)

// Listener is one socket at which a site is served.
type Listener struct {
	// Network is tcp, udp (QUIC) or unix.
	Network string
	// Address is host:port, with an empty host for all addresses, or the path of a Unix socket.
	Address string
	// ProxyProtocol says that a connection must begin with a PROXY header.
	ProxyProtocol bool
	// StartTLS is the protocol in which TLS begins after a command: smtp, imap, pop3, lmtp or sieve. It is empty where the
	// connection begins with TLS.
	StartTLS string
}

// Fault is something in a configuration that could not be read or makes no sense. It never ends a scan.
type Fault struct {
	// File and Line are where; Line is 0 where the whole file is meant.
	File    string
	Line    int
	Message string
}

// Finder finds the instances of one kind of server software. It changes nothing and starts no program but the found
// instance's own binary, to ask for its version. What cannot be read is a Fault of its instance; the error says that
// nothing could be looked at.
type Finder interface {
	Find(ctx context.Context) ([]Instance, error)
}
