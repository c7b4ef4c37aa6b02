package httpapi_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

func TestCredentialsComeInAndNeverGoOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin, operator := w.person("root", apiv1.RoleAdmin), w.person("op", apiv1.RoleOperator)
	at := apiv1.Prefix + "/credentials"
	wish := apiv1.CredentialRequest{Name: "cloud", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Token": "canary-token-1"}}

	providers := decode[apiv1.List[apiv1.DNSProvider]](t, w.get(apiv1.Prefix+"/dns-providers?q=cloud", operator))
	if len(providers.Items) != 1 || !providers.Items[0].Options[0].Secret || !providers.Items[0].Options[1].Optional || providers.Items[0].Site != "https://cloud.example" {
		t.Errorf("%+v", providers.Items)
	}
	made := w.send(http.MethodPost, at, admin, wish)
	if made.status != http.StatusCreated || made.header.Get("Location") != at+"/cloud" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	wish.Values["CLOUD_Token"] = "canary-token-2"
	for name, got := range map[string]reply{
		"create": made, "again": w.send(http.MethodPost, at, admin, wish), "replace": w.send(http.MethodPut, at+"/cloud", admin, wish),
		"show": w.get(at+"/cloud", operator), "list": w.get(at, operator),
		"by an operator": w.send(http.MethodPut, at+"/cloud", operator, wish),
	} {
		if bytes.Contains(got.body, []byte("canary")) {
			t.Errorf("%s: the answer holds the value", name)
		}
	}
	if strings.Contains(w.log.String(), "canary") {
		t.Error("the log holds the value")
	}
	row, err := w.db.Credential(t.Context(), "cloud")
	w.must(err)
	if bytes.Contains(row.Sealed, []byte("canary")) || len(row.Sealed) == 0 {
		t.Error("the database holds the value")
	}
	values, err := w.vault.Values(t.Context(), "cloud")
	if err != nil || values["CLOUD_Token"] != "canary-token-2" {
		t.Errorf("%v, %v", values, err)
	}

	// One that is used stays.
	w.fleet.snap.Certificates["uses"] = &manifest.Certificate{
		Name: "uses", Names: []string{"uses.example"}, Issuer: "private", Challenge: &manifest.Challenge{Type: "dns-01", Hook: "dns_cloud", Credential: "cloud"},
	}
	if got := w.send(http.MethodDelete, at+"/cloud", admin, nil); got.status != http.StatusConflict || !strings.Contains(string(got.body), "certificate uses") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := decode[apiv1.Credential](t, w.get(at+"/cloud", operator)); !slices.Equal(got.UsedBy, []string{"certificate uses"}) {
		t.Errorf("%+v", got)
	}
	delete(w.fleet.snap.Certificates, "uses")
	if got := w.send(http.MethodDelete, at+"/cloud", admin, nil); got.status != http.StatusNoContent {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.get(at+"/cloud", operator); got.status != http.StatusNotFound {
		t.Errorf("%d", got.status)
	}
}

func TestCredentialsThatCannotBeKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin := w.person("root", apiv1.RoleAdmin)
	at := apiv1.Prefix + "/credentials"
	for name, tc := range map[string]struct {
		wish     apiv1.CredentialRequest
		location string
	}{
		"no such provider": {apiv1.CredentialRequest{Name: "a", Provider: "dns_none", Values: map[string]string{"X": "y"}}, "body.provider"},
		"name":             {apiv1.CredentialRequest{Name: "../a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Token": "y"}}, "body.name"},
		"nothing":          {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{}}, "body.values"},
		"missing":          {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Zone": "y"}}, "body.values.CLOUD_Key"},
		"unknown":          {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "y", "Other": "z"}}, "body.values.Other"},
		"reserved":         {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "y", "LD_PRELOAD": "z"}}, "body.values.LD_PRELOAD"},
		"a quote":          {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "canary'"}}, "body.values.CLOUD_Key"},
		"a newline":        {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "canary\nX=1"}}, "body.values.CLOUD_Key"},
		"a back tick":      {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "`canary`"}}, "body.values.CLOUD_Key"},
		"a NUL":            {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "canary\x00"}}, "body.values.CLOUD_Key"},
		"10 kB":            {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": strings.Repeat("canary", 2000)}}, "body.values.CLOUD_Key"},
		"odd variable":     {apiv1.CredentialRequest{Name: "a", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "y", "canary$x": "z"}}, "body.values"},
	} {
		got := w.send(http.MethodPost, at, admin, tc.wish)
		p := got.problem(t)
		if got.status != http.StatusUnprocessableEntity || len(p.Errors) == 0 || !slices.ContainsFunc(p.Errors, func(f apiv1.ProblemFault) bool { return f.Location == tc.location }) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if bytes.Contains(got.body, []byte("canary")) {
			t.Errorf("%s: the answer repeats what was sent", name)
		}
	}
	if all, err := w.db.Credentials(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("kept %d, %v", len(all), err)
	}
}

