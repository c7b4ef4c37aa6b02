package haproxy_test

import (
	"net"
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
	return haproxy.New(haproxy.Config{Run: deployer.RunEnv, ReloadBudget: 3 * time.Second})
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
