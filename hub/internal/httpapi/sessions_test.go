package httpapi_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

func cookieOf(t *testing.T, r reply) *http.Cookie {
	t.Helper()
	cookies := (&http.Response{Header: r.header}).Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies: %v", r.header)
	}
	return cookies[0]
}

func TestSetupLoginRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	code, _, err := w.auth.EnsureSetupCode(t.Context())
	w.must(err)
	if !decode[apiv1.SetupState](t, w.get("/api/v1/auth/setup", "")).Required {
		t.Error("setup is not required on an empty hub")
	}
	wrong := apiv1.SetupRequest{Code: "cfs_canary-code", Name: "anna", Password: password}
	if r := w.send(http.MethodPost, "/api/v1/auth/setup", "", wrong); r.status != http.StatusUnauthorized || strings.Contains(string(r.body), "canary") {
		t.Errorf("wrong code: %d %s", r.status, r.body)
	}
	r := w.send(http.MethodPost, "/api/v1/auth/setup", "", apiv1.SetupRequest{Code: code, Name: "anna", Password: password})
	s := decode[apiv1.Session](t, r)
	if s.User.Role != apiv1.RoleAdmin || s.AccessToken == "" || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("setup: %s %v", r.body, r.header)
	}
	ck := cookieOf(t, r)
	if ck.Name != "rt" || ck.Path != "/api/v1/auth" || !ck.HttpOnly || ck.SameSite != http.SameSiteStrictMode || ck.Secure || ck.MaxAge <= 3600 {
		t.Errorf("cookie %+v", ck)
	}
	if strings.Contains(string(r.body), ck.Value) {
		t.Error("the refresh token is in the body")
	}
	if r := w.send(http.MethodPost, "/api/v1/auth/setup", "", apiv1.SetupRequest{Code: code, Name: "mallory", Password: password}); r.status != http.StatusUnauthorized {
		t.Errorf("second setup: %d %s", r.status, r.body)
	}
	if decode[apiv1.SetupState](t, w.get("/api/v1/auth/setup", "")).Required {
		t.Error("setup is required still")
	}
	if me := decode[apiv1.User](t, w.get("/api/v1/auth/me", s.AccessToken)); me.Name != "anna" {
		t.Errorf("me: %+v", me)
	}

	r = w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Cookie", "rt="+ck.Value)
	next := cookieOf(t, r)
	if decode[apiv1.Session](t, r).AccessToken == "" || next.Value == ck.Value {
		t.Errorf("refresh: %s", r.body)
	}
	// Another tab with the old token, at the same time: an access token, and the new cookie stays.
	r = w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Cookie", "rt="+ck.Value)
	if decode[apiv1.Session](t, r).AccessToken == "" || r.header.Get("Set-Cookie") != "" {
		t.Errorf("refresh in the grace: %v", r.header)
	}
	w.pass(time.Minute)
	for _, value := range []string{ck.Value, next.Value, "cfr_canary"} {
		r = w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Cookie", "rt="+value)
		if r.status != http.StatusUnauthorized || strings.Contains(string(r.body), value) {
			t.Errorf("after theft: %d %s", r.status, r.body)
		}
		if gone := cookieOf(t, r); gone.MaxAge >= 0 {
			t.Errorf("the useless cookie stays: %+v", gone)
		}
	}
	if row := w.audit(); row.Action != "refresh" || row.Outcome != hub.OutcomeDenied {
		t.Errorf("audit row %+v", row)
	}
}

