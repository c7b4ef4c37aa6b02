// This file slows down guessing: five failures in five minutes by key, then a wait. Nobody is locked out for good.

package auth

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/certferry/certferry/hub"
)

const (
	throttleFailures = 5
	throttleWindow   = 5 * time.Minute
	// throttleKeys bounds the memory: beyond it, keys whose failures are old are dropped.
	throttleKeys = 100_000
)

// throttle counts failures by key. Attempts under way count as if they had failed, or many at once would all be
// checked before the first failure is known; unlike failures they make others wait, not go away.
type throttle struct {
	now func() time.Time

	mu       sync.Mutex
	failures map[string][]time.Time // the newest throttleFailures of each key
	underWay map[string]int
	ended    chan struct{} // closed when an attempt ends
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{
		now: now, failures: map[string][]time.Time{}, underWay: map[string]int{}, ended: make(chan struct{}),
	}
}

// begin starts an attempt that counts for all keys, and answers a *hub.Error of class ErrThrottled while one of them
// had too many failures. The caller must end the attempt.
func (t *throttle) begin(ctx context.Context, keys ...string) error {
	for {
		ended, err := t.tryBegin(keys)
		if ended == nil {
			return err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return fmt.Errorf("wait for other attempts: %w", ctx.Err())
		}
	}
}

// tryBegin answers a channel to wait for where attempts under way may still exhaust a key.
func (t *throttle) tryBegin(keys []string) (wait <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, busy := t.now(), false
	for _, key := range keys {
		recent, oldest := t.recent(key, now)
		if recent >= throttleFailures {
			return nil, throttled(oldest.Add(throttleWindow).Sub(now))
		}
		busy = busy || recent+t.underWay[key] >= throttleFailures
	}
	if busy {
		return t.ended, nil
	}
	for _, key := range keys {
		t.underWay[key]++
	}
	return nil, nil
}

// recent counts the failures of key that still matter, and tells when the first of them was.
func (t *throttle) recent(key string, now time.Time) (n int, oldest time.Time) {
	failures := t.failures[key]
	for i, at := range failures {
		if now.Sub(at) < throttleWindow {
			return len(failures) - i, at
		}
	}
	return 0, time.Time{}
}

func throttled(wait time.Duration) error {
	wait = wait.Round(time.Second) + time.Second
	return &hub.Error{
		Class: hub.ErrThrottled, RetryAfter: wait,
		Message: fmt.Sprintf("too many failed attempts: try again in %s", wait),
	}
}

// end ends an attempt that began with the same keys.
func (t *throttle) end(failed bool, keys ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, key := range keys {
		if t.underWay[key]--; t.underWay[key] == 0 {
			delete(t.underWay, key)
		}
		if failed {
			t.fail(key)
		}
	}
	close(t.ended)
	t.ended = make(chan struct{})
}

func (t *throttle) fail(key string) {
	now := t.now()
	if _, known := t.failures[key]; !known && len(t.failures) >= throttleKeys {
		t.drop(now)
	}
	failures := append(t.failures[key], now)
	t.failures[key] = failures[max(0, len(failures)-throttleFailures):]
}

// drop removes what no longer counts.
func (t *throttle) drop(now time.Time) {
	for key, failures := range t.failures {
		if now.Sub(failures[len(failures)-1]) >= throttleWindow {
			delete(t.failures, key)
		}
	}
}

func (t *throttle) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.failures, key)
}

// addressKey is the key of a caller's address. An IPv6 caller has a whole /64 to choose from.
func addressKey(address string) string {
	if ip, err := netip.ParseAddr(address); err == nil {
		ip = ip.Unmap().WithZone("")
		if network, err := ip.Prefix(64); err == nil && ip.Is6() {
			address = network.String()
		} else {
			address = ip.String()
		}
	}
	return "address:" + address
}
