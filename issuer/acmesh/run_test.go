package acmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// events collects what an order tells.
type events struct {
	mu  sync.Mutex
	all []issuer.Event
}

func (e *events) tell(event issuer.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, event)
}

func (e *events) phases() (phases []issuer.Phase) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, event := range e.all {
		if event.Phase != "" {
			phases = append(phases, event.Phase)
		}
	}
	return phases
}

func (e *events) text() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var b strings.Builder
	for _, event := range e.all {
		b.WriteString(event.Line + "\n")
	}
	return b.String()
}

// lookup asks Pebble's DNS server.
func (w *world) lookup(ctx context.Context, name string) ([]string, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", w.pebble.Resolver)
	}}
	return r.LookupTXT(ctx, name+".")
}

func TestOneOrderMixesChallenges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.LookupTXT, w.cfg.DNSWait = w.lookup, time.Minute
	w.open(t)
	root := filepath.Join(filepath.Dir(w.cfg.StateDir), "webroot")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.FileServer(http.Dir(root)))
	w.pebble.DNS.AddDNSCNAMERecord("_acme-challenge.alias.mixed.test", "_acme-challenge.elsewhere.test")
	w.pebble.DNS.AddDNSCNAMERecord("_acme-challenge.literal.mixed.test", "any.elsewhere.test")

	names := []string{"www.mixed.test", "*.mixed.test", "mixed.test", "alpn.mixed.test", "alias.mixed.test", "literal.mixed.test"}
	req, key := issuertest.NewRequest(t, bundle.ECDSAP384, names...)
	aliased, literal := w.dns("canary-mixed"), w.dns("canary-mixed")
	aliased.Alias, literal.DomainAlias = "elsewhere.test", "any.elsewhere.test"
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: root}
	req.Overrides = map[string]issuer.Challenge{
		"*.mixed.test": w.dns("canary-mixed"), "alpn.mixed.test": {Type: issuer.TLSALPN01},
		"alias.mixed.test": aliased, "literal.mixed.test": literal,
	}
	told := &events{}
	req.Progress = told.tell
	got, err := w.issuer.Issue(t.Context(), req)
	if err != nil {
		t.Fatalf("%v\n%s", err, told.text())
	}
	b := &bundle.Bundle{Leaf: got.Chain[0], Chain: got.Chain[1:], Key: key}
	if err := b.Check(names, time.Now()); err != nil {
		t.Error(err)
	}
	phases := told.phases()
	for _, want := range []issuer.Phase{
		issuer.PhaseAccount, issuer.PhaseOrder, issuer.PhaseAuthorize, issuer.PhaseDNS, issuer.PhaseValidate,
		issuer.PhaseFinalize, issuer.PhaseDownload, issuer.PhaseCheck,
	} {
		if !slices.Contains(phases, want) {
			t.Errorf("nobody was told of phase %s: %v", want, phases)
		}
	}
	if text := told.text(); strings.Contains(text, "canary-mixed") || strings.Contains(text, "BEGIN CERTIFICATE") {
		t.Errorf("what is told holds what it must not:\n%s", text)
	}
	for _, name := range []string{"_acme-challenge.mixed.test", "_acme-challenge.elsewhere.test", "any.elsewhere.test"} {
		if left := w.pebble.DNS.GetDNSTXTRecords(name); len(left) > 0 {
			t.Errorf("records are left at %s", name)
		}
	}
	w.leavesNothing(t, "canary-mixed")
}

func TestManyNamesInOneOrder(t *testing.T) {
	t.Parallel()
	n := 20
	if os.Getenv("CERTFERRY_LONG") != "" {
		n = 100
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.LookupTXT, w.cfg.DNSWait, w.cfg.Timeout = w.lookup, time.Minute, 20*time.Minute
	w.open(t)
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("n%03d.many.test", i))
	}
	names[n-1] = "xn--bcher-kva.many.test"
	req, _ := issuertest.NewRequest(t, bundle.RSA3072, names...)
	thumbprint, err := w.issuer.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(out, "%s.%s", filepath.Base(r.URL.Path), thumbprint)
	}))
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
	got, err := w.issuer.Issue(t.Context(), req)
	if err != nil || len(got.Chain[0].DNSNames) != n {
		t.Fatalf("%v", err)
	}
	over, _ := issuertest.NewRequest(t, bundle.ECDSAP256, append(slices.Repeat([]string{"a.many.test"}, 100), "b.many.test")...)
	over.Challenge = req.Challenge
	if _, err := w.issuer.Issue(t.Context(), over); classOf(t, err) != issuer.Permanent {
		t.Errorf("101 names: %v", err)
	}
}

