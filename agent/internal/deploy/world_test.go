package deploy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deploy"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/gitstore/bundle"
)

// world is a server without a network: it reads pairs from disk as a real one does, and can fail in every way.
// It is its own deployer and prober.
type world struct {
	t     *testing.T
	ca    *deployertest.CA
	dir   string
	sites []string
	// policyText is appended to every target of the policy.
	policyText string
	policyErr  error

	mu     sync.Mutex
	loaded map[string]*x509.Certificate
	// stuck is a site that never takes a new certificate.
	stuck string
	// stopped, broken and jammed are the server's faults.
	stopped, broken, jammed bool
	// onTest and onReload are called first and may fail; n counts the calls from 1.
	onTest, onReload func(n int) error
	tests, reloads   int
}

// newWorld makes a server with the sites, which have no certificate yet.
func newWorld(t *testing.T, sites ...string) *world {
	t.Helper()
	w := &world{t: t, ca: deployertest.NewCA(t, time.Now()), dir: t.TempDir(), sites: sites, loaded: make(map[string]*x509.Certificate)}
	if err := os.Mkdir(w.path(""), 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, "ssl", name) }
func (w *world) cert(site string) string { return w.path(site + ".pem") }
func (w *world) key(site string) string  { return w.path(site + ".key") }
func (w *world) state() string           { return filepath.Join(w.dir, "state") }

// issue makes a certificate for a site. Each is a second younger than the one before.
func (w *world) issue(site string) *bundle.Bundle {
	w.t.Helper()
	w.ca.Now = w.ca.Now.Add(time.Second)
	return w.ca.Issue(w.t, site+".test")
}

// install puts b on disk and loads it, as was done before the agent came.
func (w *world) install(site string, b *bundle.Bundle) {
	w.t.Helper()
	deployertest.WritePair(w.t, b, w.cert(site), w.key(site))
	w.loaded[site] = b.Leaf
}

func (w *world) policy() (*policy.Policy, error) {
	if w.policyErr != nil {
		return nil, w.policyErr
	}
	text := "apiVersion: certferry/v1\nkind: Policy\ntargets:\n"
	for _, site := range w.sites {
		text += fmt.Sprintf("  %s:\n    deployer: files\n    certificate: %s\n    key: %s\n", site, w.cert(site), w.key(site))
		text += "    names: [" + site + ".test]\n    reload: [/bin/true]\n"
		if !strings.Contains(w.policyText, "probe:") {
			text += "    probe: {addresses: [\"127.0.0.1:443\"]}\n"
		}
		text += w.policyText
	}
	return policy.Decode([]byte(text))
}

