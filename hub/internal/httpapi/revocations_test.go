package httpapi_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// published is a private CA behind the issuer inside; broken cannot be opened.
type published struct{}

func (published) get(name, data string) ([]byte, error) {
	switch name {
	case "inside":
		return []byte(data), nil
	case "broken":
		return nil, errors.New("a path of this machine")
	default:
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "none"}
	}
}

func (p published) CRL(name string) ([]byte, error)  { return p.get(name, "the list") }
func (p published) Root(name string) ([]byte, error) { return p.get(name, "the root") }

func TestPrivateCAsPublish(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.Authorities = published{} })
	none := newWorld(t)
	for _, tc := range []struct {
		world            *world
		path, kind, body string
		status           int
	}{
		{w, "/crl/inside.crl", "application/pkix-crl", "the list", http.StatusOK},
		{w, "/root/inside.pem", "application/x-pem-file", "the root", http.StatusOK},
		{w, "/crl/inside.pem", "", "", http.StatusNotFound},
		{w, "/crl/nobody.crl", "", "", http.StatusNotFound},
		{w, "/crl/", "", "", http.StatusNotFound},
		{w, "/crl/broken.crl", "", "try again later\n", http.StatusServiceUnavailable},
		{none, "/crl/inside.crl", "", "", http.StatusNotFound},
	} {
		got := tc.world.get(tc.path, "")
		if got.status != tc.status || tc.kind != "" && got.header.Get("Content-Type") != tc.kind || tc.body != "" && string(got.body) != tc.body {
			t.Errorf("%s: %d %s %q", tc.path, got.status, got.header.Get("Content-Type"), got.body)
		}
	}
}

func TestRevokeOverTheAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("op", apiv1.RoleOperator)
	w.fleet.snap.Certificates["example.com"] = &manifest.Certificate{Name: "example.com", Names: []string{"example.com"}, Issuer: "private"}
	at := apiv1.Prefix + "/certificates/example.com/revoke"
	if got := w.send(http.MethodPost, at, operator, apiv1.RevokeRequest{Reason: "keyCompromise", Serial: "01"}); got.status != http.StatusOK || w.intent.last() != "revoke certificate op example.com keyCompromise 01" {
		t.Errorf("%d %s, %s", got.status, got.body, w.intent.last())
	}
	for _, body := range []any{apiv1.RevokeRequest{Reason: "boredom", Serial: "01"}, apiv1.RevokeRequest{Reason: "superseded"}} {
		if got := w.send(http.MethodPost, at, operator, body); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
}
