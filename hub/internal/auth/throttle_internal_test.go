package auth

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"
)

// TestThrottleForgets holds that old failures make room once there are very many.
func TestThrottleForgets(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	th := newThrottle(func() time.Time { return now })
	for i := range throttleKeys {
		key := strconv.Itoa(i)
		if err := th.begin(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		th.end(true, key)
		if i == throttleKeys/2 {
			now = now.Add(throttleWindow)
		}
	}
	if err := th.begin(t.Context(), "one more"); err != nil {
		t.Fatal(err)
	}
	th.end(true, "one more")
	if n := len(th.failures); n > throttleKeys/2 {
		t.Errorf("%d keys are remembered", n)
	}
	if n := len(th.underWay); n != 0 {
		t.Errorf("%d attempts are under way", n)
	}
}

// TestThrottleWaitEnds holds that waiting for other attempts ends with the caller.
func TestThrottleWaitEnds(t *testing.T) {
	t.Parallel()
	th := newThrottle(time.Now)
	for range throttleFailures {
		if err := th.begin(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() { waiting <- th.begin(ctx, "key") }()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for range throttleFailures {
		th.end(false, "key")
	}
	if err := th.begin(t.Context(), "key"); err != nil {
		t.Error(err)
	}
}
