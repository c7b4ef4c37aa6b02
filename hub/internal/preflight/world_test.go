package preflight_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/preflight"
)

// zones is a DNS server, resolver and authority in one, on UDP and TCP of one port.
type zones struct {
	mu      sync.Mutex
	records map[string][]dns.RR
	// rcodes are answered in place of records, by name and type such as "a.example. CAA".
	rcodes map[string]int
	// foreign are zones that it does not know when it is asked directly.
	foreign map[string]bool
	addr    string
}

func newZones(t *testing.T, records ...string) *zones {
	t.Helper()
	z := &zones{records: map[string][]dns.RR{}, rcodes: map[string]int{}, foreign: map[string]bool{}}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		key := strings.ToLower(rr.Header().Name)
		z.records[key] = append(z.records[key], rr)
	}
	tcp, udp := listenBoth(t)
	z.addr = tcp.Addr().String()
	for _, server := range []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		done := make(chan error, 1)
		go func() { done <- server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = server.Shutdown()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	return z
}

// listenBoth listens on one port by TCP and UDP. A port that is free in one of them may be
// taken in the other, by tests that run beside this one: then another is tried.
func listenBoth(t *testing.T) (tcp net.Listener, udp net.PacketConn) {
	t.Helper()
	for range 100 {
		var err error
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return tcp, udp
		}
		_ = tcp.Close()
	}
	t.Fatal("found no port that is free in TCP and UDP")
	return nil, nil
}

// edit changes what the server knows.
func (z *zones) edit(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

// ServeDNS implements dns.Handler.
func (z *zones) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	answer := new(dns.Msg).SetReply(q)
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	if !q.RecursionDesired {
		answer.Authoritative = !z.foreign[name]
		_ = w.WriteMsg(answer)
		return
	}
	if rcode, set := z.rcodes[name+" "+dns.TypeToString[question.Qtype]]; set {
		answer.Rcode = rcode
		_ = w.WriteMsg(answer)
		return
	}
	if _, known := z.records[name]; !known {
		answer.Rcode = dns.RcodeNameError
		for other := range z.records {
			if strings.HasSuffix(other, "."+name) {
				answer.Rcode = dns.RcodeSuccess // an empty non-terminal
			}
		}
	}
	for range 8 {
		next := ""
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == question.Qtype {
				answer.Answer = append(answer.Answer, rr)
			} else if alias, ok := rr.(*dns.CNAME); ok {
				answer.Answer = append(answer.Answer, rr)
				next = strings.ToLower(alias.Target)
			}
		}
		if next == "" {
			break
		}
		name = next
	}
	if w.LocalAddr().Network() == "udp" {
		answer.Truncate(int(q.IsEdns0().UDPSize()))
	}
	_ = w.WriteMsg(answer)
}

// config is a checker's configuration over z, whose CA is public where identities are given.
func config(z *zones, identities ...string) preflight.Config {
	_, port, _ := net.SplitHostPort(z.addr)
	return preflight.Config{
		DNS: &preflight.DNS{Resolvers: []string{z.addr}, Port: port},
		CA: func(*manifest.Issuer) preflight.CA {
			return preflight.CA{Public: len(identities) > 0, Identities: identities}
		},
		Thumbprint: func(context.Context, *manifest.Issuer) (string, error) { return "THUMB", nil },
		Credential: func(context.Context, string) error { return nil },
		Now:        time.Now, Timeout: 20 * time.Second,
	}
}

func run(t *testing.T, cfg preflight.Config, want *manifest.Certificate) hub.PreflightReport {
	t.Helper()
	c, err := preflight.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(t.Context(), want, acme)
}

var acme = &manifest.Issuer{Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://ca.example/dir"}}

func dnsWish(names ...string) *manifest.Certificate {
	return &manifest.Certificate{Name: "x", Names: names, Challenge: &manifest.Challenge{Type: "dns-01", Hook: "dns_cf"}}
}

func webWish(method, webroot string, names ...string) *manifest.Certificate {
	return &manifest.Certificate{Name: "x", Names: names, Challenge: &manifest.Challenge{Type: "http-01", Method: method, Webroot: webroot}}
}

// find is the finding of a check for an object; the test fails where there is not exactly one.
func find(t *testing.T, report hub.PreflightReport, check, object string) hub.Finding {
	t.Helper()
	var found []hub.Finding
	for _, f := range report {
		if f.Check == check && f.Object == object {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d findings of %s %s in %+v", len(found), check, object, report)
	}
	return found[0]
}

func wants(t *testing.T, f hub.Finding, state hub.FindingState, text string) {
	t.Helper()
	if f.State != state || !strings.Contains(f.Detail+" "+f.Next, text) {
		t.Errorf("%+v, want %s with %q", f, state, text)
	}
	if (f.State == hub.FindingFailed) != (f.Class != "") || f.State == hub.FindingFailed && f.Next == "" {
		t.Errorf("%+v lacks its class or what helps", f)
	}
}

// web starts a web server on one port of 127.0.0.1 and answers the port.
func web(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return portOf(t, s.Listener.Addr())
}

func portOf(t *testing.T, a net.Addr) string {
	t.Helper()
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(int(ap.Port()))
}
