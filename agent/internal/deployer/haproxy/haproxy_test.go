package haproxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/haproxy"
	"github.com/certferry/certferry/gitstore/bundle"
)

func newDeployer() *haproxy.Deployer {
	return haproxy.New(haproxy.Config{Run: deployer.RunEnv, ReloadBudget: 15 * time.Second})
}

func target(h *deployertest.HAProxy) agent.Target {
	return agent.Target{
		Name: "site", Deployer: "haproxy", Certificate: h.Certificate, Key: h.Key, Combined: h.Combined,
		Instance: agent.Selector{Config: h.Config},
	}
}

func harness(o deployertest.HAProxyOptions) func(tb testing.TB, b *bundle.Bundle) *deployertest.Harness {
	return func(tb testing.TB, b *bundle.Bundle) *deployertest.Harness {
		tb.Helper()
		h := deployertest.StartHAProxy(tb, b, o)
		harness := &deployertest.Harness{
			Deployer: newDeployer(), Server: h.Server, Target: target(h), KnowsServer: true,
			Break: func() { h.WriteConfig(tb, "no-such-keyword on") },
			Jam:   func() { h.WriteConfig(tb, "bind "+takenAddress(tb)) },
		}
		if !o.Master {
			harness.Target.Instance = agent.Selector{Socket: h.Socket}
			harness.Jam = nil
		}
		return harness
	}
}

// takenAddress returns an address that somebody else listens at: HAProxy's test passes, its new worker does not start.
func takenAddress(tb testing.TB) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// TestConformance on a real HAProxy, with and without a master process, with one file and with two.
func TestConformance(t *testing.T) {
	t.Parallel()
	deployertest.Program(t, "haproxy")
	for name, o := range map[string]deployertest.HAProxyOptions{
		"master":          {Master: true, Combined: true},
		"master, pair":    {Master: true, MasterSocket: true},
		"runtime":         {Combined: true},
		"runtime, beside": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deployertest.Run(t, harness(o))
		})
	}
}

// TestNoMaster: without a master and a socket, the error says what to do.
func TestNoMaster(t *testing.T) {
	t.Parallel()
	h := deployertest.StartHAProxy(t, deployertest.NewCA(t, time.Now()).Issue(t, deployertest.Name), deployertest.HAProxyOptions{})
	err := newDeployer().Reload(t.Context(), target(h))
	if err == nil || !strings.Contains(err.Error(), "start it with -Ws") {
		t.Errorf("error %v", err)
	}
}

// write puts b where the target wants it.
func write(t *testing.T, d *haproxy.Deployer, target agent.Target, b *bundle.Bundle) {
	t.Helper()
	files, err := d.Files(target, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHitless reloads again and again under clients that never stop.
func TestHitless(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]deployertest.HAProxyOptions{"master": {Master: true, Combined: true}, "runtime": {Combined: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := deployertest.NewCA(t, time.Now())
			first := ca.Issue(t, deployertest.Name)
			h := deployertest.StartHAProxy(t, first, o)
			at := target(h)
			if !o.Master {
				at.Instance = agent.Selector{Socket: h.Socket}
			}
			leaves := []string{first.LeafSHA256()}
			d := haproxy.New(haproxy.Config{Run: deployer.RunEnv})
			hammer := deployertest.StartHammer(t, h.Address, deployertest.Name, 4)
			for range 6 {
				b := ca.Issue(t, deployertest.Name)
				leaves = append(leaves, b.LeafSHA256())
				write(t, d, at, b)
				started := time.Now()
				if err := d.Reload(t.Context(), at); err != nil {
					t.Fatal(err)
				}
				t.Logf("reloaded in %s", time.Since(started).Round(time.Millisecond))
				if got := h.Served(t, deployertest.Name); got != b.LeafSHA256() {
					t.Errorf("after the reload %s is served", got)
				}
			}
			hammer.Check(t, leaves...)
		})
	}
}

