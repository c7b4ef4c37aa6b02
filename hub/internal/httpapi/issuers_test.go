package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// testCAs knows one CA, called known, whose account is counted.
type testCAs struct{ w *world }

const knownDirectory = "https://known.example/dir"

func (testCAs) Directory(ca string) (string, error) {
	if ca != "known" {
		return "", errors.New("must be known")
	}
	return knownDirectory, nil
}

func (testCAs) CA(directory string) string {
	if directory == knownDirectory {
		return "known"
	}
	return ""
}

func (testCAs) Check(i *manifest.Issuer) error {
	if i.ACME != nil && i.ACME.Directory != knownDirectory {
		return &issuer.Error{Class: issuer.Account, Detail: "this CA is not allowed"}
	}
	return nil
}

func (c testCAs) Holder(i *manifest.Issuer) (issuer.AccountHolder, error) {
	if i.ACME == nil {
		return nil, issuer.ErrUnsupported
	}
	return c, nil
}

func (testCAs) Account(context.Context) (issuer.AccountInfo, error) {
	return issuer.AccountInfo{URL: knownDirectory + "/acct/1", Status: "valid"}, nil
}

func (testCAs) Thumbprint(context.Context) (string, error) { return "thumb-1", nil }

func (c testCAs) Deactivate(context.Context) error {
	if c.w.fleet.snap.Issuers["le"].ACME.Email == "fails@example.com" {
		return &issuer.Error{Class: issuer.Retryable, Detail: "the CA is away"}
	}
	return nil
}

func (i *intentLog) CreateIssuer(_ context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error {
	i.fleet.edit(func(f *fleet) {
		m := &manifest.Issuer{Name: name, Type: spec.Type}
		if spec.Directory != "" {
			m.ACME = &manifest.ACMEIssuer{Directory: spec.Directory, Email: spec.Email, EABCredential: spec.EABCredential}
		}
		f.snap.Issuers[name] = m
	})
	return i.note("create-issuer", actor.Name, requestID, name)
}

func (i *intentLog) ReplaceIssuer(ctx context.Context, actor hub.Principal, requestID, name string, spec apiv1.IssuerSpec) error {
	return i.CreateIssuer(ctx, actor, requestID, name, spec)
}

func (i *intentLog) DeleteIssuer(_ context.Context, actor hub.Principal, requestID, name string) error {
	i.fleet.edit(func(f *fleet) { delete(f.snap.Issuers, name) })
	return i.note("delete-issuer", actor.Name, requestID, name)
}

func TestIssuers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin, operator := w.person("root", apiv1.RoleAdmin), w.person("op", apiv1.RoleOperator)
	at := apiv1.Prefix + "/issuers"
	made := w.send(http.MethodPost, at, admin, apiv1.CreateIssuerRequest{Name: "le", IssuerSpec: apiv1.IssuerSpec{Type: "acmesh", CA: "known"}})
	if made.status != http.StatusCreated || made.header.Get("Location") != at+"/le" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	if got := decode[apiv1.Issuer](t, made); got.Directory != knownDirectory || got.CA != "known" || got.Problem != "" {
		t.Errorf("%+v", got)
	}
	w.fleet.addCertificate(&manifest.Certificate{Name: "a", Names: []string{"a.example"}, Issuer: "le"}, nil)
	w.fleet.addCertificate(&manifest.Certificate{Name: "b", Names: []string{"b.example"}, Issuer: "x", FallbackIssuer: "le"}, nil)
	w.fleet.edit(func(f *fleet) {
		f.snap.Issuers["bad"] = &manifest.Issuer{Name: "bad", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: "https://evil.example/dir"}}
		f.snap.Issuers["own"] = &manifest.Issuer{Name: "own", Type: "privateca", PrivateCA: &manifest.PrivateCAIssuer{Lifetime: "24h"}}
	})
	if got := decode[apiv1.Issuer](t, w.get(at+"/le", operator)); got.Certificates != 2 {
		t.Errorf("%+v", got)
	}
	if got := decode[apiv1.Issuer](t, w.get(at+"/bad", operator)); got.Problem != "this CA is not allowed" {
		t.Errorf("%+v", got)
	}
	for name, c := range map[string]struct {
		spec apiv1.IssuerSpec
		want string
	}{
		"unknown CA": {apiv1.IssuerSpec{Type: "acmesh", CA: "other"}, "body.ca"},
		"two CAs":    {apiv1.IssuerSpec{Type: "acmesh", CA: "known", Directory: "https://x.example/dir"}, "body.directory"},
		"no EAB":     {apiv1.IssuerSpec{Type: "acmesh", CA: "known", EABCredential: "none"}, "body.eab_credential"},
	} {
		got := w.send(http.MethodPut, at+"/le", admin, c.spec)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(string(got.body), c.want) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}

	account := decode[apiv1.IssuerAccount](t, w.send(http.MethodPost, at+"/le/account", operator, nil))
	if account.Thumbprint != "thumb-1" || account.Status != "valid" || len(account.Snippets) != 3 || !strings.Contains(account.Snippets[0].Text, "$1.thumb-1") {
		t.Errorf("%+v", account)
	}
	if got := w.audit(); got.Action != "get-issuer-account" || got.Object != "le" {
		t.Errorf("%+v", got)
	}
	if got := w.send(http.MethodPost, at+"/own/account", operator, nil); got.status != http.StatusConflict {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.send(http.MethodPost, at+"/le/deactivate", admin, apiv1.DeactivateRequest{Confirm: "own"}); got.status != http.StatusUnprocessableEntity {
		t.Errorf("an account ends without its name: %d", got.status)
	}
	if got := w.send(http.MethodPost, at+"/le/deactivate", admin, apiv1.DeactivateRequest{Confirm: "le"}); got.status != http.StatusNoContent {
		t.Errorf("%d %s", got.status, got.body)
	}
	w.fleet.edit(func(f *fleet) { f.snap.Issuers["le"].ACME.Email = "fails@example.com" })
	if got := w.send(http.MethodPost, at+"/le/deactivate", admin, apiv1.DeactivateRequest{Confirm: "le"}); got.status != http.StatusConflict || !strings.Contains(string(got.body), "the CA is away") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.audit(); got.Outcome != hub.OutcomeFailed || got.Action != "deactivate-account" {
		t.Errorf("%+v", got)
	}
	if got := w.send(http.MethodDelete, at+"/none", admin, nil); got.status != http.StatusNotFound {
		t.Errorf("%d", got.status)
	}
	if got := w.send(http.MethodDelete, at+"/own", admin, nil); got.status != http.StatusNoContent {
		t.Errorf("%d %s", got.status, got.body)
	}
}
