package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
	"github.com/certferry/certferry/issuer"
)

// checker finds one thing wrong with everything.
type checker struct{}

func (checker) Check(_ context.Context, want *manifest.Certificate, at *manifest.Issuer) hub.PreflightReport {
	return hub.PreflightReport{
		{Check: "disk", State: hub.FindingOK, Detail: "room"},
		{Check: "http", Object: want.Names[0], State: hub.FindingFailed, Class: issuer.ValidationFailed, Detail: "at " + at.Name + "\x1b[2J", Next: "mend it"},
	}
}

func (checker) Wish(spec apiv1.CertificateSpec) (*manifest.Certificate, *manifest.Issuer, error) {
	if spec.Issuer != "le" {
		return nil, nil, &hub.Error{Class: hub.ErrInvalid, Message: "the certificate has faults", Faults: []hub.Fault{{Location: "body.issuer", Message: "there is none"}}}
	}
	return &manifest.Certificate{Name: spec.Name, Names: spec.Names}, &manifest.Issuer{Name: "le"}, nil
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.Preflight = checker{} })
	operator, viewer := w.person("op", apiv1.RoleOperator), w.person("view", apiv1.RoleViewer)
	w.fleet.addCertificate(&manifest.Certificate{Name: "www", Names: []string{"www.test"}, Issuer: "le"}, nil)
	w.fleet.addCertificate(&manifest.Certificate{Name: "lost", Names: []string{"lost.test"}, Issuer: "nobody"}, nil)
	want := apiv1.PreflightReport{Failed: true, Issuer: "le", Findings: []apiv1.Finding{
		{Check: "disk", State: apiv1.FindingOK, Detail: "room"},
		{Check: "http", Object: "www.test", State: apiv1.FindingFailed, Detail: "at le [2J", Next: "mend it", ErrorClass: "validation_failed"},
	}}
	const path, specPath = apiv1.Prefix + "/certificates/www/preflight", apiv1.Prefix + "/preflight"
	if diff := cmp.Diff(want, decode[apiv1.PreflightReport](t, w.send(http.MethodPost, path, operator, nil))); diff != "" {
		t.Error(diff)
	}
	spec := apiv1.CertificateSpec{Name: "new", Names: []string{"www.test"}, Issuer: "le"}
	if diff := cmp.Diff(want, decode[apiv1.PreflightReport](t, w.send(http.MethodPost, specPath, operator, spec))); diff != "" {
		t.Error(diff)
	}
	if got := w.intent.last(); got != "" {
		t.Errorf("a preflight changed something: %s", got)
	}
	spec.Issuer = "nobody"
	for name, tc := range map[string]struct {
		reply  reply
		status int
	}{
		"no certificate": {w.send(http.MethodPost, strings.Replace(path, "www", "none", 1), operator, nil), http.StatusNotFound},
		"no issuer":      {w.send(http.MethodPost, strings.Replace(path, "www", "lost", 1), operator, nil), http.StatusConflict},
		"faulty wish":    {w.send(http.MethodPost, specPath, operator, spec), http.StatusUnprocessableEntity},
		"viewer":         {w.send(http.MethodPost, path, viewer, nil), http.StatusForbidden},
	} {
		if tc.reply.status != tc.status || tc.reply.problem(t).Detail == "" {
			t.Errorf("%s: %d %s, want %d", name, tc.reply.status, tc.reply.body, tc.status)
		}
	}
}

// A hub without the checks says so.
func TestNoPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("op", apiv1.RoleOperator)
	w.fleet.addCertificate(&manifest.Certificate{Name: "www", Names: []string{"www.test"}, Issuer: "le"}, nil)
	for _, r := range []reply{
		w.send(http.MethodPost, apiv1.Prefix+"/certificates/www/preflight", operator, nil),
		w.send(http.MethodPost, apiv1.Prefix+"/preflight", operator, apiv1.CertificateSpec{Name: "x", Names: []string{"x.test"}, Issuer: "le"}),
	} {
		if r.status != http.StatusConflict || !strings.Contains(r.problem(t).Detail, "cannot check") {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}