// say sends a command to a socket as an administrator would.
func say(t *testing.T, socket, command string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// TestNoTransactionIsLeftOpen: neither by us, when a certificate is refused, nor by one who came before.
func TestNoTransactionIsLeftOpen(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	first := ca.Issue(t, deployertest.Name)
	h := deployertest.StartHAProxy(t, first, deployertest.HAProxyOptions{Combined: true})
	at := target(h)
	at.Instance = agent.Selector{Socket: h.Socket}
	d := newDeployer()

	other := ca.Issue(t, deployertest.Name)
	pem, err := other.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if answer := say(t, h.Socket, "set ssl cert "+h.Combined+" <<\n"+string(other.FullChainPEM())+string(pem)+"\n"); !strings.Contains(answer, "Transaction created") {
		t.Fatalf("begin a transaction: %s", answer)
	}
	second := ca.Issue(t, deployertest.Name)
	write(t, d, at, second)
	if err := d.Reload(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if got := h.Served(t, deployertest.Name); got != second.LeafSHA256() {
		t.Errorf("%s is served", got)
	}

	wrong := ca.Issue(t, deployertest.Name)
	wrong.Key = first.Key
	write(t, d, at, wrong)
	var step *agent.StepError
	if err := d.Reload(t.Context(), at); !errors.As(err, &step) || step.Output == "" {
		t.Errorf("a key of another certificate: %v", err)
	}
	if list := say(t, h.Socket, "show ssl cert"); strings.Contains(list, "*") {
		t.Errorf("a transaction is open: %s", list)
	}
	write(t, d, at, first) // the way back
	if err := d.Reload(t.Context(), at); err != nil {
		t.Error(err)
	}
	if got := h.Served(t, deployertest.Name); got != first.LeafSHA256() {
		t.Errorf("after the way back %s is served", got)
	}
	at.Combined = filepath.Join(h.Dir, "other.pem")
	write(t, d, at, first)
	if err := d.Reload(t.Context(), at); err == nil || !strings.Contains(err.Error(), "has not loaded") {
		t.Errorf("a file that haproxy does not know: %v", err)
	}
}

// TestWhichInstance starts two and names one of them in each way that a policy can.
func TestWhichInstance(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	one := deployertest.StartHAProxy(t, ca.Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true})
	two := deployertest.StartHAProxy(t, ca.Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true})
	two.WriteConfig(t, "no-such-keyword on")
	odd := filepath.Join(t.TempDir(), "pid")
	if err := os.WriteFile(odd, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		target  agent.Selector
		want    string // part of the error, empty for success
		stopped bool
	}{
		{name: "config", target: agent.Selector{Config: one.Config}},
		{name: "pid file", target: agent.Selector{PIDFile: one.PIDFile}},
		{name: "socket", target: agent.Selector{Socket: one.Socket}},
		{name: "all", target: agent.Selector{PIDFile: one.PIDFile, Socket: one.Socket, Config: one.Config, Binary: one.Binary}},
		{name: "the other", target: agent.Selector{Config: two.Config}, want: "no-such-keyword"},
		{name: "ambiguous", target: agent.Selector{Binary: one.Binary}, want: "which of several servers is meant is not clear"},
		{name: "none", target: agent.Selector{Config: "/nowhere/haproxy.cfg"}, want: "start haproxy", stopped: true},
		{name: "other binary", target: agent.Selector{Config: one.Config, Binary: "/usr/bin/env"}, want: "not the policy's /usr/bin/env", stopped: true},
		{name: "no pid file", target: agent.Selector{PIDFile: "/nowhere/pid"}, want: "pid file", stopped: true},
		{name: "odd pid file", target: agent.Selector{PIDFile: odd}, want: "does not hold a process id", stopped: true},
		{name: "no socket", target: agent.Selector{Socket: "/nowhere/sock"}, want: "ask haproxy", stopped: true},
		{name: "two that differ", target: agent.Selector{Socket: one.Socket, Config: two.Config}, want: "not the policy's", stopped: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := newDeployer().Test(t.Context(), agent.Target{Instance: tt.target})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if errors.Is(err, agent.ErrNotRunning) != tt.stopped {
				t.Errorf("error %v says not running: %v", err, !tt.stopped)
			}
		})
	}
}

// TestTestSeesItsEnvironment: a configuration that takes a path from the environment is tested with the server's own.
func TestTestSeesItsEnvironment(t *testing.T) {
	t.Parallel()
	h := deployertest.StartHAProxy(t, deployertest.NewCA(t, time.Now()).Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true})
	var got []string
	d := haproxy.New(haproxy.Config{Run: func(_ context.Context, _ string, env, _ []string) (string, error) {
		got = env
		return "", nil
	}})
	if err := d.Test(t.Context(), target(h)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(got, "\n"), "PADDING=x") {
		t.Errorf("environment %q", got)
	}
}

// TestReplacedBinary: after an upgrade removed the binary, the running master is tested by its own code.
func TestReplacedBinary(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "haproxy")
	if out, err := exec.Command("cp", deployertest.Program(t, "haproxy"), binary).CombinedOutput(); err != nil {
		t.Fatalf("copy haproxy: %v: %s", err, out)
	}
	h := deployertest.StartHAProxy(t, deployertest.NewCA(t, time.Now()).Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true, Binary: binary})
	if err := os.Remove(binary); err != nil {
		t.Fatal(err)
	}
	at := target(h)
	at.Instance.Binary = binary
	if err := newDeployer().Test(t.Context(), at); err != nil {
		t.Error(err)
	}
	if err := newDeployer().Reload(t.Context(), at); err == nil {
		t.Error("a master whose binary is gone cannot start a new worker, and is said to have done so")
	}
}

// TestReloadAtOnce: a reload right after another, and right after the start, is not lost.
func TestReloadAtOnce(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	for range 3 {
		h := deployertest.StartHAProxy(t, ca.Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true, Combined: true})
		for range 5 {
			if err := newDeployer().Reload(t.Context(), target(h)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