// TestAHookThatFailsCostsNoTryAtTheCA holds that no challenge is posted where a record cannot be made.
func TestAHookThatFailsCostsNoTryAtTheCA(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	posted := 0
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "chalZ") {
				mu.Lock()
				posted++
				mu.Unlock()
			}
			next.ServeHTTP(out, r)
		})
	}})
	names := []string{"good.hook.test", "bad.hook.test"}
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, names...)
	told := &events{}
	req.Progress = told.tell
	req.Challenge = w.dns("wrong")
	_, err := w.issuer.Issue(t.Context(), req)
	failed := new(issuer.Error)
	if !errors.As(err, &failed) || failed.Class != issuer.DNSProvider || failed.Phase != issuer.PhaseDNS || failed.Name != "good.hook.test" {
		t.Errorf("%+v, want class dns_provider in phase dns for good.hook.test", failed)
	}
	if posted != 0 {
		t.Errorf("%d challenges were posted", posted)
	}
	if left := w.pebble.DNS.GetDNSTXTRecords("_acme-challenge.good.hook.test"); len(left) > 0 {
		t.Error("a record is left")
	}
}

func TestHooksThatCannotBeMixed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "a.mix.test", "b.mix.test")
	req.Challenge = w.dns("one")
	req.Overrides = map[string]issuer.Challenge{"b.mix.test": w.dns("two")}
	_, err := w.issuer.Issue(t.Context(), req)
	if classOf(t, err) != issuer.Permanent || !strings.Contains(err.Error(), "PEBBLETEST_TOKEN") || strings.Contains(err.Error(), "two\"") {
		t.Errorf("two values of one variable: %v", err)
	}
	req.Overrides = map[string]issuer.Challenge{"c.mix.test": w.dns("one")}
	if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.Permanent {
		t.Errorf("a challenge for a name that is not there: %v", err)
	}
}

func TestTestDNS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	seen := 0
	var mu sync.Mutex
	w.cfg.LookupTXT = func(ctx context.Context, name string) ([]string, error) {
		values, err := w.lookup(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		if len(values) > 0 {
			seen++
		}
		return values, err
	}
	w.open(t)
	told := &events{}
	if err := w.issuer.TestDNS(t.Context(), w.dns("canary-test"), "zone.test", told.tell); err != nil {
		t.Fatalf("%v\n%s", err, told.text())
	}
	if seen == 0 {
		t.Error("nobody looked for the record")
	}
	if left := w.pebble.DNS.GetDNSTXTRecords("_acme-challenge.zone.test"); len(left) > 0 {
		t.Errorf("records are left: %v", left)
	}
	err := w.issuer.TestDNS(t.Context(), w.dns("wrong"), "zone.test", nil)
	if classOf(t, err) != issuer.DNSProvider {
		t.Errorf("a credential that the provider refuses: %v", err)
	}
	for _, domain := range []string{"", "zone", "*.zone.test", "a b.test", "$(id).test", strings.Repeat("a.", 150) + "test"} {
		if err := w.issuer.TestDNS(t.Context(), w.dns("x"), domain, nil); classOf(t, err) != issuer.Permanent {
			t.Errorf("domain %q: %v", domain, err)
		}
	}
	w.leavesNothing(t, "canary-test")
}

// TestOrdersRunSideBySide holds that orders of one account do not wait for each other.
func TestOrdersRunSideBySide(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	waiting, most := 0, 0
	w := newWorld(t, issuertest.PebbleConfig{})
	thumbprint, err := w.issuer.Thumbprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	w.serve(t, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		mu.Lock()
		waiting++
		most = max(most, waiting)
		if waiting == 3 {
			close(release)
		}
		mu.Unlock()
		select { // until all three are looked at
		case <-release:
		case <-time.After(30 * time.Second):
		}
		_, _ = fmt.Fprintf(out, "%s.%s", filepath.Base(r.URL.Path), thumbprint)
	}))
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, fmt.Sprintf("side%d.test", i))
			req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
			if _, err := w.issuer.Issue(t.Context(), req); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most < 3 {
		t.Errorf("%d orders at once, want 3", most)
	}
}

func TestChangedFilesAreNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	var asked []string
	w.cfg.Verify = func(files ...string) error {
		asked = files
		return errors.New("changed")
	}
	w.open(t)
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "verify.test")
	req.Challenge = w.dns("x")
	_, err := w.issuer.Issue(t.Context(), req)
	if classOf(t, err) != issuer.Local || !strings.Contains(err.Error(), "acme install") || !slices.Equal(asked, []string{"acme.sh"}) {
		t.Errorf("%v, asked for %v", err, asked)
	}
}

// TestRunsAsItsOwnUser holds what acme.sh may do, by a script in its place.
func TestRunsAsItsOwnUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can run a program as another user")
	}
	// What another user shall reach must not lie in a folder of ours alone.
	dir := t.TempDir()
	script := `#!/bin/sh
{ id -un; umask; ulimit -c; ulimit -t; ulimit -n; grep NoNewPrivs /proc/self/status; env | sort; pwd; } >"$CERTFERRY_RUN/said" 2>&1
cat "$CERTFERRY_RUN/said"
cat /etc/shadow
`
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "acme.sh"), []byte(script), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.Script, w.cfg.User, w.cfg.WorkDir = filepath.Join(dir, "acme.sh"), "nobody", filepath.Join(dir, "work")
	w.open(t)
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "user.test")
	req.Challenge = w.dns("canary-of-user")
	told := &events{}
	req.Progress = told.tell
	if _, err := w.issuer.Issue(t.Context(), req); err == nil {
		t.Fatal("a script that does nothing issued a certificate")
	}
	text := told.text()
	for _, want := range []string{"nobody\n", "0077\n", "\n0\n", "\n120\n", "\n256\n", "NoNewPrivs: 1", "PEBBLETEST_TOKEN=***", "Permission denied"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	for _, not := range []string{"root:", "ACME_SH", "GOPATH", "canary-of-user"} {
		if strings.Contains(text, not) {
			t.Errorf("it knows %q:\n%s", not, text)
		}
	}
}

func TestItsOwnUserMustReachItsFiles(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can run a program as another user")
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.User = "nobody"
	if _, err := acmesh.New(w.cfg); err == nil || !strings.Contains(err.Error(), "nobody cannot reach") {
		t.Errorf("a folder that is closed to the user: %v", err)
	}
	w.cfg.User = "no-such-user-here"
	if _, err := acmesh.New(w.cfg); err == nil || !strings.Contains(err.Error(), "no-such-user-here") {
		t.Errorf("a user that is not there: %v", err)
	}
}

// TestAnOrderThatTheCAFulfilsIsNotKilled cancels while the CA makes the certificate.
func TestAnOrderThatTheCAFulfilsIsNotKilled(t *testing.T) {
	t.Parallel()
	// The CA has the request, and the issuer has read that acme.sh sends it: the two do not come in an order.
	asked, told, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ask, tell, release := sync.OnceFunc(func() { close(asked) }), sync.OnceFunc(func() { close(told) }), sync.OnceFunc(func() { close(goOn) })
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "finalize") {
				body, _ := io.ReadAll(r.Body)
				ask()
				<-goOn
				r.Body = io.NopCloser(strings.NewReader(string(body)))
			}
			next.ServeHTTP(out, r)
		})
	}})
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "late.test")
	req.Challenge = w.dns("x")
	req.Progress = func(e issuer.Event) {
		if e.Phase == issuer.PhaseFinalize {
			tell()
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.issuer.Issue(ctx, req)
		done <- err
	}()
	for _, reached := range []<-chan struct{}{asked, told} {
		select {
		case <-reached:
		case err := <-done:
			t.Fatalf("the order ended before the CA made the certificate: %v", err)
		}
	}
	cancel()
	release()
	if err := <-done; err != nil {
		t.Errorf("the certificate was lost: %v", err)
	}
}

// killArg turns the test binary into a process that orders, to be killed.
const killArg = "order-to-be-killed"

