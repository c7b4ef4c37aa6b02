package acmesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == issuertest.StandInArg {
		os.Exit(issuertest.StandIn(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == killArg {
		os.Exit(orderToBeKilled())
	}
	os.Exit(m.Run())
}

var discard = slog.New(slog.DiscardHandler)

// world is a Pebble, an acme.sh (the real one where ACME_SH is set) and an issuer that joins them.
type world struct {
	pebble *issuertest.Pebble
	cfg    acmesh.Config
	issuer *acmesh.Issuer
	log    *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newWorld(t *testing.T, pebble issuertest.PebbleConfig) *world {
	t.Helper()
	dir := t.TempDir()
	pebble.Dir = dir
	p, err := issuertest.StartPebble(t.Context(), pebble)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	script := os.Getenv("ACME_SH")
	if script == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if script, err = issuertest.WriteStandIn(filepath.Join(dir, "standin"), exe); err != nil {
			t.Fatal(err)
		}
	}
	hooks := filepath.Join(dir, "hooks")
	if err := issuertest.WriteDNSHook(hooks); err != nil {
		t.Fatal(err)
	}
	w := &world{pebble: p, log: &syncBuffer{}}
	w.cfg = acmesh.Config{
		Script: script, HooksDir: hooks, StateDir: filepath.Join(dir, "state"), WorkDir: filepath.Join(dir, "work"),
		Directory: p.Directory, Email: "ops@example.com", CABundle: p.CABundle, StandalonePort: p.HTTPPort, TLSPort: p.TLSPort,
		Now: time.Now, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	w.open(t)
	return w
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	if w.issuer, err = acmesh.New(w.cfg); err != nil {
		t.Fatal(err)
	}
}

func (w *world) dns(token string) issuer.Challenge {
	return issuer.Challenge{Type: issuer.DNS01, Hook: issuertest.HookName, Credentials: map[string]string{
		"PEBBLETEST_URL": w.pebble.DNSManagement, "PEBBLETEST_TOKEN": token,
	}}
}

// serve answers on the port where Pebble looks for challenges.
func (w *world) serve(t *testing.T, handler http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", w.pebble.HTTPPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Second}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

func classOf(t *testing.T, err error) issuer.Class {
	t.Helper()
	failed := new(issuer.Error)
	if !errors.As(err, &failed) {
		t.Fatalf("%v, want an *issuer.Error", err)
	}
	return failed.Class
}

func TestWebrootConforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	root := filepath.Join(filepath.Dir(w.cfg.StateDir), "webroot")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.FileServer(http.Dir(root)))
	issuertest.Run(t, issuertest.Harness{
		Issuer: w.issuer, Names: []string{"www.example.test", "example.test"},
		Challenge: issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: root},
		Wildcard:  "*.example.test", WildcardChallenge: w.dns("canary-credential"),
	})
	w.leavesNothing(t, "canary-credential")
}

// leavesNothing holds that no home is left, and the credential stands in no file and no log.
func (w *world) leavesNothing(t *testing.T, credential string) {
	t.Helper()
	homes, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "[^.]*"))
	if err != nil || len(homes) > 0 {
		t.Errorf("%d homes are left (%v)", len(homes), err)
	}
	err = filepath.WalkDir(filepath.Dir(w.cfg.StateDir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(credential)) {
			t.Errorf("%s holds the credential", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(w.log.String(), credential) {
		t.Error("the log holds the credential")
	}
}

func TestStandalone(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("socat"); err != nil && os.Getenv("ACME_SH") != "" {
		t.Skip("skipped: acme.sh's standalone needs socat, which is not installed")
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "standalone.example.test")
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "standalone"}
	if _, err := w.issuer.Issue(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

func TestStateless(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	thumbprint, err := w.issuer.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(out, "%s.%s", filepath.Base(r.URL.Path), thumbprint)
	}))
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "stateless.example.test")
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
	if _, err := w.issuer.Issue(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

func TestAccountIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	registrations := 0
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "sign-me-up") {
				registrations++
			}
			next.ServeHTTP(out, r)
		})
	}})
	first, err := w.issuer.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.open(t)
	second, err := w.issuer.Thumbprint(t.Context())
	if err != nil || first != second || registrations != 1 {
		t.Errorf("%d registrations, thumbprints equal: %t, %v", registrations, first == second, err)
	}
	// The file that names the account is lost: it is found at the CA by its key.
	if err := filepath.WalkDir(w.cfg.StateDir, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == "account.json" {
			return os.Remove(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.open(t)
	if third, err := w.issuer.Thumbprint(t.Context()); err != nil || third != first {
		t.Errorf("after losing the account's file: %v", err)
	}
}

func TestFailuresHaveTheirClass(t *testing.T) {
	t.Parallel()
	t.Run("the DNS provider refuses", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, issuertest.PebbleConfig{})
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "dns.example.test")
		req.Challenge = w.dns("wrong")
		_, err := w.issuer.Issue(t.Context(), req)
		if got := classOf(t, err); got != issuer.DNSProvider {
			t.Errorf("class %s (%v)", got, err)
		}
	})
	t.Run("the CA cannot see the challenge", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, issuertest.PebbleConfig{})
		w.serve(t, http.NotFoundHandler())
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "http.example.test")
		req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
		_, err := w.issuer.Issue(t.Context(), req)
		if got := classOf(t, err); got != issuer.ValidationFailed {
			t.Errorf("class %s (%v)", got, err)
		}
		if failed := new(issuer.Error); errors.As(err, &failed) && failed.Name != "http.example.test" {
			t.Errorf("name %q", failed.Name)
		}
	})
	t.Run("the CA refuses the name", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, issuertest.PebbleConfig{Blocked: []string{"blocked.example.test"}})
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "blocked.example.test")
		req.Challenge = w.dns("x")
		_, err := w.issuer.Issue(t.Context(), req)
		if got := classOf(t, err); got != issuer.Permanent {
			t.Errorf("class %s (%v)", got, err)
		}
	})
	t.Run("the CA limits the rate", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.URL.Path, "order-plz") {
					next.ServeHTTP(out, r)
					return
				}
				out.Header().Set("Content-Type", "application/problem+json")
				out.Header().Set("Retry-After", "7200")
				out.Header().Set("Replay-Nonce", "bm9uY2U")
				out.WriteHeader(http.StatusTooManyRequests)
				_, _ = fmt.Fprint(out, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates","status":429}`)
			})
		}})
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "limited.example.test")
		req.Challenge = w.dns("x")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := w.issuer.Issue(ctx, req)
		failed := new(issuer.Error)
		if !errors.As(err, &failed) || failed.Class != issuer.RateLimited || failed.RetryAfter < time.Hour {
			t.Errorf("%v, want rate_limited with a wait", err)
		}
	})
	t.Run("the CA is away", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, issuertest.PebbleConfig{})
		_ = w.pebble.Close()
		req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "away.example.test")
		req.Challenge = w.dns("x")
		_, err := w.issuer.Issue(t.Context(), req)
		if got := classOf(t, err); got != issuer.Retryable {
			t.Errorf("class %s (%v)", got, err)
		}
	})
}

