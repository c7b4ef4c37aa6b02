package reconcile_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/hubtest"
)

func TestARevokedKeyIsNeverKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	keep := func(c *manifest.Certificate) { c.Renewal.Key = "keep" }
	w.want("shop", keep)
	w.once()
	before := w.issued("shop")
	revoked := *before
	revoked.Revoked = &manifest.Revocation{At: w.clock.Now(), By: "ada", Reason: "superseded"}
	hubtest.Put(t, w.store, manifest.IssuedDir("shop")+"/certificate.yaml", &revoked)
	w.clock.Advance(time.Hour)
	w.once()
	after := w.issued("shop")
	if after.LeafSHA256 == before.LeafSHA256 || after.SPKISHA256 == before.SPKISHA256 {
		t.Errorf("after the revocation of %s with key %s: %s with key %s", before.LeafSHA256, before.SPKISHA256, after.LeafSHA256, after.SPKISHA256)
	}
}
