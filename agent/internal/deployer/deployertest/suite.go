// This file is the conformance suite: what package deploy expects of every deployer.

package deployertest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

// Harness is a deployer with a real server that serves one target.
type Harness struct {
	Deployer agent.Deployer
	Target   agent.Target
	Server   *Server
	// Break spoils the server's configuration by something else than the pair; nil if it has none.
	Break func()
	// Jam makes the server ignore reloads; nil if the deployer could not know.
	Jam func()
	// KnowsServer says that the deployer notices that its server does not run.
	KnowsServer bool
}

// Name is the DNS name of the certificates in the suite.
const Name = "www.example.com"

// conformance is one test of the suite.
type conformance struct {
	*testing.T

	ca *CA
	h  *Harness
}

// Run runs the suite; start starts a server that serves b, anew for each test.
func Run(t *testing.T, start func(tb testing.TB, b *bundle.Bundle) *Harness) {
	t.Helper()
	ca := NewCA(t, time.Now()) //nolint:forbidigo // real servers look at the real clock
	for name, test := range map[string]func(conformance){
		"files":             conformance.files,
		"good":              conformance.good,
		"broken":            conformance.broken,
		"mismatched":        conformance.mismatched,
		"jammed":            conformance.jammed,
		"cancelled":         conformance.cancelled,
		"not running":       conformance.notRunning,
		"changes no file":   conformance.changesNothing,
		"reloads many":      conformance.reloadsMany,
		"key stays private": conformance.keyStaysPrivate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(conformance{T: t, ca: ca, h: start(t, ca.Issue(t, Name))})
		})
	}
}

func (t conformance) files() {
	b := t.ca.Issue(t, Name)
	files, err := t.h.Deployer.Files(t.h.Target, b)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for i, f := range files {
		all = append(all, f.Data...)
		if !filepath.IsAbs(f.Path) {
			t.Errorf("file %q is not absolute", f.Path)
		}
		if !slices.Contains(t.paths(), f.Path) {
			t.Errorf("file %s does not stand in the target", f.Path)
		}
		if holdsKey := bytes.Contains(f.Data, []byte("PRIVATE KEY")); holdsKey != f.Secret {
			t.Errorf("file %s: secret is %v but it holds a key: %v", f.Path, f.Secret, holdsKey)
		}
		if f.Secret && i > 0 && !files[i-1].Secret {
			t.Error("a key comes after a certificate")
		}
	}
	if back, err := tls.X509KeyPair(all, all); err != nil || bundle.LeafSHA256(back.Leaf) != b.LeafSHA256() || len(back.Certificate) != 1+len(b.Chain) {
		t.Errorf("leaf, chain and key do not come back from the files: %v", err)
	}
	if _, err := t.h.Deployer.Files(t.h.Target, &bundle.Bundle{Leaf: b.Leaf, Chain: b.Chain}); err == nil {
		t.Error("a bundle without a key is accepted")
	}
}

func (t conformance) good() {
	if err := t.h.Deployer.Test(t.Context(), t.h.Target); err != nil {
		t.Fatal(err)
	}
	b := t.ca.Issue(t, Name)
	t.install(b)
	if err := t.h.Deployer.Test(t.Context(), t.h.Target); err != nil {
		t.Fatal(err)
	}
	t.reloadAndSee(b)
}

func (t conformance) reloadsMany() {
	for range 3 {
		b := t.ca.Issue(t, Name)
		t.install(b)
		t.reloadAndSee(b)
	}
}

func (t conformance) reloadAndSee(b *bundle.Bundle) {
	t.Helper()
	if err := t.h.Deployer.Reload(t.Context(), t.h.Target); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := probe.Await(ctx, new(probe.Prober), probe.Endpoint{Address: t.h.Server.Address, ServerName: Name}, b.LeafSHA256()); err != nil {
		t.Fatal(err)
	}
}

func (t conformance) broken() {
	if t.h.Break == nil {
		t.Skip("this server has no configuration beside its pair")
	}
	t.h.Break()
	t.wantStep(t.h.Deployer.Test(t.Context(), t.h.Target), agent.PhaseTest)
}

func (t conformance) mismatched() {
	b := t.ca.Issue(t, Name)
	b.Key = t.ca.Issue(t, Name).Key
	t.install(b)
	t.wantStep(t.h.Deployer.Test(t.Context(), t.h.Target), agent.PhaseTest)
}

// wantStep wants a failing step that says what the program said.
func (t conformance) wantStep(err error, phase agent.Phase) {
	t.Helper()
	var step *agent.StepError
	if !errors.As(err, &step) || step.Phase != phase || step.Output == "" {
		t.Fatalf("the error is %#v, want a step error of the phase %q with output", err, phase)
	}
	if errors.Is(err, agent.ErrNotRunning) {
		t.Error("the error says that the server does not run")
	}
}

func (t conformance) jammed() {
	if t.h.Jam == nil {
		t.Skip("this deployer cannot know whether its server reloaded; the probe tells")
	}
	t.h.Jam()
	t.install(t.ca.Issue(t, Name))
	err := t.h.Deployer.Reload(t.Context(), t.h.Target)
	var step *agent.StepError
	if !errors.As(err, &step) || step.Phase != agent.PhaseReload {
		t.Fatalf("the error is %v, want a step error of the phase reload", err)
	}
}

func (t conformance) cancelled() {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := t.h.Deployer.Test(ctx, t.h.Target); !errors.Is(err, context.Canceled) {
		t.Errorf("test with a cancelled context: %v", err)
	}
	if err := t.h.Deployer.Reload(ctx, t.h.Target); !errors.Is(err, context.Canceled) {
		t.Errorf("reload with a cancelled context: %v", err)
	}
}

func (t conformance) notRunning() {
	if !t.h.KnowsServer {
		t.Skip("this deployer cannot know whether its server runs")
	}
	t.h.Server.Stop(t)
	if err := t.h.Deployer.Test(t.Context(), t.h.Target); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("test: %v", err)
	}
	if err := t.h.Deployer.Reload(t.Context(), t.h.Target); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("reload: %v", err)
	}
}

func (t conformance) changesNothing() {
	before := t.contents()
	if err := errors.Join(t.h.Deployer.Test(t.Context(), t.h.Target), t.h.Deployer.Reload(t.Context(), t.h.Target)); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, t.contents()) {
		t.Error("test or reload changed a file of the target")
	}
}

func (t conformance) keyStaysPrivate() {
	key, err := t.ca.Issue(t, Name).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cmp.Or(t.h.Target.Certificate, t.h.Target.Combined), key, 0o600); err != nil {
		t.Fatal(err)
	}
	err = t.h.Deployer.Test(t.Context(), t.h.Target)
	if err == nil {
		t.Fatal("a key in place of the certificate passes the test")
	}
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); len(line) > 30 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
			t.Error("the error holds a line of the key")
		}
	}
}

// paths are the files of the target.
func (t conformance) paths() []string {
	all := []string{t.h.Target.Certificate, t.h.Target.Key, t.h.Target.Chain, t.h.Target.Combined}
	return slices.DeleteFunc(all, func(path string) bool { return path == "" })
}

// install writes b where the deployer wants it.
func (t conformance) install(b *bundle.Bundle) {
	t.Helper()
	files, err := t.h.Deployer.Files(t.h.Target, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// contents are the files of the target as they stand.
func (t conformance) contents() map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, path := range t.paths() {
		data, err := os.ReadFile(path) //nolint:gosec // the test made the file
		if err != nil {
			t.Fatal(err)
		}
		all[path] = string(data)
	}
	return all
}
