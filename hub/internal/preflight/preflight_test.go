package preflight_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/hub/internal/preflight"
	"github.com/certferry/certferry/issuer"
)

func TestNames(t *testing.T) {
	t.Parallel()
	z := newZones(t)
	for name, tc := range map[string]struct {
		public string
		says   string
	}{
		"www.example.com": {"", ""},
		"example.com":     {"", ""},
		"*.example.com":   {"", ""},
		"foo.github.io":   {"", ""},
		"github.io":       {"", ""}, // of the list's private part: it is somebody's own
		"co.uk":           {"public suffix", ""},
		"*.co.uk":         {"public suffix", ""},
		"www.corp":        {"private CA", ""},
		"host.internal":   {"private CA", ""},
		"a..example.com":  {"empty label", "empty label"},
		"-a.example.com":  {"hyphen", "hyphen"},
		"www.192.0.2.1":   {"IP addresses", "IP addresses"},
		"a_b.example.com": {"hyphens only", "hyphens only"},
	} {
		for _, kind := range []struct{ identities, says []string }{{[]string{"ca.test"}, []string{tc.public}}, {nil, []string{tc.says}}} {
			object, state := name, hub.FindingFailed
			if kind.says[0] == "" {
				object, state = "", hub.FindingOK
			}
			wants(t, find(t, run(t, config(z, kind.identities...), dnsWish(name)), "names", object), state, kind.says[0])
		}
	}
}

func TestOrderAsAWhole(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		change func(*preflight.Config)
		check  string
		object string
		state  hub.FindingState
		class  issuer.Class
		says   string
	}{
		"clock":            {func(c *preflight.Config) { c.Time = timeIs(now, nil) }, "clock", "", hub.FindingOK, "", "0s off"},
		"clock ahead":      {func(c *preflight.Config) { c.Time = timeIs(now.Add(-10*time.Minute), nil) }, "clock", "", hub.FindingWarning, "", "10m0s off"},
		"clock far behind": {func(c *preflight.Config) { c.Time = timeIs(now.Add(2*time.Hour), nil) }, "clock", "", hub.FindingFailed, issuer.Local, "2h0m0s off"},
		"CA down":          {func(c *preflight.Config) { c.Time = timeIs(now, errors.New("x")) }, "clock", "", hub.FindingFailed, issuer.Retryable, "cannot be fetched"},
		"no clock":         {func(c *preflight.Config) { c.Time = timeIs(time.Time{}, nil) }, "clock", "", hub.FindingSkipped, "", "does not tell"},
		"room":             {func(c *preflight.Config) { c.Free = free(1<<30, nil) }, "disk", "", hub.FindingOK, "", "1024 MiB"},
		"little room":      {func(c *preflight.Config) { c.Free = free(100<<20, nil) }, "disk", "", hub.FindingWarning, "", "100 MiB"},
		"no room":          {func(c *preflight.Config) { c.Free = free(1<<20, nil) }, "disk", "", hub.FindingFailed, issuer.Local, "make room"},
		"disk is gone":     {func(c *preflight.Config) { c.Free = free(0, errors.New("x")) }, "disk", "", hub.FindingWarning, "", "could not"},
		"program":          {func(c *preflight.Config) { c.Program = func(*manifest.Issuer) error { return nil } }, "acme.sh", "", hub.FindingOK, "", "there"},
		"no program": {func(c *preflight.Config) {
			c.Program = func(*manifest.Issuer) error { return errors.New("it was changed") }
		}, "acme.sh", "", hub.FindingFailed, issuer.Local, "it was changed"},
		"within limits":  {func(c *preflight.Config) { c.Ledger = limit(nil) }, "ledger", "", hub.FindingOK, "", "within"},
		"limit spent":    {func(c *preflight.Config) { c.Ledger = limit(&ledger.WaitError{Until: now, Reason: "the limit"}) }, "ledger", "", hub.FindingWarning, "", "waits until 2026-11-23T12:00:00Z"},
		"ledger is gone": {func(c *preflight.Config) { c.Ledger = limit(errors.New("x")) }, "ledger", "", hub.FindingSkipped, "", "could not"},
		"credential":     {func(*preflight.Config) {}, "credential", "cf", hub.FindingOK, "", "credential test --domain example.com cf"},
		"no credential": {func(c *preflight.Config) {
			c.Credential = func(context.Context, string) error { return errors.New("there is none") }
		}, "credential", "cf", hub.FindingFailed, issuer.Local, "credential add"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := config(newZones(t, "example.com. NS ns.example.com.", "ns.example.com. A 127.0.0.1"), "ca.test")
			cfg.Now = func() time.Time { return now }
			tc.change(&cfg)
			want := dnsWish("*.example.com", "example.com") // one credential, told once
			want.Challenge.Credential = "cf"
			report := run(t, cfg, want)
			f := find(t, report, tc.check, tc.object)
			wants(t, f, tc.state, tc.says)
			if f.Class != tc.class || report.Failed() != (tc.state == hub.FindingFailed) {
				t.Errorf("class %q, error %v", f.Class, report.Err())
			}
		})
	}
}

func timeIs(at time.Time, err error) func(context.Context, *manifest.Issuer) (time.Time, error) {
	return func(context.Context, *manifest.Issuer) (time.Time, error) { return at, err }
}

func free(bytes uint64, err error) func() (uint64, error) {
	return func() (uint64, error) { return bytes, err }
}

func limit(err error) func(context.Context, *manifest.Certificate, *manifest.Issuer) error {
	return func(context.Context, *manifest.Certificate, *manifest.Issuer) error { return err }
}

// A private CA asks for no proof: no name is looked up.
func TestPrivateCA(t *testing.T) {
	t.Parallel()
	cfg := config(newZones(t))
	cfg.Free = free(1<<30, nil)
	c, err := preflight.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	report := c.Check(t.Context(), &manifest.Certificate{Names: []string{"db.internal"}}, &manifest.Issuer{Type: "privateca"})
	if len(report) != 2 || report.Count(hub.FindingOK) != 2 {
		t.Errorf("%+v", report)
	}
}

// TestOrder tells what is wrong and holds the order back; what never succeeds goes before what may.
func TestOrder(t *testing.T) {
	t.Parallel()
	cfg := config(newZones(t, `b.example.com. CAA 0 issue "other.test"`), "ca.test")
	cfg.Free = free(100<<20, nil)
	c, err := preflight.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	tell := func(line string) { lines = append(lines, line) }
	err = c.Order(t.Context(), webWish("standalone", "", "a.example.com", "b.example.com"), acme, tell)
	e, ok := errors.AsType[*issuer.Error](err)
	if !ok || e.Class != issuer.Permanent || e.Name != "b.example.com" || e.Phase != issuer.PhasePrepare || !strings.Contains(e.Detail, `CAA 0 issue "ca.test"`) {
		t.Errorf("error %#v", err)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"preflight warning: disk", "preflight failed: address a.example.com: there is no such name", "preflight: 2 ok, 0 skipped, 1 warnings, 3 failed"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not told in\n%s", want, text)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Order(cancelled, webWish("standalone", "", "a.example.com"), acme, tell); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestNewWantsAllServices(t *testing.T) {
	t.Parallel()
	if _, err := preflight.New(preflight.Config{}); err == nil {
		t.Error("made of nothing")
	}
}
