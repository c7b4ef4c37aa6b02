// Package challenge asks this server's own web server whether it answers challenges of type http-01 by itself, as its
// administrator set it up to (RFC 8555 §8.3): what a CA would find, found before it is asked.
package challenge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// timeout bounds one request: the server is this machine.
	timeout = 10 * time.Second
	// maxBody is more than any answer has that is right, in bytes.
	maxBody = 4 << 10
)

// State says what an address does.
type State string

// The states of a Finding.
const (
	OK     State = "ok"
	Failed State = "failed"
	Absent State = "absent" // nothing listens there, which is no fault by itself
)

// Finding is what an address of this server answers for a name.
type Finding struct {
	Name    string `json:"name" yaml:"name"`
	Address string `json:"address" yaml:"address"`
	State   State  `json:"state" yaml:"state"`
	// Detail says what is wrong and what helps; the thumbprint where all is well.
	Detail string `json:"detail" yaml:"detail"`
}

var (
	thumbprint = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	hostName   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// CheckInput says what is wrong with names and a thumbprint (RFC 7638, SHA-256), which may be empty.
func CheckInput(names []string, wantThumbprint string) error {
	if wantThumbprint != "" && !thumbprint.MatchString(wantThumbprint) {
		return errors.New("the thumbprint has 43 letters, digits, hyphens and underscores: certferry issuer account prints it")
	}
	if i := slices.IndexFunc(names, func(n string) bool { return !hostName.MatchString(n) }); i >= 0 {
		return fmt.Errorf("name %d must be a DNS name; a wildcard cannot be proven by http-01", i+1)
	}
	return nil
}

// Addresses are those of this machine at which CAs could ask it, and the loopback address, at a port.
func Addresses(port int) ([]netip.AddrPort, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))} //nolint:gosec // a port
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() {
			out = append(out, netip.AddrPortFrom(prefix.Addr().Unmap(), uint16(port))) //nolint:gosec // a port
		}
	}
	return out, nil
}

// Check asks each address for each name. want is the thumbprint of the account, empty for any.
func Check(ctx context.Context, names []string, addresses []netip.AddrPort, want string) []Finding {
	var found []Finding
	for _, name := range names {
		for _, address := range addresses {
			f := Finding{Name: name, Address: address.String()}
			f.State, f.Detail = ask(ctx, name, address.String(), want)
			found = append(found, f)
		}
	}
	return found
}

// Right says whether each name is answered at one address at least, and wrongly at none.
func Right(found []Finding) bool {
	answered := map[string]bool{}
	for _, f := range found {
		if f.State == Failed {
			return false
		}
		answered[f.Name] = answered[f.Name] || f.State == OK
	}
	for _, ok := range answered {
		if !ok {
			return false
		}
	}
	return len(found) > 0
}

func ask(ctx context.Context, name, address, want string) (State, string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	token := rand.Text()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+"/.well-known/acme-challenge/"+token, http.NoBody)
	if err != nil {
		return Failed, "the name cannot be asked for"
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Absent, "nothing listens there"
	case err != nil:
		return Failed, "no answer: " + reasonOf(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return Failed, "the answer broke off: " + reasonOf(err)
	}
	return judge(resp.StatusCode, strings.TrimSpace(string(body)), token, want)
}

func judge(status int, body, token, want string) (State, string) {
	got, ours := strings.CutPrefix(body, token+".")
	switch {
	case status >= 300 && status < 400:
		return Failed, "it redirects: put the snippet before the redirect, or into what it leads to"
	case status != http.StatusOK:
		return Failed, fmt.Sprintf("status %d: the snippet is not in force for this name: add it and reload the web server", status)
	case !ours || !thumbprint.MatchString(got):
		return Failed, "it answers with something else: another part of the configuration takes the path"
	case want != "" && got != want:
		return Failed, "it answers with the thumbprint of another account: " + got
	}
	return OK, "answers with " + got
}

// reasonOf is an error without the URL.
func reasonOf(err error) string {
	for wrapped := errors.Unwrap(err); wrapped != nil; wrapped = errors.Unwrap(wrapped) {
		err = wrapped
	}
	return err.Error()
}
