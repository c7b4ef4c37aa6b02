package acmesh_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/issuer/issuertest"
)

func TestTimeOfTheCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	there, err := w.issuer.Time(t.Context())
	if err != nil || time.Since(there).Abs() > time.Minute {
		t.Errorf("%s: %v", there, err)
	}
	w.cfg.Directory += "-gone"
	w.open(t)
	if at, err := w.issuer.Time(t.Context()); err == nil {
		t.Errorf("a directory that is not there says %s", at)
	}
}
