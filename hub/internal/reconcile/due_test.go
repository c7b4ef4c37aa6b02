package reconcile

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// issuedFor makes an issued certificate of the lifetime, valid from epoch, whose renewal has no jitter.
func issuedFor(lifetime time.Duration) *manifest.IssuedCertificate {
	return &manifest.IssuedCertificate{
		Name: "example.com", Names: []string{"example.com", "www.example.com"},
		Issuer: "private-ca", KeyType: "ecdsa-p256",
		NotBefore: epoch, NotAfter: epoch.Add(lifetime), LeafSHA256: "00000000ff",
	}
}

func wanted(change func(*manifest.Certificate)) *manifest.Certificate {
	c := &manifest.Certificate{Name: "example.com", Names: []string{"www.example.com", "example.com"}, Issuer: "private-ca"}
	if change != nil {
		change(c)
	}
	return c
}

func TestRenewAt(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		lifetime time.Duration
		days     int
		left     time.Duration
	}{
		{"90 days: a third is earlier than 15 days", 90 * day, 0, 30 * day},
		{"398 days", 398 * day, 0, 398 * day / 3},
		{"47 days: a third is earlier than 15 days", 47 * day, 0, 47 * day / 3},
		{"40 days: 15 days are earlier than a third", 40 * day, 0, 15 * day},
		{"20 days: 15 days would be most of its life", 20 * day, 0, 20 * day / 3},
		{"9 days: half", 9 * day, 0, 9 * day / 2},
		{"160 hours: half", 160 * time.Hour, 0, 80 * time.Hour},
		{"10 days exactly: a third", 10 * day, 0, 10 * day / 3},
		{"10 minutes, as in a demo", 10 * time.Minute, 0, 5 * time.Minute},
		{"90 days, 40 asked", 90 * day, 40, 40 * day},
		{"90 days, 5 asked: a bound, not a wish for later", 90 * day, 5, 30 * day},
		{"90 days, 60 asked: would not leave half its life", 90 * day, 60, 30 * day},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := wanted(func(c *manifest.Certificate) { c.Renewal.DaysBeforeExpiry = tc.days })
			have := issuedFor(tc.lifetime)
			if got, want := RenewAt(c, have, nil), have.NotAfter.Add(-tc.left); !got.Equal(want) {
				t.Errorf("renew %s before expiry, want %s", have.NotAfter.Sub(got), tc.left)
			}
			have.LeafSHA256 = "ffffffff00"
			earliest := have.NotAfter.Add(-tc.left - tc.left/20)
			if got := RenewAt(c, have, nil); got.Before(earliest) || !got.Before(have.NotAfter.Add(-tc.left)) {
				t.Errorf("with jitter: renew %s before expiry, want up to a twentieth more than %s", have.NotAfter.Sub(got), tc.left)
			}
		})
	}
	for _, digest := range []string{"", "zzzzzzzz"} {
		if got := share(digest); got != 0 {
			t.Errorf("share(%q) = %v", digest, got)
		}
	}
}

func TestDue(t *testing.T) {
	t.Parallel()
	have := issuedFor(90 * day)
	for _, tc := range []struct {
		name   string
		want   *manifest.Certificate
		have   *manifest.IssuedCertificate
		at     time.Time
		reason string
	}{
		{"never issued", wanted(nil), nil, epoch, reasonNeverIssued},
		{"fresh, names in another order", wanted(nil), have, epoch, ""},
		{"a second before its time", wanted(nil), have, epoch.Add(60*day - time.Second), ""},
		{"at its time", wanted(nil), have, epoch.Add(60 * day), reasonAge},
		{"expired", wanted(nil), have, epoch.Add(100 * day), reasonAge},
		{"a name more", wanted(func(c *manifest.Certificate) { c.Names = append(c.Names, "api.example.com") }), have, epoch, reasonNames},
		{"a name less", wanted(func(c *manifest.Certificate) { c.Names = c.Names[:1] }), have, epoch, reasonNames},
		{"default key type spelled out", wanted(func(c *manifest.Certificate) { c.KeyType = "ecdsa-p256" }), have, epoch, ""},
		{"another key type", wanted(func(c *manifest.Certificate) { c.KeyType = "rsa-2048" }), have, epoch, reasonKeyType},
		{"another issuer", wanted(func(c *manifest.Certificate) { c.Issuer = "letsencrypt" }), have, epoch, reasonIssuer},
		{"paused and expired", wanted(func(c *manifest.Certificate) { c.Renewal.Paused = true }), have, epoch.Add(100 * day), ""},
		{"paused and never issued", wanted(func(c *manifest.Certificate) { c.Renewal.Paused = true }), nil, epoch, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reason, due := Due(tc.want, tc.have, nil, tc.at)
			if reason != tc.reason || due != (tc.reason != "") {
				t.Errorf("Due = %q, %v; want %q", reason, due, tc.reason)
			}
		})
	}
}