func TestLoginAndThrottle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.person("anna", apiv1.RoleAdmin)
	r := w.send(http.MethodPost, "/api/v1/auth/login", "", apiv1.LoginRequest{Name: "anna", Password: password})
	if s := decode[apiv1.Session](t, r); s.User.Name != "anna" {
		t.Errorf("login: %s", r.body)
	}
	bad := apiv1.LoginRequest{Name: "anna", Password: "canary-password"}
	for i := range 7 {
		before := w.audit().Seq
		r = w.send(http.MethodPost, "/api/v1/auth/login", "", bad)
		want := http.StatusUnauthorized
		if i >= 5 {
			want = http.StatusTooManyRequests
		}
		if r.status != want || strings.Contains(string(r.body), "canary") {
			t.Errorf("attempt %d: %d %s", i, r.status, r.body)
		}
		if row := w.audit(); row.Seq != before+1 || row.Outcome != hub.OutcomeDenied || row.Action != "login" {
			t.Errorf("attempt %d: rows %d to %d, %+v", i, before, row.Seq, row)
		}
	}
	if r.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	if strings.Contains(w.log.String(), "canary") || strings.Contains(w.log.String(), password) {
		t.Error("the log holds a password")
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("anna", apiv1.RoleAdmin)
	if r := w.send(http.MethodPost, "/api/v1/auth/logout", "", nil); r.status != http.StatusUnauthorized {
		t.Errorf("nobody logs out: %d", r.status)
	}
	r := w.send(http.MethodPost, "/api/v1/auth/logout", token, nil)
	if r.status != http.StatusNoContent || len(r.body) != 0 || cookieOf(t, r).MaxAge >= 0 {
		t.Errorf("%d %s %v", r.status, r.body, r.header)
	}
	if r := w.get("/api/v1/auth/me", token); r.status != http.StatusUnauthorized {
		t.Errorf("the token lives on: %d", r.status)
	}
}

// TestOverTLS: with an https address cookies are for TLS only and browsers are told to stay with it.
func TestOverTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.PublicURL = "https://hub.example.com/" })
	w.person("anna", apiv1.RoleAdmin)
	r := w.send(http.MethodPost, "/api/v1/auth/login", "", apiv1.LoginRequest{Name: "anna", Password: password})
	ck := cookieOf(t, r)
	if ck.Name != "__Secure-rt" || !ck.Secure || r.header.Get("Strict-Transport-Security") == "" {
		t.Errorf("cookie %+v, headers %v", ck, r.header)
	}
	if r := w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Cookie", "rt="+ck.Value); r.status != http.StatusUnauthorized {
		t.Errorf("the other name is read: %d", r.status)
	}
	if r := w.send(http.MethodPost, "/api/v1/auth/refresh", "", nil, "Cookie", "__Secure-rt="+ck.Value); r.status != http.StatusOK {
		t.Errorf("refresh: %d %s", r.status, r.body)
	}
}

func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	admin := w.person("anna", apiv1.RoleAdmin)
	made := w.send(http.MethodPost, "/api/v1/users", admin, apiv1.CreateUserRequest{Name: "otto", Password: password, Role: apiv1.RoleOperator})
	if u := decode[apiv1.User](t, made); made.status != http.StatusCreated || u.Name != "otto" || u.Role != apiv1.RoleOperator {
		t.Errorf("%d %s", made.status, made.body)
	}
	if row := w.audit(); row.Action != "create-user" || row.Object != "otto" || row.Actor != "anna" {
		t.Errorf("audit row %+v", row)
	}
	if r := w.send(http.MethodPost, "/api/v1/users", admin, apiv1.CreateUserRequest{Name: "otto", Password: password, Role: apiv1.RoleViewer}); r.status != http.StatusConflict {
		t.Errorf("twice: %d %s", r.status, r.body)
	}
	r := w.send(http.MethodPost, "/api/v1/users", admin, apiv1.CreateUserRequest{Name: "weak", Password: "passwordpassword", Role: apiv1.RoleViewer})
	if p := r.problem(t); r.status != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0].Location != "body.password" {
		t.Errorf("weak: %d %s", r.status, r.body)
	}
	for _, name := range []string{"u1", "u2", "u3"} {
		w.person(name, apiv1.RoleViewer)
	}
	var names []string
	for after := ""; ; {
		page := decode[apiv1.List[apiv1.User]](t, w.get("/api/v1/users?limit=2&after="+after, admin))
		for _, u := range page.Items {
			names = append(names, u.Name)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "anna otto u1 u2 u3" {
		t.Errorf("pages: %s", got)
	}
	if page := decode[apiv1.List[apiv1.User]](t, w.get("/api/v1/users?q=U&limit=2", admin)); len(page.Items) != 2 || page.Next != "u2" {
		t.Errorf("search: %+v", page)
	}
	if page := decode[apiv1.List[apiv1.User]](t, w.get("/api/v1/users?q=nobody", admin)); page.Items == nil || len(page.Items) != 0 || page.Next != "" {
		t.Errorf("empty search: %+v", page)
	}
}
