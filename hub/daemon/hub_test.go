package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/issuer/privateca"
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

func TestInitMakesAWholeHub(t *testing.T) {
	t.Parallel()
	cfg, made := initialised(t)
	err := filepath.WalkDir(cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(made.RootKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.ParsePrivateKey(root)
	if err != nil || key.Fingerprint() != made.RootFingerprint {
		t.Errorf("root key %v, %v", key, err)
	}
	if _, err := os.Stat(cfg.paths().unfinished()); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the folder is still marked as unfinished")
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) != 0 || report.RepoID != made.RepoID {
		t.Errorf("report %+v, %v", report, err)
	}
	// Without the root key, which is offline by now, the hub works.
	if err := os.Remove(made.RootKey); err != nil {
		t.Fatal(err)
	}
	_, _, log, stop := running(t, cfg)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "root key is still on this machine") {
		t.Error("warned of a root key that is gone")
	}
}

func TestInitTouchesNothingThatIsThere(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	before, err := os.ReadFile(cfg.paths().keyring())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), cfg, time.Now); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("second init: %v", err)
	}
	if after, err := os.ReadFile(cfg.paths().keyring()); err != nil || !bytes.Equal(before, after) {
		t.Error("the keyring changed")
	}

	used := newConfig(t)
	if err := os.MkdirAll(used.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(used.DataDir, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), used, time.Now); err == nil || !strings.Contains(err.Error(), `is not empty (it holds "letter")`) {
		t.Errorf("init in a folder in use: %v", err)
	}

	elsewhere := newConfig(t)
	elsewhere.SigningKey = filepath.Join(t.TempDir(), "signing.key")
	if err := os.WriteFile(elsewhere.SigningKey, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), elsewhere, time.Now); err == nil || !strings.Contains(err.Error(), "never replaced") {
		t.Errorf("init over a key: %v", err)
	}

	file := newConfig(t)
	if err := os.WriteFile(file.DataDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), file, time.Now); err == nil {
		t.Error("init in a file: no error")
	}
	if _, err := Init(t.Context(), Config{DataDir: "relative"}, time.Now); err == nil {
		t.Error("init with a bad configuration: no error")
	}
}

func TestInitThatDidNotFinishIsSaid(t *testing.T) {
	t.Parallel()
	cfg := newConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Init(ctx, cfg, time.Now); err == nil || !strings.Contains(err.Error(), "remove the folder") {
		t.Fatalf("interrupted init: %v", err)
	}
	for name, open := range map[string]func() error{
		"serve": func() error { _, err := New(t.Context(), cfg, options(io.Discard, io.Discard)); return err },
		"user":  func() error { _, err := OpenAdmin(t.Context(), cfg, time.Now); return err },
		"store": func() error { _, err := VerifyStore(t.Context(), cfg, time.Now); return err },
	} {
		if err := open(); err == nil || !strings.Contains(err.Error(), "did not come to its end") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(t.Context(), newConfig(t), options(io.Discard, io.Discard)); err == nil || !strings.Contains(err.Error(), "certferry-hub init") {
		t.Errorf("no hub: %v", err)
	}
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
	var server apiv1.Server
	await(t, "certificate on the server's branch", func() bool {
		if server, err = c.Server(t.Context(), "web-1"); err != nil {
			t.Fatal(err)
		}
		return len(server.Deployments) == 1 && server.WantGeneration > 0 && server.Deployments[0].WantLeafSHA256 != ""
	})

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

func TestStartsThatAreRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() }) // the parallel subtests outlive this function
	for _, tc := range []struct {
		name  string
		spoil func(tb testing.TB, cfg *Config)
		want  string
	}{
		{"taken port", func(_ testing.TB, cfg *Config) { cfg.Listen = taken.Addr().String() }, "another program has this port: stop it"},
		{"address of another machine", func(_ testing.TB, cfg *Config) { cfg.Listen, cfg.AllowPlainHTTP = "192.0.2.1:0", true }, "does not have that address"},
		{"bad configuration", func(_ testing.TB, cfg *Config) { cfg.Workers = -1 }, "workers: must lie between"},
		{"readable key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			chmod(tb, filepath.Join(cfg.paths().keys(), "signing.key"), 0o640)
		}, "others may read it"},
		{"missing key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			remove(tb, filepath.Join(cfg.paths().keys(), "escrow.key"))
		}, "read escrow key"},
		{"damaged key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.paths().keys(), "escrow.key"), "no key")
		}, "read escrow key"},
		{"damaged root key", func(tb testing.TB, cfg *Config) { tb.Helper(); overwrite(tb, cfg.paths().rootPub(), "no key") }, "read root key"},
		{"missing root key", func(tb testing.TB, cfg *Config) { tb.Helper(); remove(tb, cfg.paths().rootPub()) }, "read root key"},
		{"keyring that nobody signed", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			data, err := os.ReadFile(cfg.paths().keyring())
			if err != nil {
				tb.Fatal(err)
			}
			overwrite(tb, cfg.paths().keyring(), strings.Replace(string(data), `"version":1`, `"version":2`, 1))
		}, "not signed by the root key"},
		{"keyring without signature", func(tb testing.TB, cfg *Config) { tb.Helper(); remove(tb, cfg.paths().keyringSig()) }, "signature"},
		{"short token key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.DataDir, "jwt.key"), "c2hvcnQ=")
		}, "base64 of at least 32 bytes"},
		{"huge key", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			overwrite(tb, filepath.Join(cfg.DataDir, "jwt.key"), strings.Repeat("A", 1<<20))
		}, "too large"},
		{"key that is a folder", func(tb testing.TB, cfg *Config) {
			tb.Helper()
			remove(tb, filepath.Join(cfg.DataDir, "jwt.key"))
			if err := os.Mkdir(filepath.Join(cfg.DataDir, "jwt.key"), 0o700); err != nil {
				tb.Fatal(err)
			}
		}, "not a file"},
		{"no TLS certificate", func(_ testing.TB, cfg *Config) { cfg.TLSCert, cfg.TLSKey = "/nonexistent/a", "/nonexistent/b" }, "read TLS certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := initialised(t)
			tc.spoil(t, &cfg)
			_, err := New(t.Context(), cfg, options(io.Discard, io.Discard))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			// What was opened was closed: the folder is free.
			held, err := takeLock(cfg.paths())
			if err != nil {
				t.Fatal(err)
			}
			if err := held.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := New(t.Context(), newConfig(t), Options{}); err == nil {
		t.Error("no options: no error")
	}
}

