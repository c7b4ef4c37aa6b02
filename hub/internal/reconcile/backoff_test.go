package reconcile

import (
	"testing"
	"time"

	"github.com/certferry/certferry/issuer"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		err      issuer.Error
		attempt  int
		min, max time.Duration
		final    bool
	}{
		{name: "retryable, first", err: issuer.Error{Class: issuer.Retryable}, attempt: 1, min: 30 * time.Second, max: 90 * time.Second},
		{name: "retryable, third", err: issuer.Error{Class: issuer.Retryable}, attempt: 3, min: 2 * time.Minute, max: 6 * time.Minute},
		{name: "retryable, capped", err: issuer.Error{Class: issuer.Retryable}, attempt: 500, min: 3 * time.Hour, max: 9 * time.Hour},
		{name: "retryable with a wish of the CA", err: issuer.Error{Class: issuer.Retryable, RetryAfter: time.Hour}, attempt: 1, min: time.Hour, max: time.Hour},
		{name: "rate limited, told when", err: issuer.Error{Class: issuer.RateLimited, RetryAfter: 3 * time.Hour}, attempt: 9, min: 3 * time.Hour, max: 198 * time.Minute},
		{name: "rate limited, not told", err: issuer.Error{Class: issuer.RateLimited}, attempt: 1, min: time.Hour, max: 66 * time.Minute},
		{name: "validation, first", err: issuer.Error{Class: issuer.ValidationFailed}, attempt: 1, min: 20 * time.Minute, max: 22 * time.Minute},
		{name: "validation, third", err: issuer.Error{Class: issuer.ValidationFailed}, attempt: 3, min: 4 * time.Hour, max: 264 * time.Minute},
		{name: "validation, daily in the end", err: issuer.Error{Class: issuer.ValidationFailed}, attempt: 40, min: day, max: day + day/10},
		{name: "validation, attempt unknown", err: issuer.Error{Class: issuer.ValidationFailed}, attempt: 0, min: 20 * time.Minute, max: 22 * time.Minute},
		{name: "DNS provider, second", err: issuer.Error{Class: issuer.DNSProvider}, attempt: 2, min: 30 * time.Minute, max: 33 * time.Minute},
		{name: "DNS provider, capped", err: issuer.Error{Class: issuer.DNSProvider}, attempt: 20, min: 6 * time.Hour, max: 6*time.Hour + 36*time.Minute},
		{name: "local", err: issuer.Error{Class: issuer.Local}, attempt: 8, min: 10 * time.Minute, max: 11 * time.Minute},
		{name: "a class of tomorrow", err: issuer.Error{Class: "new"}, attempt: 2, min: 2 * time.Minute, max: 132 * time.Second},
		{name: "account", err: issuer.Error{Class: issuer.Account}, attempt: 1, final: true},
		{name: "permanent", err: issuer.Error{Class: issuer.Permanent}, attempt: 1, final: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, random := range []float64{0, 0.5, 0.999999} {
				wait, again := backoff(&tc.err, tc.attempt, func() float64 { return random })
				if again == tc.final || wait < tc.min || wait > tc.max {
					t.Errorf("random %v: wait %s, again %v; want %s to %s, final %v", random, wait, again, tc.min, tc.max, tc.final)
				}
			}
		})
	}
}

func TestHurry(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		class      issuer.Class
		left, want time.Duration
		after      time.Duration
	}{
		"plenty of time":        {issuer.Retryable, 90 * day, 6 * time.Hour, 0},
		"little time":           {issuer.Retryable, 10 * time.Hour, time.Hour, 0},
		"hardly any time":       {issuer.DNSProvider, time.Minute, 5 * time.Minute, 0},
		"expired":               {issuer.Local, 0, 5 * time.Minute, 0},
		"never issued":          {issuer.Retryable, -1, 6 * time.Hour, 0},
		"what the CA asked for": {issuer.Retryable, time.Hour, 2 * time.Hour, 2 * time.Hour},
		"what the CA counts":    {issuer.ValidationFailed, time.Hour, 6 * time.Hour, 0},
		"what the CA limits":    {issuer.RateLimited, time.Hour, 6 * time.Hour, 0},
	} {
		if got := hurry(6*time.Hour, &issuer.Error{Class: tc.class, RetryAfter: tc.after}, tc.left); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
