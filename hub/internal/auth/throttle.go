// This file slows down guessing: five failures in five minutes by key, then a wait. Nobody is locked out for good.

package auth

import (
	"fmt"
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

type throttle struct {
	now func() time.Time

	mu       sync.Mutex
	failures map[string][]time.Time // the newest throttleFailures of each key
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, failures: map[string][]time.Time{}}
}

// check answers a *hub.Error of class ErrThrottled while key had too many failures.
func (t *throttle) check(key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failures := t.failures[key]
	if len(failures) < throttleFailures {
		return nil
	}
	wait := failures[0].Add(throttleWindow).Sub(t.now())
	if wait <= 0 {
		return nil
	}
	wait = wait.Round(time.Second) + time.Second
	return &hub.Error{
		Class: hub.ErrThrottled, RetryAfter: wait,
		Message: fmt.Sprintf("too many failed attempts: try again in %s", wait),
	}
}

func (t *throttle) fail(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
