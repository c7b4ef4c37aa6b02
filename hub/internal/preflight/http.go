// This file fetches a token as a CA fetches the answer of an http-01 challenge (RFC 8555 §8.3): from port 80 of each
// address, redirects to http and https followed, certificates on the way not looked at.

package preflight

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

const (
	challengePath = ".well-known/acme-challenge"
	// fetchTimeout bounds one fetch, redirects included; CAs wait about as long.
	fetchTimeout = 8 * time.Second
	maxRedirects = 10
	// maxBody bounds what is read of an answer, in bytes; a token has fewer than 100.
	maxBody = 4096
)

// newToken is a token of 256 bits, in the alphabet of real ones.
func newToken() string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	return base64.RawURLEncoding.EncodeToString(raw)
}

// putToken writes a token's file below webroot, where a web server may read it, and answers how to remove it. Links do
// not lead out of the webroot.
func putToken(webroot, token, content string) (remove func(), err error) {
	root, err := os.OpenRoot(webroot)
	if err != nil {
		return nil, err
	}
	var made []string
	for _, dir := range []string{path.Dir(challengePath), challengePath} {
		switch err = root.Mkdir(dir, 0o755); {
		case err == nil:
			made = append([]string{dir}, made...)
			err = root.Chmod(dir, 0o755) // the web server runs as another user, and the umask may forbid it
		case errors.Is(err, os.ErrExist):
			err = nil
		}
		if err != nil {
			break
		}
	}
	undo := func() {
		for _, dir := range made {
			_ = root.Remove(dir) // not where somebody else put something into it
		}
		_ = root.Close()
	}
	if err != nil {
		undo()
		return nil, err
	}
	name := challengePath + "/" + token
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		undo()
		return nil, err
	}
	_, err = file.WriteString(content)
	if err = errors.Join(err, file.Chmod(0o644), file.Close()); err != nil {
		_ = root.Remove(name)
		undo()
		return nil, err
	}
	return func() {
		_ = root.Remove(name)
		undo()
	}, nil
}

// fetchError is what a CA would meet, in words.
type fetchError struct {
	text string
	// ours says that the hub could not get there, which says nothing about the CA.
	ours bool
}

// Error implements error.
func (e *fetchError) Error() string { return e.text }

// fetch gets the token of a name from one of its addresses. The error is a *fetchError.
func (c *Checker) fetch(ctx context.Context, name string, address netip.Addr, token, want string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, target string) (net.Conn, error) {
			return c.dial(ctx, network, target, name, address)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // CAs do not look at certificates here; nothing secret is sent
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+"/"+challengePath+"/"+token, http.NoBody)
	if err != nil {
		return &fetchError{text: "cannot be asked"}
	}
	request.Header.Set("User-Agent", "certferry-preflight")
	response, err := client.Do(request)
	if err != nil {
		return explain(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	switch {
	case err != nil:
		return explain(err)
	case response.StatusCode != http.StatusOK:
		return &fetchError{text: fmt.Sprintf("answers with status %d in place of the token", response.StatusCode)}
	case strings.TrimRight(string(body), " \t\r\n") != want:
		return &fetchError{text: "answers with something else than the token"}
	}
	return nil
}

// dial goes to address where the target is the name itself, and to where a redirect leads otherwise.
func (c *Checker) dial(ctx context.Context, network, target, name string, address netip.Addr) (net.Conn, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	to := address
	if host != name {
		found, err := c.cfg.DNS.addresses(ctx, host)
		if err != nil {
			return nil, &fetchError{text: "redirects to a name that could not be looked up", ours: true}
		}
		if len(found.addresses) == 0 {
			return nil, &fetchError{text: "redirects to a name that has no address"}
		}
		to = found.addresses[0]
		if isInternal(to) && !isInternal(address) {
			return nil, &fetchError{text: "redirects to an internal address, where no CA can follow"}
		}
	}
	if isForbidden(to) {
		return nil, &fetchError{text: "leads to an address that is not asked: link-local, unspecified or multicast"}
	}
	if mapped, ok := c.cfg.Ports[port]; ok {
		port = mapped
	}
	return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(to.String(), port))
}

// isForbidden says which addresses are never asked: behind some of them stand secrets of machines in clouds.
func isForbidden(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()
}

// isInternal says which addresses a public CA cannot reach.
func isInternal(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || isForbidden(a)
}

// checkRedirect follows what CAs follow.
func checkRedirect(request *http.Request, via []*http.Request) error {
	u := request.URL
	_, ip := netip.ParseAddr(strings.Trim(u.Hostname(), "[]"))
	switch {
	case len(via) > maxRedirects:
		return &fetchError{text: "redirects too often"}
	case u.Scheme != "http" && u.Scheme != "https":
		return &fetchError{text: "redirects to something else than http and https"}
	case u.Port() != "" && u.Port() != "80" && u.Port() != "443":
		return &fetchError{text: "redirects to a port that CAs do not follow; only 80 and 443 will do"}
	case ip == nil:
		return &fetchError{text: "redirects to an IP address, where CAs do not follow"}
	}
	return nil
}

// explain says why a fetch failed without what the other side wrote.
func explain(err error) error {
	var netErr net.Error
	switch known, ok := errors.AsType[*fetchError](err); {
	case ok:
		return known
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return &fetchError{text: "cannot be reached from the hub, which has no route to it", ours: true}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &fetchError{text: "refuses connections"}
	case errors.As(err, &netErr) && netErr.Timeout():
		return &fetchError{text: "does not answer in time"}
	}
	return &fetchError{text: "breaks the connection off, or does not speak HTTP"}
}
