// This file is about certificates that somebody should hear of before they end.

package hub

import "time"

// The kinds of alerts about certificates.
const (
	// AlertCertificateExpiring: little of a certificate's lifetime is left, or nothing. The object is kind and name.
	AlertCertificateExpiring AlertKind = "certificate_expiring"
	// AlertEndpointFaulty: an endpoint is not reachable, or shows what clients refuse. The object is the endpoint.
	AlertEndpointFaulty AlertKind = "endpoint_faulty"
)

// WatchKind says where a certificate is known from.
type WatchKind string

// The kinds of watched certificates.
const (
	// WatchManaged: the hub issued it. The object is the certificate's name.
	WatchManaged WatchKind = "managed"
	// WatchFound: an agent found it. The object is server/target.
	WatchFound WatchKind = "found"
	// WatchEndpoint: an endpoint shows it. The object is the endpoint's name.
	WatchEndpoint WatchKind = "endpoint"
)

// Alert is the object of alerts about a watched certificate of this kind.
func (k WatchKind) Alert(object string) string { return string(k) + " " + object }

// WatchLevel says how much of the lifetime is left.
type WatchLevel string

// The levels, and the shares of the lifetime below which they begin.
const (
	WatchOK       WatchLevel = "ok"
	WatchWarning  WatchLevel = "warning"  // a quarter
	WatchCritical WatchLevel = "critical" // an eighth
	WatchExpired  WatchLevel = "expired"
)

// Watch is a watched certificate.
type Watch struct {
	Kind       WatchKind
	Object     string
	Names      []string
	Issuer     string
	LeafSHA256 string
	NotBefore  time.Time
	NotAfter   time.Time
	Level      WatchLevel
	// Problem says what else is wrong with it, such as a name that it lacks; empty for nothing.
	Problem string
	// NextAt is when Level changes, zero for never.
	NextAt time.Time
	SeenAt time.Time
}

// LevelAt is the level at a time, and when the next one begins (zero for never).
func (w *Watch) LevelAt(now time.Time) (level WatchLevel, next time.Time) {
	if w.NotAfter.IsZero() {
		return WatchOK, time.Time{}
	}
	life := w.NotAfter.Sub(w.NotBefore)
	warning, critical := w.NotAfter.Add(-life/4), w.NotAfter.Add(-life/8)
	switch {
	case now.Before(warning):
		return WatchOK, warning
	case now.Before(critical):
		return WatchWarning, critical
	case now.Before(w.NotAfter):
		return WatchCritical, w.NotAfter
	default:
		return WatchExpired, time.Time{}
	}
}

// Endpoint is a TLS server that an operator wants to be watched.
type Endpoint struct {
	Name string
	// Address is host:port, ServerName what is sent as SNI and must be in the certificate.
	Address    string
	ServerName string
	// Trust is system where the chain must lead to a root of the system, none where only names and dates count.
	Trust     string
	CreatedBy string
	CreatedAt time.Time
	// Failures are those in a row.
	Failures  int64
	NextProbe time.Time
}

// JobFigures are how orders went of late.
type JobFigures struct {
	// FailedByClass counts jobs that failed or wait, by the class of their last error.
	FailedByClass map[string]int
	// Durations are from asking to the end, of jobs that ended with success, sorted.
	Durations []time.Duration
}
