package reconcile

import (
	"time"

	"github.com/certferry/certferry/issuer"
)

// Limits of the back-off.
const (
	maxBackoff       = 6 * time.Hour
	rateLimitBackoff = time.Hour
	soonest          = 5 * time.Minute
	localBackoff     = 10 * time.Minute
	// longestAsked is the longest wait that a CA is heard for.
	longestAsked = 30 * day
)

// validationSteps are slow because a CA counts failed validations and because a person has to mend something.
var validationSteps = []time.Duration{20 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, day}

// backoff says how long to wait after the given attempt (1 for the first) failed, and whether waiting helps at all.
// random answers values in [0, 1).
func backoff(e *issuer.Error, attempt int, random func() float64) (wait time.Duration, again bool) {
	switch e.Class {
	case issuer.Account, issuer.Permanent:
		return 0, false
	case issuer.RateLimited:
		wait = min(max(e.RetryAfter, 0), longestAsked)
		if wait == 0 {
			wait = rateLimitBackoff
		}
		// Never sooner than the CA asked, and not all at the same second.
		return wait + time.Duration(float64(wait)*random()/10), true
	case issuer.ValidationFailed:
		wait = validationSteps[min(max(attempt, 1), len(validationSteps))-1]
	case issuer.DNSProvider:
		wait = doubled(15*time.Minute, attempt)
	case issuer.Local:
		wait = localBackoff
	case issuer.Retryable:
		wait = doubled(time.Minute, attempt)
		wait += time.Duration(float64(wait) * (random() - 0.5))
		return max(wait, min(e.RetryAfter, longestAsked)), true
	default:
		wait = doubled(time.Minute, attempt)
	}
	return max(wait+time.Duration(float64(wait)*random()/10), min(e.RetryAfter, longestAsked)), true
}

// hurry shortens a wait where little time is left until the certificate expires, so that it still gets several tries
// after a long outage. What a CA asked for, or counts, is not shortened.
func hurry(wait time.Duration, e *issuer.Error, left time.Duration) time.Duration {
	switch e.Class {
	case issuer.Retryable, issuer.DNSProvider, issuer.Local:
	default:
		return wait
	}
	if left < 0 {
		return wait
	}
	return max(min(wait, max(left/10, soonest)), min(e.RetryAfter, longestAsked))
}

// doubled is first, doubled for each attempt after the first, up to maxBackoff.
func doubled(first time.Duration, attempt int) time.Duration {
	wait := first
	for range attempt - 1 {
		if wait *= 2; wait >= maxBackoff {
			return maxBackoff
		}
	}
	return wait
}
