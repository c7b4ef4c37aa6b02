package privateca_test

import (
	"errors"
	"testing"
	"time"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/privateca"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	if err := privateca.Init(dir, "Test", now, "internal.test"); err != nil {
		t.Fatal(err)
	}
	ca, err := privateca.New(privateca.Config{Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Check([]string{"a.internal.test", "*.internal.test"}, issuer.Challenge{}, nil); err != nil {
		t.Error(err)
	}
	for _, names := range [][]string{nil, {"a.internal.test", "elsewhere.test"}} {
		failed := new(issuer.Error)
		if err := ca.Check(names, issuer.Challenge{}, nil); !errors.As(err, &failed) || failed.Class != issuer.Permanent {
			t.Errorf("%v: %v", names, err)
		}
	}
}
