// Bounds what a caller without a credential can write into the audit history.

package httpapi

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// strangerBurst denied attempts in a row are recorded for one address, then strangerRate a second.
	strangerBurst = 60
	strangerRate  = 1
	// maxStrangers bounds the addresses that are remembered.
	maxStrangers = 10000
)

// limiter is a token bucket for each address.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, buckets: map[string]*rate.Limiter{}}
}

// allow takes one token of the address's bucket.
func (l *limiter) allow(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[address]
	if !ok {
		if len(l.buckets) >= maxStrangers {
			l.forget(now)
		}
		b = rate.NewLimiter(strangerRate, strangerBurst)
		l.buckets[address] = b
	}
	return b.AllowN(now, 1)
}

// forget drops full buckets, which say nothing, and all of them where that does not help.
func (l *limiter) forget(now time.Time) {
	for address, b := range l.buckets {
		if b.TokensAt(now) >= strangerBurst {
			delete(l.buckets, address)
		}
	}
	if len(l.buckets) >= maxStrangers {
		clear(l.buckets)
	}
}
