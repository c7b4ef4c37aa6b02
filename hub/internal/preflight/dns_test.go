package preflight_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/preflight"
	"github.com/certferry/certferry/issuer"
)

func TestCAA(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dns       string
		records   []string
		identity  string
		state     hub.FindingState
		class     issuer.Class
		says      string
		challenge string
	}{
		"none":                  {dns: "a.example.com", state: hub.FindingOK, says: "no CAA"},
		"allowed":               {dns: "a.example.com", records: []string{`a.example.com. CAA 0 issue "ca.test"`}, state: hub.FindingOK, says: "allow this CA"},
		"allowed in capitals":   {dns: "a.example.com", records: []string{`a.example.com. CAA 0 ISSUE " CA.test "`}, state: hub.FindingOK, says: "allow this CA"},
		"another":               {dns: "a.example.com", records: []string{`a.example.com. CAA 0 issue "other.test"`}, state: hub.FindingFailed, class: issuer.Permanent, says: `add to a.example.com: CAA 0 issue "ca.test"`},
		"nobody":                {dns: "a.example.com", records: []string{`a.example.com. CAA 0 issue ";"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "do not allow"},
		"parent forbids":        {dns: "a.b.example.com", records: []string{`example.com. CAA 0 issue "other.test"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "of example.com do not"},
		"nearest counts":        {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "other.test"`, `a.example.com. CAA 0 issue "ca.test"`}, state: hub.FindingOK, says: "a.example.com allow"},
		"nearest is only iodef": {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "other.test"`, `a.example.com. CAA 0 iodef "mailto:a@example.com"`}, state: hub.FindingOK, says: "allow"},
		"behind an alias":       {dns: "a.example.com", records: []string{`a.example.com. CNAME b.example.net.`, `b.example.net. CAA 0 issue "other.test"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "do not allow"},
		"wildcard by issuewild": {dns: "*.example.com", records: []string{`example.com. CAA 0 issue "ca.test"`, `example.com. CAA 0 issuewild ";"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "do not allow"},
		"wildcard by issue":     {dns: "*.example.com", records: []string{`example.com. CAA 0 issue "ca.test"`}, state: hub.FindingOK, says: "allow"},
		"issuewild is no issue": {dns: "a.example.com", records: []string{`example.com. CAA 0 issuewild ";"`}, state: hub.FindingOK, says: "allow"},
		"critical":              {dns: "a.example.com", records: []string{`example.com. CAA 128 future "x"`, `example.com. CAA 0 issue "ca.test"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "critical"},
		"unknown, not critical": {dns: "a.example.com", records: []string{`example.com. CAA 0 future "x"`}, state: hub.FindingOK, says: "allow"},
		"other method":          {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "ca.test; validationmethods=http-01,tls-alpn-01"`}, state: hub.FindingFailed, class: issuer.Permanent, says: "validationmethods"},
		"this method":           {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "ca.test; validationmethods=http-01,dns-01"`}, state: hub.FindingOK, says: "allow"},
		"an account":            {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "ca.test; accounturi=https://ca.test/1"`}, state: hub.FindingWarning, says: "accounturi"},
		"one of several":        {dns: "a.example.com", records: []string{`example.com. CAA 0 issue "ca.test; validationmethods=http-01"`, `example.com. CAA 0 issue "ca.test"`}, state: hub.FindingOK, says: "allow"},
		"CA without a name":     {dns: "a.example.com", identity: "-", records: []string{`example.com. CAA 0 issue "ca.test"`}, state: hub.FindingWarning, says: "does not know"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(newZones(t, tc.records...), "ca.test")
			if tc.identity == "-" {
				cfg.CA = func(*manifest.Issuer) preflight.CA { return preflight.CA{} }
			}
			f := find(t, run(t, cfg, dnsWish(tc.dns)), "caa", tc.dns)
			wants(t, f, tc.state, tc.says)
			if f.Class != tc.class {
				t.Errorf("class %q, want %q", f.Class, tc.class)
			}
		})
	}
}

// A CA must not sign where the records cannot be looked up, at any name up the tree.
func TestCAAThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	z := newZones(t, "a.example.com. A 192.0.2.1")
	z.edit(func() { z.rcodes["example.com. CAA"] = dns.RcodeServerFailure })
	f := find(t, run(t, config(z, "ca.test"), dnsWish("a.example.com")), "caa", "a.example.com")
	wants(t, f, hub.FindingFailed, "example.com cannot be looked up")
	if f.Class != issuer.ValidationFailed {
		t.Errorf("class %s", f.Class)
	}
}

