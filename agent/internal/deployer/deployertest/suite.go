// This file is the conformance suite: what package deploy expects of every deployer.

package deployertest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
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
	Break func(tb testing.TB)
	// Jam makes the server ignore reloads; nil if the deployer could not know.
	Jam func(tb testing.TB)
	// KnowsServer says that the deployer notices that its server does not run.
	KnowsServer bool
}

// Name is the DNS name of the certificates in the suite.
const Name = "www.example.com"

// Run runs the suite; start starts a server that serves b, anew for each test.
func Run(t *testing.T, start func(t *testing.T, b *bundle.Bundle) *Harness) {
	ca := NewCA(t, time.Now()) //nolint:forbidigo // real servers look at the real clock
	for name, test := range map[string]func(*testing.T, *CA, *Harness){
		"files":             testFiles,
		"good":              testGood,
		"broken":            testBroken,
		"mismatched":        testMismatched,
		"jammed":            testJammed,
		"cancelled":         testCancelled,
		"not running":       testNotRunning,
		"changes no file":   testChangesNothing,
		"reloads many":      testReloadsMany,
		"key stays private": testKeyStaysPrivate,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, ca, start(t, ca.Issue(t, Name)))
		})
	}
}

func testFiles(t *testing.T, ca *CA, h *Harness) {
	b := ca.Issue(t, Name)
	files, err := h.Deployer.Files(h.Target, b)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for i, f := range files {
		all = append(all, f.Data...)
		if !filepath.IsAbs(f.Path) {
			t.Errorf("file %q is not absolute", f.Path)
		}
		if f.Path != h.Target.Certificate && f.Path != h.Target.Key {
			t.Errorf("file %s does not stand in the target", f.Path)
		}
		if holdsKey := bytes.Contains(f.Data, []byte("PRIVATE KEY")); holdsKey != f.Secret {
			t.Errorf("file %s: secret is %v but it holds a key: %v", f.Path, f.Secret, holdsKey)
		}
		if f.Secret && i > 0 && !files[i-1].Secret {
			t.Error("a key comes after a certificate")
		}
	}
	back, err := bundle.Parse(all)
	if err != nil {
		t.Fatal(err)
	}
	if back.LeafSHA256() != b.LeafSHA256() || len(back.Chain) != len(b.Chain) || back.Key == nil {
		t.Error("leaf, chain and key do not come back from the files")
	}
	if _, err := h.Deployer.Files(h.Target, &bundle.Bundle{Leaf: b.Leaf, Chain: b.Chain}); err == nil {
		t.Error("a bundle without a key is accepted")
	}
}

func testGood(t *testing.T, ca *CA, h *Harness) {
	if err := h.Deployer.Test(t.Context(), h.Target); err != nil {
		t.Fatal(err)
	}
	b := ca.Issue(t, Name)
	WritePair(t, b, h.Target.Certificate, h.Target.Key)
	if err := h.Deployer.Test(t.Context(), h.Target); err != nil {
		t.Fatal(err)
	}
	reloadAndSee(t, h, b)
}

func testReloadsMany(t *testing.T, ca *CA, h *Harness) {
	for range 3 {
		b := ca.Issue(t, Name)
		WritePair(t, b, h.Target.Certificate, h.Target.Key)
		reloadAndSee(t, h, b)
	}
}

func reloadAndSee(t *testing.T, h *Harness, b *bundle.Bundle) {
	t.Helper()
	if err := h.Deployer.Reload(t.Context(), h.Target); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := probe.Await(ctx, new(probe.Prober), probe.Endpoint{Address: h.Server.Address, ServerName: Name}, b.LeafSHA256()); err != nil {
		t.Fatal(err)
	}
}

func testBroken(t *testing.T, _ *CA, h *Harness) {
	if h.Break == nil {
		t.Skip("this server has no configuration beside its pair")
	}
	h.Break(t)
	wantStep(t, h.Deployer.Test(t.Context(), h.Target), agent.PhaseTest)
}

func testMismatched(t *testing.T, ca *CA, h *Harness) {
	pem, err := ca.Issue(t, Name).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Target.Key, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	wantStep(t, h.Deployer.Test(t.Context(), h.Target), agent.PhaseTest)
}

// wantStep wants a failing step that says what the program said.
func wantStep(t *testing.T, err error, phase agent.Phase) {
	t.Helper()
	var step *agent.StepError
	if !errors.As(err, &step) || step.Phase != phase || step.Output == "" {
		t.Fatalf("the error is %#v, want a step error of the phase %q with output", err, phase)
	}
	if errors.Is(err, agent.ErrNotRunning) {
		t.Error("the error says that the server does not run")
	}
}

func testJammed(t *testing.T, ca *CA, h *Harness) {
	if h.Jam == nil {
		t.Skip("this deployer cannot know whether its server reloaded; the probe tells")
	}
	h.Jam(t)
	WritePair(t, ca.Issue(t, Name), h.Target.Certificate, h.Target.Key)
	err := h.Deployer.Reload(t.Context(), h.Target)
	var step *agent.StepError
	if !errors.As(err, &step) || step.Phase != agent.PhaseReload {
		t.Fatalf("the error is %v, want a step error of the phase reload", err)
	}
}

func testCancelled(t *testing.T, _ *CA, h *Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Deployer.Test(ctx, h.Target); !errors.Is(err, context.Canceled) {
		t.Errorf("test with a cancelled context: %v", err)
	}
	if err := h.Deployer.Reload(ctx, h.Target); !errors.Is(err, context.Canceled) {
		t.Errorf("reload with a cancelled context: %v", err)
	}
}

func testNotRunning(t *testing.T, _ *CA, h *Harness) {
	if !h.KnowsServer {
		t.Skip("this deployer cannot know whether its server runs")
	}
	h.Server.Stop(t)
	if err := h.Deployer.Test(t.Context(), h.Target); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("test: %v", err)
	}
	if err := h.Deployer.Reload(t.Context(), h.Target); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("reload: %v", err)
	}
}

func testChangesNothing(t *testing.T, _ *CA, h *Harness) {
	before := [2][]byte{read(t, h.Target.Certificate), read(t, h.Target.Key)}
	if err := errors.Join(h.Deployer.Test(t.Context(), h.Target), h.Deployer.Reload(t.Context(), h.Target)); err != nil {
		t.Fatal(err)
	}
	after := [2][]byte{read(t, h.Target.Certificate), read(t, h.Target.Key)}
	if !bytes.Equal(before[0], after[0]) || !bytes.Equal(before[1], after[1]) {
		t.Error("test or reload changed a file of the target")
	}
}

func testKeyStaysPrivate(t *testing.T, _ *CA, h *Harness) {
	key := read(t, h.Target.Key)
	if err := os.WriteFile(h.Target.Certificate, key, 0o600); err != nil {
		t.Fatal(err)
	}
	err := h.Deployer.Test(t.Context(), h.Target)
	if err == nil {
		t.Fatal("a key in place of the certificate passes the test")
	}
	for line := range strings.Lines(string(key)) {
		if line = strings.TrimSpace(line); len(line) > 30 && !strings.HasPrefix(line, "-----") && strings.Contains(err.Error(), line) {
			t.Error("the error holds a line of the key")
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
