package reconcile

import (
	"slices"
	"strconv"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// When a certificate is renewed: a third of its lifetime before it expires, half of it
// when it lives for less than shortLived, and defaultDays (or what the certificate says) before expiry where that
// is earlier and leaves the certificate at least half of its life.
const (
	defaultDays = 15
	day         = 24 * time.Hour
	shortLived  = 10 * day
)

// Reasons why a certificate is due, as people read them in a job.
const (
	reasonNeverIssued = "not issued yet"
	reasonNames       = "its names changed"
	reasonKeyType     = "its key type changed"
	reasonIssuer      = "its issuer changed"
	reasonCustody     = "its key is to be kept elsewhere"
	reasonServer      = "its key is to be kept on another server"
	reasonRevoked     = "it was revoked"
	reasonAge         = "its renewal time came"
)

// Due tells whether the certificate that want describes has to be issued at now, and why. have is what was issued
// last, nil for nothing; plan is what its CA said about it, nil for nothing. A certificate whose renewal is paused is
// never due.
func Due(want *manifest.Certificate, have *manifest.IssuedCertificate, plan *hub.RenewalPlan, now time.Time) (reason string, due bool) {
	switch {
	case want.Renewal.Paused:
		return "", false
	case have == nil:
		return reasonNeverIssued, true
	case !sameNames(want.Names, have.Names):
		return reasonNames, true
	case keyType(want.KeyType) != keyType(have.KeyType):
		return reasonKeyType, true
	case want.Issuer != have.Issuer && want.FallbackIssuer != have.Issuer:
		return reasonIssuer, true
	case custody(want.KeyCustody) != custody(have.KeyCustody):
		return reasonCustody, true
	case have.KeyServer != serverOf(want):
		return reasonServer, true
	case have.Revoked != nil:
		return reasonRevoked, true
	case !now.Before(RenewAt(want, have, plan)):
		return reasonAge, true
	}
	return "", false
}

// RenewAt is when the renewal of an issued certificate falls due, pauses left aside: the moment that was chosen in the
// window of its CA (RFC 9773), where plan has one for this leaf; else by its lifetime. There, up to a twentieth of the
// time that is left is added, chosen by the leaf's hash: certificates issued in one hour are not all renewed in one hour,
// and the answer stays the same however often it is asked. A CA cannot put it off beyond the fixed number of days, or
// beyond the last quarter of the lifetime where those do not fit; and it cannot have a leaf renewed in its first day, or
// first quarter: a CA whose windows have always passed would be asked for certificates without end.
func RenewAt(want *manifest.Certificate, have *manifest.IssuedCertificate, plan *hub.RenewalPlan) time.Time {
	lifetime := have.NotAfter.Sub(have.NotBefore)
	if plan != nil && plan.LeafSHA256 == have.LeafSHA256 && !plan.RenewAt.IsZero() {
		latest := have.NotAfter.Add(-max(fixedDays(lifetime, want.Renewal.DaysBeforeExpiry), lifetime/4))
		at := plan.RenewAt
		if earliest := have.NotBefore.Add(min(day, lifetime/4)); at.Before(earliest) {
			at = earliest
		}
		if at.After(latest) {
			at = latest
		}
		return at.Truncate(time.Second)
	}
	left := timeLeft(lifetime, want.Renewal.DaysBeforeExpiry)
	return have.NotAfter.Add(-left - time.Duration(float64(left)/20*share(have.LeafSHA256))).Truncate(time.Second)
}

// timeLeft is how long before its expiry a certificate of the lifetime is renewed at the latest.
func timeLeft(lifetime time.Duration, days int) time.Duration {
	left := lifetime / 3
	if lifetime < shortLived {
		left = lifetime / 2
	}
	return max(left, fixedDays(lifetime, days))
}

// fixedDays is the fixed number of days before expiry (0 for defaultDays), where it leaves a certificate of the lifetime
// at least half of its life; else 0.
func fixedDays(lifetime time.Duration, days int) time.Duration {
	if days == 0 {
		days = defaultDays
	}
	if fixed := time.Duration(days) * day; fixed < lifetime/2 {
		return fixed
	}
	return 0
}

// custody is where a key is kept, in one word.
func custody(where string) string {
	if where == "" {
		return "hub"
	}
	return where
}

// share maps a hex digest to [0, 1).
func share(digest string) float64 {
	if len(digest) < 8 {
		return 0
	}
	n, err := strconv.ParseUint(digest[:8], 16, 32)
	if err != nil {
		return 0
	}
	return float64(n) / (1 << 32)
}

func keyType(name string) string {
	if name == "" {
		return "ecdsa-p256"
	}
	return name
}

// sameNames compares as sets: their order is a matter of taste.
func sameNames(a, b []string) bool {
	return slices.Equal(sortedSet(a), sortedSet(b))
}

func sortedSet(names []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(names)))
}