// orderToBeKilled orders with the configuration in the environment.
func orderToBeKilled() int {
	var cfg acmesh.Config
	env := func(name string) string { return os.Getenv("KILL_" + name) }
	cfg.Script, cfg.HooksDir, cfg.StateDir, cfg.WorkDir = env("SCRIPT"), env("HOOKS"), env("STATE"), env("WORK")
	cfg.Directory, cfg.CABundle, cfg.User, cfg.Now, cfg.Logger = env("DIRECTORY"), env("BUNDLE"), env("USER"), time.Now, discard
	i, err := acmesh.New(cfg)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		return 2
	}
	csr, err := bundle.NewCSR(key, []string{env("NAME")})
	if err != nil {
		return 2
	}
	_, err = i.Issue(context.Background(), issuer.Request{
		ID: "killed", Names: []string{env("NAME")}, CSR: csr,
		Challenge: issuer.Challenge{Type: issuer.DNS01, Hook: issuertest.HookName, Credential: "test", Credentials: map[string]string{
			"PEBBLETEST_URL": env("URL"), "PEBBLETEST_TOKEN": "x",
		}},
		Progress: func(e issuer.Event) {
			if e.Phase != "" {
				fmt.Println("phase", e.Phase)
			}
		},
	})
	fmt.Println("end", err)
	return 0
}

// TestKilledOrdersAreClearedUp kills the ordering process in each phase.
func TestKilledOrdersAreClearedUp(t *testing.T) {
	t.Parallel()
	times := 1
	if os.Getenv("CERTFERRY_LONG") != "" {
		times = 50
	}
	for _, phase := range []issuer.Phase{
		issuer.PhaseAccount, issuer.PhaseOrder, issuer.PhaseAuthorize, issuer.PhaseDNS, issuer.PhaseValidate,
		issuer.PhaseFinalize, issuer.PhaseDownload,
	} {
		t.Run(string(phase), func(t *testing.T) {
			t.Parallel()
			for n := range times {
				w := newWorld(t, issuertest.PebbleConfig{}) // a folder of orders is one process's
				w.killIn(t, phase, fmt.Sprintf("k%d.%s.kill.test", n, phase))
			}
		})
	}
}

// kill orders in another process, which is killed in a phase.
func (w *world) kill(t *testing.T, phase issuer.Phase, name string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, killArg)
	cmd.Env = append(os.Environ(), "KILL_SCRIPT="+w.cfg.Script, "KILL_HOOKS="+w.cfg.HooksDir, "KILL_STATE="+w.cfg.StateDir, "KILL_WORK="+w.cfg.WorkDir,
		"KILL_DIRECTORY="+w.cfg.Directory, "KILL_BUNDLE="+w.cfg.CABundle, "KILL_NAME="+name, "KILL_URL="+w.pebble.DNSManagement, "KILL_USER="+w.cfg.User)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf, text := make([]byte, 4096), ""
	for !strings.Contains(text, "phase "+string(phase)) {
		n, err := out.Read(buf)
		text += string(buf[:n])
		if err != nil {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if !strings.Contains(text, "phase "+string(phase)) {
		t.Fatalf("it never came to %s: %s", phase, text)
	}
}

func (w *world) killIn(t *testing.T, phase issuer.Phase, name string) {
	t.Helper()
	w.kill(t, phase, name)
	left, err := w.issuer.Recover(t.Context(), func(name string) (map[string]string, error) {
		if name != "test" {
			return nil, fmt.Errorf("no credential %s", name)
		}
		return map[string]string{"PEBBLETEST_URL": w.pebble.DNSManagement, "PEBBLETEST_TOKEN": "x"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if phase.Reached(issuer.PhaseOrder) && (len(left) != 1 || left[0].OrderID != "killed" || !left[0].Phase.Reached(phase)) {
		t.Errorf("killed in %s, found %+v", phase, left)
	}
	if records := w.pebble.DNS.GetDNSTXTRecords("_acme-challenge." + name); len(records) > 0 {
		t.Errorf("records are left: %v", records)
	}
	homes, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "[^.]*"))
	if err != nil || len(homes) > 0 {
		t.Errorf("%d folders are left, %v", len(homes), err)
	}
	if ps, err := exec.Command("ps", "-eo", "args").Output(); err == nil && strings.Contains(string(ps), w.cfg.WorkDir+"/") {
		t.Errorf("a process is left:\n%s", ps)
	}
	// The next order of the name goes through.
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, name)
	req.Challenge = w.dns("x")
	if _, err := w.issuer.Issue(t.Context(), req); err != nil {
		t.Errorf("the order after it: %v", err)
	}
}