func TestCancelledOrderLeavesNoProcess(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	var once sync.Once
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "order-plz") {
				next.ServeHTTP(out, r)
				return
			}
			once.Do(func() { close(reached) })
			<-r.Context().Done() // a CA that hangs
		})
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "hang.example.test")
	req.Challenge = w.dns("x")
	go func() {
		_, err := w.issuer.Issue(ctx, req)
		done <- err
	}()
	<-reached
	cancel()
	select {
	case err := <-done:
		if classOf(t, err) != issuer.Retryable || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled order: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the order goes on after it was cancelled")
	}
	out, err := exec.Command("ps", "-eo", "args").Output()
	if err != nil {
		t.Skipf("skipped: ps does not work: %v", err)
	}
	if strings.Contains(string(out), w.cfg.WorkDir) {
		t.Errorf("a process of the run is left:\n%s", out)
	}
}

func TestBadValuesNeverRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	marker := filepath.Join(filepath.Dir(w.cfg.StateDir), "ran")
	evil := evilValues(marker)
	good, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "www.example.test")
	good.Challenge = w.dns("fine")
	change := map[string]func(r *issuer.Request, value string){
		"id":              func(r *issuer.Request, v string) { r.ID = v },
		"name":            func(r *issuer.Request, v string) { r.Names = []string{v} },
		"profile":         func(r *issuer.Request, v string) { r.Profile = v },
		"preferred chain": func(r *issuer.Request, v string) { r.PreferredChain = v },
		"hook":            func(r *issuer.Request, v string) { r.Challenge.Hook = v },
		"webroot": func(r *issuer.Request, v string) {
			r.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: v}
		},
		"method": func(r *issuer.Request, v string) { r.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: v} },
		"type":   func(r *issuer.Request, v string) { r.Challenge.Type = issuer.ChallengeType(v) },
		"credential": func(r *issuer.Request, v string) {
			r.Challenge.Credentials = map[string]string{"PEBBLETEST_TOKEN": v}
		},
		"variable":     func(r *issuer.Request, v string) { r.Challenge.Credentials = map[string]string{v: "x"} },
		"alias":        func(r *issuer.Request, v string) { r.Challenge.Alias = v },
		"domain alias": func(r *issuer.Request, v string) { r.Challenge.DomainAlias = v },
	}
	for what, set := range change {
		for _, value := range evil {
			req := good
			set(&req, value)
			_, err := w.issuer.Issue(t.Context(), req)
			if got := classOf(t, err); got != issuer.Permanent {
				t.Errorf("%s: class %s", what, got)
			}
			if len(value) > 5 && strings.Contains(err.Error(), value) {
				t.Errorf("%s: the error repeats the value", what)
			}
		}
	}
	for _, name := range []string{"PATH", "LD_PRELOAD", "ENV", "LE_WORKING_DIR", "HTTP_HEADER", "https_proxy", "Le_ReloadCmd", "CF_Token"} {
		req := good
		req.Challenge.Credentials = map[string]string{name: "x"}
		if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.Permanent {
			t.Errorf("variable %s: %v", name, err)
		}
	}
	wild, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "*.example.test")
	wild.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
	if _, err := w.issuer.Issue(t.Context(), wild); classOf(t, err) != issuer.Permanent {
		t.Errorf("wildcard by http-01: %v", err)
	}
	if _, err := os.Stat(marker); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a value was run as a command")
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	for what, change := range map[string]func(*acmesh.Config){
		"plain http":      func(c *acmesh.Config) { c.Directory = "http://ca.test/dir" },
		"quoted URL":      func(c *acmesh.Config) { c.Directory = "https://ca.test/'dir" },
		"e-mail":          func(c *acmesh.Config) { c.Email = "a'b@example.com" },
		"CA bundle":       func(c *acmesh.Config) { c.CABundle = "/a b" },
		"hooks":           func(c *acmesh.Config) { c.HooksDir = "/a'b" },
		"missing script":  func(c *acmesh.Config) { c.Script = "/nonexistent/acme.sh" },
		"relative script": func(c *acmesh.Config) { c.Script = "acme.sh" },
		"folder":          func(c *acmesh.Config) { c.Script = filepath.Dir(c.Script) },
		"no clock":        func(c *acmesh.Config) { c.Now = nil },
	} {
		cfg := w.cfg
		change(&cfg)
		if _, err := acmesh.New(cfg); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestWaitingOrderCanBeCancelled(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	var once sync.Once
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.Path, "order-plz") {
				next.ServeHTTP(out, r)
				return
			}
			once.Do(func() { close(reached) })
			<-r.Context().Done()
		})
	}})
	first, stopFirst := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stopFirst()
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "first.example.test")
	req.Challenge = w.dns("x")
	group.Go(func() { _, _ = w.issuer.Issue(first, req) })
	<-reached
	second, stopSecond := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stopSecond()
	_, err := w.issuer.Issue(second, req)
	if classOf(t, err) != issuer.Retryable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting order: %v", err)
	}
}
