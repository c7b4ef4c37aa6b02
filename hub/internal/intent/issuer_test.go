package intent_test

import (
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/issuer"
)

func TestIssuersAreCommits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	cfg := f.config()
	cfg.CheckIssuer = func(i *manifest.Issuer) error {
		if i.ACME != nil && !strings.HasPrefix(i.ACME.Directory, "https://good.example") {
			return &issuer.Error{Class: issuer.Account, Detail: "the configuration does not allow this CA"}
		}
		return nil
	}
	s, err := intent.New(cfg)
	f.must(err)
	spec := apiv1.IssuerSpec{Type: "acmesh", Directory: "https://good.example/dir", Email: "ops@example.com"}
	f.must(s.CreateIssuer(t.Context(), ada, "req-1", "good", spec))
	spec.Email = "new@example.com"
	f.must(s.ReplaceIssuer(t.Context(), ada, "req-2", "good", spec))
	snapshot, err := f.store.Snapshot()
	f.must(err)
	if got := snapshot.Issuers["good"]; got == nil || got.ACME.Email != "new@example.com" {
		t.Errorf("%+v", got)
	}
	for name, c := range map[string]struct {
		do    func() error
		class error
		want  string
	}{
		"again":     {func() error { return s.CreateIssuer(t.Context(), ada, "", "good", spec) }, hub.ErrConflict, "exists"},
		"not there": {func() error { return s.ReplaceIssuer(t.Context(), ada, "", "none", spec) }, hub.ErrNotFound, "no issuer"},
		"bad name":  {func() error { return s.CreateIssuer(t.Context(), ada, "", "../x", spec) }, hub.ErrInvalid, "body.name"},
		"no URL":    {func() error { return s.CreateIssuer(t.Context(), ada, "", "x", apiv1.IssuerSpec{Type: "acmesh"}) }, hub.ErrInvalid, "body.directory"},
		"plain http": {func() error {
			return s.CreateIssuer(t.Context(), ada, "", "x", apiv1.IssuerSpec{Type: "acmesh", Directory: "http://good.example"})
		}, hub.ErrInvalid, "body"},
		"not allowed": {func() error {
			return s.CreateIssuer(t.Context(), ada, "", "x", apiv1.IssuerSpec{Type: "acmesh", Directory: "https://evil.example"})
		}, hub.ErrInvalid, "does not allow this CA"},
		"mixed": {func() error {
			return s.CreateIssuer(t.Context(), ada, "", "x", apiv1.IssuerSpec{Type: "privateca", Email: "a@example.com"})
		}, hub.ErrInvalid, "acme"},
		"remove none": {func() error { return s.DeleteIssuer(t.Context(), ada, "", "none") }, hub.ErrNotFound, "no issuer"},
	} {
		err := c.do()
		text := ""
		if known := wantClass(t, name, err, c.class); known != nil {
			text = known.Message
			for _, fault := range known.Faults {
				text += " " + fault.Location + ": " + fault.Message
			}
		}
		if !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
	f.must(s.DeleteIssuer(t.Context(), ada, "", "good"))
}

func wantClass(t *testing.T, name string, err, class error) *hub.Error {
	t.Helper()
	known, ok := err.(*hub.Error)    //nolint:errorlint // it is never wrapped
	if !ok || known.Class != class { //nolint:errorlint // classes are compared
		t.Errorf("%s: %v", name, err)
		return nil
	}
	return known
}
