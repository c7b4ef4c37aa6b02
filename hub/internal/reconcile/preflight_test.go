package reconcile

import (
	"context"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

// TestWhenOrdersAreChecked holds that a CA is spared tries that somebody has to mend first, and waits for nothing else.
func TestWhenOrdersAreChecked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attempts int
		last     issuer.Class
		issuer   string
		want     bool
	}{
		"the first": {1, "", "ca", true}, "after the CA saw nothing": {2, issuer.ValidationFailed, "ca", true}, "after the provider refused": {3, issuer.DNSProvider, "ca", true},
		"after an outage": {2, issuer.Retryable, "ca", false}, "after a limit": {2, issuer.RateLimited, "ca", false},
		"the first at the fallback": {6, issuer.Retryable, "other", true},
	} {
		asked := false
		f := newFleet(t, 0)
		f.r.cfg.Preflight = func(context.Context, *manifest.Certificate, *manifest.Issuer, func(string)) error {
			asked = true
			return nil
		}
		o := &order{r: f.r, job: hub.Job{ID: "j", Attempts: c.attempts, ErrorClass: string(c.last), Issuer: "ca"}, issuer: &manifest.Issuer{Name: c.issuer}}
		if err := o.preflight(t.Context()); err != nil || asked != c.want {
			t.Errorf("%s: checked %v, %v", name, asked, err)
		}
	}
}
