package deploy_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore/bundle"
)

// kills is how often each failpoint is tried.
const kills = 3

// failpoints are all failpoints of a deployment, and whether the new certificate is in place after Recover.
var failpoints = []struct {
	name    string
	forward bool
}{
	{"prepared", false},
	{"staged", false},
	{"committing", false},
	{"between", false},
	{"committed", true},
	{"reloading", true},
	{"reloaded", true},
	{"verified", true},
}

// programs builds what TestKill needs: this test with failpoints, and the example site.
func programs(t *testing.T) (child, site string) {
	t.Helper()
	dir := t.TempDir()
	child, site = filepath.Join(dir, "deploy.test"), filepath.Join(dir, "tlssite")
	for _, args := range [][]string{
		{"test", "-c", "-tags", "failpoints", "-o", child, "."},
		{"build", "-o", site, "github.com/certferry/certferry/examples/tlssite"},
	} {
		if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v: %s", args[0], err, out)
		}
	}
	return child, site
}

// TestKill kills an agent with SIGKILL at every step of a deployment, on a real server that a client never leaves
// alone, and recovers.
func TestKill(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("SKIP: short")
	}
	child, site := programs(t)
	ca := deployertest.NewCA(t, time.Now())
	for _, point := range failpoints {
		t.Run("files/"+point.name, func(t *testing.T) {
			t.Parallel()
			first := ca.Issue(t, name)
			s := deployertest.StartTLSSite(t, site, first)
			policyText := fmt.Sprintf("apiVersion: certferry/v1\nkind: Policy\ntargets:\n  web:\n    deployer: files\n    certificate: %s\n    key: %s\n"+
				"    probe: {addresses: [%q]}\n    test: [%s]\n    reload: [%s]\n",
				s.Certificate, s.Key, s.Address, strings.Join(s.TestCommand(), ", "), strings.Join(s.ReloadCommand(), ", "))
			killAndRecover(t, victim{child: child, deployer: "files", policy: policyText, server: s, ca: ca, served: first}, point.name, point.forward)
		})
		t.Run("nginx/"+point.name, func(t *testing.T) {
			t.Parallel()
			first := ca.Issue(t, name)
			s := deployertest.StartNginx(t, first)
			killAndRecover(t, victim{child: child, deployer: "nginx", policy: nginxPolicy(s), server: s, ca: ca, served: first}, point.name, point.forward)
		})
	}
}

type victim struct {
	child, deployer, policy string
	server                  *deployertest.Server
	ca                      *deployertest.CA
	served                  *bundle.Bundle
}

func killAndRecover(t *testing.T, v victim, point string, forward bool) {
	t.Helper()
	dir := t.TempDir()
	leaves := []string{v.served.LeafSHA256()}
	h := deployertest.StartHammer(t, v.server.Address, name, 1)
	for range kills {
		b := v.ca.Issue(t, name)
		leaves = append(leaves, b.LeafSHA256())
		v.kill(t, dir, point, b)

		d := realDeployer(t, filepath.Join(dir, "state"), v.policy, nil)
		outcomes, err := d.Recover(t.Context())
		if err != nil || len(outcomes) != 1 {
			t.Fatalf("recover: %v, %v", outcomes, err)
		}
		if forward {
			v.served = b
			wantOutcome(t, outcomes[0], agent.Deployed, agent.PhaseDone, "after an interruption")
		} else if outcomes[0].State != agent.RolledBack {
			t.Errorf("outcome %+v", outcomes[0])
		}
		v.wantServed(t)
		if again, err := d.Recover(t.Context()); err != nil || len(again) > 0 {
			t.Errorf("a second recovery: %v, %v", again, err)
		}
		after, err := d.Deploy(t.Context(), []agent.Deployment{{Certificate: name, Deployer: v.deployer, Target: "web", Names: []string{name}, Bundle: b}})
		if err != nil || after[0].State != agent.Deployed {
			t.Errorf("deploy after recovery: %v, %v", after, err)
		}
		v.served = b
		v.wantServed(t)
	}
	h.Check(t, leaves...)
}

// kill runs the child until it dies at the failpoint.
func (v victim) kill(t *testing.T, dir, point string, b *bundle.Bundle) {
	t.Helper()
	key, err := b.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "policy.yaml"), []byte(v.policy), 0o600),
		os.WriteFile(filepath.Join(dir, "bundle.pem"), append(b.FullChainPEM(), key...), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), v.child, "-test.run=^TestFailpointChild$", "-test.count=1")
	cmd.Env = append(os.Environ(), "CERTFERRY_TEST_DIR="+dir, "CERTFERRY_TEST_DEPLOYER="+v.deployer, "CERTFERRY_FAILPOINT=agent.deploy."+point)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("the child ended with %v: %s", err, out)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended with %v: %s", err, out)
	}
}

// wantServed wants one whole pair on disk, the same as is served, and nothing beside it.
func (v victim) wantServed(t *testing.T) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(v.server.Certificate, v.server.Key)
	if err != nil || !pair.Leaf.Equal(v.served.Leaf) {
		t.Errorf("the pair on disk is another: %v", err)
	}
	if got := v.server.Served(t, name); got != v.served.LeafSHA256() {
		t.Errorf("leaf %s is served", got)
	}
	left, err := filepath.Glob(filepath.Join(v.server.Dir, ".certferry*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left behind, %v", left, err)
	}
}
