package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// output is a writer that several goroutines use.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// newConfig is of a hub in a temporary folder on a free port.
func newConfig(t *testing.T) Config {
	t.Helper()
	return Config{DataDir: filepath.Join(t.TempDir(), "hub"), Listen: "127.0.0.1:0", ReconcileInterval: time.Second}
}

// initialised is newConfig after Init.
func initialised(t *testing.T) (Config, Made) {
	t.Helper()
	cfg := newConfig(t)
	made, err := Init(t.Context(), cfg, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, made
}

func options(notices io.Writer, log io.Writer) Options {
	return Options{
		Version: "test", Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Notices: notices, Now: time.Now,
	}
}

// running starts a hub; stop ends it and returns what Run returned.
func running(t *testing.T, cfg Config) (h *Hub, notices, log *output, stop func() error) {
	t.Helper()
	notices, log = &output{}, &output{}
	h, err := New(t.Context(), cfg, options(notices, log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return h, notices, log, stop
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline.C:
			t.Fatalf("waited in vain: %s", what)
		case <-tick.C:
		}
	}
}

// setupCode is what the hub printed.
func setupCode(t *testing.T, notices *output) string {
	t.Helper()
	code := ""
	await(t, "setup code", func() bool {
		for line := range strings.Lines(notices.String()) {
			if text, ok := strings.CutPrefix(line, "setup code: "); ok {
				code = strings.TrimSpace(text)
			}
		}
		return code != ""
	})
	return code
}

func admin(t *testing.T, url, code string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{BaseURL: url, Session: &client.Session{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Setup(t.Context(), apiv1.SetupRequest{Code: code, Name: "ada", Password: "an engine of the mind"}); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMainJob takes a certificate from the API to a server's branch, and reads it there with a stock git.
func TestMainJob(t *testing.T) {
	t.Parallel()
	cfg, made := initialised(t)
	h, notices, log, stop := running(t, cfg)
	code := setupCode(t, notices)
	c := admin(t, h.URL(), code)
	token, err := c.CreateJoinToken(t.Context(), apiv1.JoinTokenRequest{Server: "web-1", Labels: map[string]string{"role": "edge"}})
	if err != nil {
		t.Fatal(err)
	}
	if token.RootFingerprint != made.RootFingerprint || token.HubURL != h.URL() {
		t.Errorf("token: %+v", token)
	}
	key, err := seal.Generate("web-1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.Public().Armor()
	if err != nil {
		t.Fatal(err)
	}
	registered, err := c.Register(t.Context(), apiv1.RegisterRequest{Token: token.Token, Name: "web-1", PublicKey: string(public)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ApproveServer(t.Context(), "web-1", key.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateCertificate(t.Context(), apiv1.CertificateSpec{
		Name: "example.com", Names: []string{"example.com"}, Issuer: DefaultIssuer,
		Deployments: []apiv1.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "web"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// A branch that moves between a clone's two requests fails the clone: wait until it stands.
	await(t, "certificate on the server's branch", func() bool {
		tip, err := h.store.ServerTip("web-1")
		return err == nil && len(tip.Manifest.Deployments) == 1
	})
	server, err := c.Server(t.Context(), "web-1")
	if err != nil || len(server.Deployments) != 1 || server.Deployments[0].WantLeafSHA256 == "" {
		t.Errorf("server: %+v, %v", server, err)
	}

	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	out := gitAs(t, "web-1", registered.Credential, "clone", "-q", "-b", "servers/web-1", registered.GitURL, clone)
	if _, err := os.Stat(filepath.Join(clone, manifest.BundlePath("example.com"))); err != nil {
		t.Errorf("clone: %v\n%s", err, out)
	}
	if out := gitAs(t, "web-1", registered.Credential, "ls-remote", registered.GitURL); strings.Contains(out, "refs/heads/main") {
		t.Errorf("the server is shown more than its branch:\n%s", out)
	}
	if out := gitAs(t, "web-2", registered.Credential, "ls-remote", registered.GitURL); strings.Contains(out, "refs/") {
		t.Errorf("another name with this credential is shown:\n%s", out)
	}
	session, err := c.Login(t.Context(), "ada", "an engine of the mind")
	if err != nil {
		t.Fatal(err)
	}
	if out := gitAs(t, "ada", session.AccessToken, "ls-remote", registered.GitURL); !strings.Contains(out, "refs/heads/main") {
		t.Errorf("a person is shown:\n%s", out)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, secret := range []string{code, token.Token, registered.Credential, session.AccessToken, "an engine of the mind"} {
		if strings.Contains(log.String(), secret) {
			t.Error("a secret stands in the log")
		}
	}
}

// gitAs runs git with a credential, which never stands in an argument.
func gitAs(t *testing.T, user, secret string, args ...string) string {
	t.Helper()
	helper := `!f() { echo "username=$GIT_TEST_USER"; echo "password=$GIT_TEST_SECRET"; }; f`
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "credential.helper=" + helper}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_TEST_USER="+user, "GIT_TEST_SECRET="+secret, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "git: " + err.Error() + "\n" + string(out)
	}
	return string(out)
}

func TestOnlyOneHubHasAFolder(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	_, _, _, stop := running(t, cfg)
	for name, open := range map[string]func() error{
		"serve": func() error { _, err := New(t.Context(), cfg, options(io.Discard, io.Discard)); return err },
		"user":  func() error { _, err := OpenAdmin(t.Context(), cfg, time.Now); return err },
		"store": func() error { _, err := VerifyStore(t.Context(), cfg, time.Now); return err },
	} {
		if err := open(); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "stop it first") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestConsoleIsServed(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	h, _, _, _ := running(t, cfg)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), "Certferry") || response.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("%d %v\n%s", response.StatusCode, response.Header, body)
	}
}

func TestSetupCodeEndsWithTheFirstAdministrator(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	h, notices, _, stop := running(t, cfg)
	admin(t, h.URL(), setupCode(t, notices))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	h, notices, _, stop = running(t, cfg)
	await(t, "address", func() bool { return strings.Contains(notices.String(), "console: "+h.URL()) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(notices.String(), "setup code") {
		t.Error("a setup code although there is an administrator")
	}
}

func TestAccountsWhileTheHubIsStopped(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	a, err := OpenAdmin(t.Context(), cfg, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if users, err := a.Users(t.Context()); err != nil || users == nil || len(users) != 0 {
		t.Errorf("users of a new hub: %v, %v", users, err)
	}
	if err := a.AddUser(t.Context(), "ada", "an engine of the mind", apiv1.RoleAdmin); err != nil {
		t.Fatal(err)
	}
	if err := a.AddUser(t.Context(), "ada", "an engine of the mind", apiv1.RoleAdmin); err == nil {
		t.Error("an account twice: no error")
	}
	if err := a.AddUser(t.Context(), "bob", "short", apiv1.RoleViewer); err == nil {
		t.Error("a short password: no error")
	}
	if err := a.SetPassword(t.Context(), "ada", "a second engine of mind"); err != nil {
		t.Error(err)
	}
	if err := a.SetPassword(t.Context(), "bob", "a second engine of mind"); err == nil || !strings.Contains(err.Error(), "no account") {
		t.Errorf("password of nobody: %v", err)
	}
	users, err := a.Users(t.Context())
	if err != nil || len(users) != 1 || users[0].Name != "ada" || users[0].Role != apiv1.RoleAdmin {
		t.Errorf("users: %+v, %v", users, err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	h, _, _, _ := running(t, cfg)
	c, err := client.New(client.Config{BaseURL: h.URL(), Session: &client.Session{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Login(t.Context(), "ada", "a second engine of mind"); err != nil {
		t.Error(err)
	}
	if _, err := OpenAdmin(t.Context(), Config{DataDir: "relative"}, time.Now); err == nil {
		t.Error("bad configuration: no error")
	}
}