// Too many records for UDP come over TCP.
func TestManyRecordsComeOverTCP(t *testing.T) {
	t.Parallel()
	records := []string{`example.com. CAA 0 issue "ca.test"`}
	for i := range 60 {
		records = append(records, `example.com. CAA 0 issue "`+strings.Repeat("x", 40)+strconv.Itoa(i)+`.test"`)
	}
	z := newZones(t, records...)
	// Truncation drops the last ones: the one that counts stands there.
	z.edit(func() {
		all := z.records["example.com."]
		all[0], all[60] = all[60], all[0]
	})
	wants(t, find(t, run(t, config(z, "ca.test"), dnsWish("example.com")), "caa", "example.com"), hub.FindingOK, "allow this CA")
}

// A hub whose resolvers are silent knows nothing, and holds nobody back.
func TestSilentResolversAreNoFailure(t *testing.T) {
	t.Parallel()
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.LocalAddr().String()
	_ = closed.Close()
	z := newZones(t)
	cfg := config(z, "ca.test")
	cfg.DNS = &preflight.DNS{Resolvers: []string{addr}}
	want := dnsWish("a.example.com")
	want.Names = append(want.Names, "b.example.com")
	want.Challenges = []manifest.NamedChallenge{{Names: []string{"b.example.com"}, Challenge: manifest.Challenge{Type: "http-01", Method: "stateless"}}}
	report := run(t, cfg, want)
	for check, object := range map[string]string{"caa": "a.example.com", "dns": "_acme-challenge.a.example.com", "address": "b.example.com"} {
		wants(t, find(t, report, check, object), hub.FindingWarning, "no DNS resolver")
	}
	if report.Failed() {
		t.Errorf("it fails: %v", report.Err())
	}
	// The next resolver is asked where the first is silent.
	cfg.DNS.Resolvers = append(cfg.DNS.Resolvers, z.addr)
	wants(t, find(t, run(t, cfg, want), "caa", "a.example.com"), hub.FindingOK, "no CAA")
}

func TestTXTRecordsPlace(t *testing.T) {
	t.Parallel()
	const zone, server = "example.com. NS ns1.example.com.", "ns1.example.com. A 127.0.0.1"
	for name, tc := range map[string]struct {
		records            []string
		alias, domainAlias string
		foreign            string
		state              hub.FindingState
		says               string
	}{
		"own zone":            {records: []string{zone, server}, state: hub.FindingOK, says: "zone example.com on ns1.example.com"},
		"zone nearer by":      {records: []string{zone, server, "www.example.com. NS ns1.example.com."}, state: hub.FindingOK, says: "zone www.example.com"},
		"no zone":             {state: hub.FindingFailed, says: "no zone"},
		"only a TLD":          {records: []string{"com. NS ns1.example.com.", server}, state: hub.FindingFailed, says: "no zone"},
		"server not there":    {records: []string{zone}, state: hub.FindingWarning, says: "ns1.example.com has no address"},
		"lame server":         {records: []string{zone, server}, foreign: "example.com.", state: hub.FindingWarning, says: "does not know the zone"},
		"alias":               {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME _acme-challenge.acme.example.com."}, alias: "acme.example.com", state: hub.FindingOK, says: "zone example.com"},
		"alias over two":      {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME x.example.com.", "x.example.com. CNAME _acme-challenge.acme.example.com."}, alias: "acme.example.com", state: hub.FindingOK, says: "zone example.com"},
		"alias is missing":    {records: []string{zone, server}, alias: "acme.example.com", state: hub.FindingFailed, says: "add: _acme-challenge.www.example.com. CNAME _acme-challenge.acme.example.com."},
		"alias elsewhere":     {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME other.example.com."}, alias: "acme.example.com", state: hub.FindingFailed, says: "in place of"},
		"domain alias":        {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME txt.example.com."}, domainAlias: "txt.example.com", state: hub.FindingOK, says: "zone example.com"},
		"loop":                {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME b.example.com.", "b.example.com. CNAME _acme-challenge.www.example.com."}, domainAlias: "txt.example.com", state: hub.FindingFailed, says: "in place of txt.example.com"},
		"alias not asked for": {records: []string{zone, server, "_acme-challenge.www.example.com. CNAME txt.acme-dns.test."}, state: hub.FindingWarning, says: "names no alias"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z := newZones(t, tc.records...)
			z.edit(func() { z.foreign[tc.foreign] = true })
			want := dnsWish("*.www.example.com")
			want.Challenge.Alias, want.Challenge.DomainAlias = tc.alias, tc.domainAlias
			report := run(t, config(z, "ca.test"), want)
			for _, f := range report {
				if f.Check == "dns" {
					wants(t, f, tc.state, tc.says)
					return
				}
			}
			t.Errorf("nothing was found: %+v", report)
		})
	}
}