func chmod(tb testing.TB, path string, mode fs.FileMode) {
	tb.Helper()
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

func remove(tb testing.TB, path string) {
	tb.Helper()
	if err := os.Remove(path); err != nil {
		tb.Fatal(err)
	}
}

func overwrite(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
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

func TestVerifyStoreFindsDamage(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	full := cfg
	if err := full.Complete(); err != nil {
		t.Fatal(err)
	}
	k, err := loadKeys(&full, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(&full, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := store.Repo().Ref(manifest.MainBranch)
	person := gitrepo.Person{Name: "Somebody", Email: "somebody@example.com"}
	_, err = store.Repo().Apply(t.Context(), []gitrepo.Update{{
		Ref: manifest.MainBranch, Base: head, Parents: []gitrepo.Hash{head}, Author: person, Committer: person, Message: "slip",
		Edits: []gitrepo.Edit{{Path: "certificates/broken.yaml", Data: []byte("what: ever\n")}},
	}}, nil)
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) != 1 || !strings.Contains(report.Faults[0], "certificates/broken.yaml") {
		t.Errorf("report %+v, %v", report, err)
	}
	if _, err := VerifyStore(t.Context(), Config{DataDir: "relative"}, time.Now); err == nil {
		t.Error("bad configuration: no error")
	}
}

func TestExportedKeysCheckCommitsAndOpenBundles(t *testing.T) {
	t.Parallel()
	cfg, made := initialised(t)
	if err := cfg.Complete(); err != nil {
		t.Fatal(err)
	}
	public, err := ExportPublicKeys(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	root, err := seal.ParsePublicKey(public.Root)
	if err != nil || root.Fingerprint() != made.RootFingerprint {
		t.Errorf("root: %v", err)
	}
	signing, err := seal.ParsePublicKey(public.Signing)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ExportEscrowSecret(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	escrow, err := seal.ParsePrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := seal.ParsePublicKey(public.Escrow); err != nil || other.Fingerprint() != escrow.Fingerprint() {
		t.Error("the escrow keys are not a pair")
	}
	k, err := loadKeys(&cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(&cfg, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if got := snapshot.Issuers[DefaultIssuer]; got == nil || got.Type != "privateca" {
		t.Errorf("default issuer: %+v", got)
	}
	h, err := gitrepo.ParseHash(snapshot.Commit)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := store.Repo().Commit(h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Verify("", commit.Payload, []byte(commit.Signature), []*seal.PublicKey{signing}, time.Now()); err != nil {
		t.Error(err)
	}
	if commit.Committer.Email != "hub@127.0.0.1" {
		t.Errorf("committer %+v", commit.Committer)
	}
	empty := newConfig(t)
	if _, err := ExportPublicKeys(empty, time.Now()); err == nil {
		t.Error("no hub: no error")
	}
	if _, err := ExportEscrowSecret(empty, time.Now()); err == nil {
		t.Error("no hub: no error")
	}
}

func TestTLSListenerTakesANewCertificate(t *testing.T) {
	t.Parallel()
	cfg, _ := initialised(t)
	ca := filepath.Join(t.TempDir(), "ca")
	if err := privateca.Init(ca, "Test", time.Now()); err != nil {
		t.Fatal(err)
	}
	signer, err := privateca.New(privateca.Config{Dir: ca, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "hub.crt"), filepath.Join(dir, "hub.key")
	first := writePair(t, signer, &cfg)
	h, _, _, stop := running(t, cfg)
	if !strings.HasPrefix(h.URL(), "https://127.0.0.1:") {
		t.Errorf("address is %s", h.URL())
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(signer.RootPEM())
	served := func() string {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.URL()+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		return response.TLS.PeerCertificates[0].SerialNumber.String()
	}
	if got := served(); got != first {
		t.Errorf("served %s, want %s", got, first)
	}
	second := writePair(t, signer, &cfg)
	if got := served(); got != second {
		t.Errorf("served %s after the change, want %s", got, second)
	}
	// Half a change is not served.
	overwrite(t, cfg.TLSKey, "no key")
	if got := served(); got != second {
		t.Error("a damaged key ended the service")
	}
	remove(t, cfg.TLSKey)
	if got := served(); got != second {
		t.Error("a missing key ended the service")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