func (w *world) deployer() *deploy.Deployer {
	w.t.Helper()
	d, err := deploy.New(deploy.Config{
		StateDir: w.state(), Deployers: map[string]agent.Deployer{"files": w}, Prober: w, Policy: w.policy,
		Now: time.Now, Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func deployment(site string, b *bundle.Bundle) agent.Deployment {
	return agent.Deployment{Certificate: site + ".test", Deployer: "files", Target: site, Names: []string{site + ".test"}, Bundle: b}
}

// deploy deploys one certificate on the site "web".
func (w *world) deploy(b *bundle.Bundle) agent.Outcome {
	w.t.Helper()
	return w.deployAll(deployment("web", b))[0]
}

func (w *world) deployAll(deployments ...agent.Deployment) []agent.Outcome {
	w.t.Helper()
	outcomes, err := w.deployer().Deploy(w.t.Context(), deployments)
	if err != nil || len(outcomes) != len(deployments) {
		w.t.Fatalf("%d outcomes, %v", len(outcomes), err)
	}
	return outcomes
}

// Files implements agent.Deployer.
func (w *world) Files(t agent.Target, b *bundle.Bundle) ([]agent.File, error) {
	return agent.Outputs(t, b)
}

func (w *world) read(site string) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(w.cert(site), w.key(site))
	return pair.Leaf, err
}

// Test implements agent.Deployer. Sites whose files are missing altogether are not configured yet.
func (w *world) Test(ctx context.Context, _ agent.Target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tests++
	if err := w.fault(ctx, w.onTest, w.tests, agent.PhaseTest); err != nil {
		return err
	}
	if w.broken {
		return &agent.StepError{Phase: agent.PhaseTest, Output: "unknown directive", Err: errors.New("exit status 1")}
	}
	for _, site := range w.sites {
		if _, err := w.read(site); err != nil && (!gone(w.cert(site)) || !gone(w.key(site))) {
			return &agent.StepError{Phase: agent.PhaseTest, Output: "cannot load " + site, Err: errors.New("exit status 1")}
		}
	}
	return nil
}

// Reload implements agent.Deployer.
func (w *world) Reload(ctx context.Context, _ agent.Target) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reloads++
	if err := w.fault(ctx, w.onReload, w.reloads, agent.PhaseReload); err != nil {
		return err
	}
	if w.jammed || w.broken {
		return nil
	}
	for _, site := range w.sites {
		if site == w.stuck {
			continue
		}
		if leaf, err := w.read(site); err == nil {
			w.loaded[site] = leaf
		} else if gone(w.cert(site)) {
			delete(w.loaded, site)
		}
	}
	return nil
}

func (w *world) fault(ctx context.Context, hook func(int) error, n int, phase agent.Phase) error {
	if w.stopped {
		return &agent.StepError{Phase: phase, Err: agent.ErrNotRunning}
	}
	if hook != nil {
		if err := hook(n); err != nil {
			return &agent.StepError{Phase: phase, Output: "the program's last words", Err: err}
		}
	}
	return ctx.Err()
}

// Probe implements agent.Prober.
func (w *world) Probe(_ context.Context, address, serverName string) (tls.ConnectionState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leaf := w.loaded[strings.TrimSuffix(serverName, ".test")]
	if leaf == nil || w.stopped {
		return tls.ConnectionState{}, fmt.Errorf("connect to %s as %s: refused", address, serverName)
	}
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, nil
}

func gone(path string) bool {
	_, err := os.Lstat(path)
	return err != nil
}

// wantOutcome compares an outcome; detail is part of its sentence.
func wantOutcome(t *testing.T, o agent.Outcome, state agent.State, phase agent.Phase, detail string) {
	t.Helper()
	if o.State != state || o.Phase != phase || !strings.Contains(o.Detail, detail) {
		t.Errorf("outcome %s at %s: %q\nwant %s at %s: %q", o.State, o.Phase, o.Detail, state, phase, detail)
	}
}

// wantServed wants b on disk and in clients' hands; nil stands for nothing at all.
func (w *world) wantServed(site string, b *bundle.Bundle) {
	w.t.Helper()
	w.wantOnDisk(site, b)
	switch served := w.loaded[site]; {
	case b == nil && served != nil:
		w.t.Errorf("%s serves a certificate", site)
	case b != nil && (served == nil || !served.Equal(b.Leaf)):
		w.t.Errorf("%s does not serve the wanted leaf", site)
	}
}

func (w *world) wantOnDisk(site string, b *bundle.Bundle) {
	w.t.Helper()
	leaf, err := w.read(site)
	switch {
	case b == nil && (!gone(w.cert(site)) || !gone(w.key(site))):
		w.t.Errorf("%s has files", site)
	case b != nil && (err != nil || !leaf.Equal(b.Leaf)):
		w.t.Errorf("%s has other files: %v", site, err)
	}
}

// wantTidy wants no staged file, and no more journals than are kept, each at its end.
func (w *world) wantTidy() {
	w.t.Helper()
	entries, err := os.ReadDir(w.path(""))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			w.t.Errorf("%s is left behind", e.Name())
		}
	}
	journals := w.journals()
	if len(journals) > 3 {
		w.t.Errorf("journals %v are left behind", journals)
	}
	if recovered, err := w.deployer().Recover(w.t.Context()); err != nil || len(recovered) > 0 {
		w.t.Errorf("there is something to recover: %v, %v", recovered, err)
	}
}

func (w *world) journals() []string {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.state(), "deployments"))
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return slices.Sorted(slices.Values(names))
}
