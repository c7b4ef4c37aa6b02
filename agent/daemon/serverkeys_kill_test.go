//go:build failpoints

package daemon_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

// TestRequestChild is the agent that TestKilledWhileItMakesItsKey kills.
func TestRequestChild(t *testing.T) {
	dir := os.Getenv("CERTFERRY_TEST_DIR")
	if dir == "" {
		t.Skip("SKIP: only TestKilledWhileItMakesItsKey starts this")
	}
	w := &world{t: t}
	w.clock.Store(time.Now().UnixNano())
	a, err := daemon.New(daemon.Config{
		StateDir: filepath.Join(dir, "state"), Policy: filepath.Join(dir, "policy.yaml"), PollInterval: time.Minute,
		LogLevel: "info", LogFormat: "text",
	}, w.env())
	w.must(err)
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	t.Fatalf("the failpoint was not reached: %v", a.Run(ctx))
}

// TestKilledWhileItMakesItsKey kills the agent at each step from the hub's question to the certificate's deployment. The
// next agent sends a request of the same key, or deploys the certificate of it.
func TestKilledWhileItMakesItsKey(t *testing.T) {
	t.Parallel()
	points := []string{"agent.csr.kept", "agent.csr.made", "agent.csr.sent", "agent.deploy.between", "agent.deploy.reloading", "agent.deploy.reloaded", "agent.deploy.verified"}
	survived := 0
	for _, point := range points {
		if t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.PollInterval = time.Hour
			a := w.agent()
			placeholder := w.issue()
			w.deployed(a, w.publish(placeholder), placeholder)
			w.mu.Lock()
			w.beatReply.CertificateRequests = []apiv1.WantedRequest{{
				ID: "one", Certificate: site, Names: []string{site}, KeyType: "ecdsa-p256", NewKey: true,
				Targets: []apiv1.WantedTarget{{Deployer: "files", Target: "web"}},
			}}
			w.mu.Unlock()
			var b *bundle.Bundle
			commit := ""
			if strings.HasPrefix(point, "agent.deploy") {
				csr, _ := w.requested("one", nil)
				b = w.certify(csr)
				commit = w.publishKeyless(b, false)
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRequestChild$")
			cmd.Env = append(os.Environ(), "CERTFERRY_TEST_DIR="+filepath.Dir(w.cfg.StateDir), "CERTFERRY_FAILPOINT="+point)
			if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			before := w.keyFiles()
			if len(before) != 1 {
				t.Fatalf("keys after the kill: %v", before)
			}
			a, err := daemon.New(w.cfg, w.env())
			w.must(err)
			if b == nil {
				csr, spki := w.requested("one", nil)
				if !before[spki] {
					t.Error("another key was made")
				}
				b = w.certify(csr)
				w.deployed(a, w.publishKeyless(b, false), b)
				return
			}
			w.running(func(a *daemon.Agent) {
				eventually(t, "the certificate", func() bool { return w.status(a).Commit == commit })
			})
			w.site.wantServed(b)
		}) {
			survived++
		}
	}
	t.Logf("FAULT agent.kill-while-key-is-made tried=%d survived=%d", len(points), survived)
}
