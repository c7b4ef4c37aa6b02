package intent_test

import (
	"errors"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// A wish is read as it would be written, and nothing is written.
func TestWish(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before, err := f.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	spec := apiv1.CertificateSpec{Name: "shop", Names: []string{"bücher.example"}, Issuer: "private-ca"}
	wish, at, err := f.service.Wish(spec)
	if err != nil || wish.Names[0] != "xn--bcher-kva.example" || at.Name != "private-ca" {
		t.Errorf("%+v at %+v: %v", wish, at, err)
	}
	spec.Issuer = "nobody"
	if _, _, err := f.service.Wish(spec); !errors.Is(err, hub.ErrInvalid) {
		t.Errorf("an issuer that does not exist: %v", err)
	}
	after, err := f.store.Snapshot()
	if err != nil || after.Commit != before.Commit {
		t.Errorf("main moved: %v", err)
	}
}