// TestOtherWaysToLogIn: what a provider's hook says of its other way to log in is more than it needs.
func TestOtherWaysToLogIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin := w.person("root", apiv1.RoleAdmin)
	wish := apiv1.CredentialRequest{Name: "cloud", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Token": "y"}}
	if got := w.send(http.MethodPost, apiv1.Prefix+"/credentials", admin, wish); got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestTestingACredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin, operator := w.person("root", apiv1.RoleAdmin), w.person("op", apiv1.RoleOperator)
	at := apiv1.Prefix + "/credentials/cloud"
	w.send(http.MethodPost, apiv1.Prefix+"/credentials", admin, apiv1.CredentialRequest{Name: "cloud", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "canary"}})
	if got := w.get(at+"/test", operator); got.status != http.StatusNotFound {
		t.Errorf("before the first: %d", got.status)
	}
	goOn := make(chan error)
	w.tested = func(c issuer.Challenge, domain string, tell func(issuer.Event)) error {
		if c.Hook != "dns_cloud" || c.Credentials["CLOUD_Key"] != "canary" || domain != "zone.example" {
			t.Errorf("%s %s", c.Hook, domain)
		}
		tell(issuer.Event{Line: "adding\nit"})
		return <-goOn
	}
	begun := w.send(http.MethodPost, at+"/test", operator, apiv1.CredentialTest{Domain: "zone.example"})
	if begun.status != http.StatusAccepted {
		t.Fatalf("%d %s", begun.status, begun.body)
	}
	if again := w.send(http.MethodPost, at+"/test", operator, apiv1.CredentialTest{Domain: "zone.example"}); again.status != http.StatusConflict {
		t.Errorf("two at once: %d", again.status)
	}
	goOn <- &issuer.Error{Class: issuer.DNSProvider, Detail: "refused"}
	result := w.endOfTest(t, operator, at)
	if result.OK || !strings.Contains(result.Error, "refused") || result.NextStep == "" || !slices.Equal(result.Lines, []string{"adding it"}) {
		t.Errorf("%+v", result)
	}
	w.send(http.MethodPost, at+"/test", operator, apiv1.CredentialTest{Domain: "zone.example"})
	goOn <- nil
	if result := w.endOfTest(t, operator, at); !result.OK || result.Error != "" {
		t.Errorf("%+v", result)
	}
	if event := w.audit(); event.Action != "test-credential" || event.Object != "cloud" || event.Detail != "below zone.example" || event.Actor != "op" {
		t.Errorf("%+v", event)
	}
	// What was found is of the old values.
	fresh := apiv1.CredentialRequest{Name: "cloud", Provider: "dns_cloud", Values: map[string]string{"CLOUD_Key": "another"}}
	if got := w.send(http.MethodPut, at, admin, fresh); got.status != http.StatusOK {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.get(at+"/test", operator); got.status != http.StatusNotFound {
		t.Errorf("a test of values that are gone: %d %s", got.status, got.body)
	}
}

// endOfTest asks until a test is over.
func (w *world) endOfTest(t *testing.T, token, at string) apiv1.CredentialTestResult {
	t.Helper()
	for {
		if result := decode[apiv1.CredentialTestResult](t, w.get(at+"/test", token)); !result.Running || t.Context().Err() != nil {
			return result
		}
	}
}
