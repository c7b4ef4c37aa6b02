package httpapi_test

import (
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// TestClient drives the API by the client that agent and CLI use, over TLS.
func TestClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.PublicURL = "https://hub.example.com" })
	srv := httptest.NewTLSServer(w.srv.Config.Handler)
	defer srv.Close()
	connect := func(change func(*client.Config)) *client.Client {
		cfg := client.Config{BaseURL: srv.URL, HTTP: srv.Client()}
		change(&cfg)
		c, err := client.New(cfg)
		w.must(err)
		return c
	}
	ctx := t.Context()
	w.person("anna", apiv1.RoleAdmin)
	var stored client.Session
	keep := func(s client.Session) error { //nolint:unparam // the type is the client's
		stored = s
		return nil
	}
	operator := connect(func(c *client.Config) { c.OnSession = keep })
	if _, err := operator.Me(ctx); client.StatusOf(err) != 401 {
		t.Errorf("before login: %v", err)
	}
	if _, err := operator.Login(ctx, "anna", "wrong password"); client.StatusOf(err) != 401 {
		t.Errorf("wrong password: %v", err)
	}
	_, err := operator.Login(ctx, "anna", password)
	w.must(err)
	if stored.AccessToken == "" || stored.RefreshToken == "" || stored.User != "anna" {
		t.Fatalf("stored %+v", stored)
	}

	token, err := operator.CreateJoinToken(ctx, apiv1.JoinTokenRequest{Server: "web-1", PreApproved: true})
	w.must(err)
	reg, err := connect(func(*client.Config) {}).Register(ctx, apiv1.RegisterRequest{Token: token.Token, Name: "web-1", PublicKey: publicKey(t)})
	w.must(err)
	agent := connect(func(c *client.Config) { c.Token = client.Static(reg.Credential) })
	beat, err := agent.Heartbeat(ctx, apiv1.HeartbeatRequest{Counter: 1, Status: "ok"})
	if err != nil || beat.State != "approved" {
		t.Errorf("heartbeat %+v, %v", beat, err)
	}
	w.must(agent.Report(ctx, apiv1.ReportRequest{ID: "1", At: w.clock(), Cause: "poll", Deployments: []apiv1.DeploymentReport{}}))
	if _, err := agent.Servers(ctx, client.Page{}); client.StatusOf(err) != 403 {
		t.Errorf("an agent lists servers: %v", err)
	}

	// Next day, in another process: the access token has expired, the stored session goes on.
	w.pass(2 * time.Hour)
	later := connect(func(c *client.Config) { c.Session, c.OnSession = &stored, keep })
	before := stored
	server, err := later.Server(ctx, "web-1")
	if err != nil || !server.CreatedAt.Equal(start) || stored.AccessToken == before.AccessToken || stored.RefreshToken == before.RefreshToken {
		t.Errorf("server %+v, %v", server, err)
	}
	names := ""
	for s, err := range client.All(ctx, later.Servers, client.Page{Limit: 1}) {
		w.must(err)
		names += s.Name
	}
	if names != "web-1" {
		t.Errorf("servers %s", names)
	}
	_, err = later.CreateCertificate(ctx, apiv1.CertificateSpec{Name: "x", Names: []string{}, Issuer: "private"})
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Status != 422 || refused.Problem.Errors[0].Location != "body.names" || refused.Problem.RequestID == "" {
		t.Errorf("refused: %v", err)
	}
	w.must(later.Logout(ctx))
	if stored != (client.Session{}) {
		t.Errorf("after logout %+v", stored)
	}
	if _, err := later.Me(ctx); client.StatusOf(err) != 401 {
		t.Errorf("after logout: %v", err)
	}
}
