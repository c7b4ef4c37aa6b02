package deploy_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deploy"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/nginx"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

const name = deployertest.Name

// nginxPolicy allows one target for each pair of files of s.
func nginxPolicy(s *deployertest.Server, sites ...deployertest.Site) string {
	var b strings.Builder
	b.WriteString("apiVersion: certferry/v1\nkind: Policy\ntargets:\n")
	for _, site := range append([]deployertest.Site{{Name: "web", Certificate: s.Certificate, Key: s.Key}}, sites...) {
		fmt.Fprintf(&b, "  %s:\n    deployer: nginx\n    certificate: %s\n    key: %s\n", site.Name, site.Certificate, site.Key)
		fmt.Fprintf(&b, "    probe: {addresses: [%q], timeout: 5s}\n    instance: {config: %s}\n", s.Address, s.Config)
	}
	return b.String()
}

// realDeployer works on real servers.
func realDeployer(t *testing.T, stateDir, policyText string, wrap func(agent.Deployer) agent.Deployer) *deploy.Deployer {
	t.Helper()
	deployers := deployer.Registry()
	deployers["nginx"] = nginx.New(nginx.Config{Run: deployer.Run, ReloadBudget: 2 * time.Second})
	if wrap != nil {
		deployers["nginx"] = wrap(deployers["nginx"])
	}
	d, err := deploy.New(deploy.Config{
		StateDir: stateDir, Deployers: deployers, Prober: new(probe.Prober), Now: time.Now,
		Policy: func() (*policy.Policy, error) { return policy.Decode([]byte(policyText)) },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func deployOne(t *testing.T, d *deploy.Deployer, b *bundle.Bundle) agent.Outcome {
	t.Helper()
	outcomes, err := d.Deploy(t.Context(), []agent.Deployment{{Certificate: name, Deployer: "nginx", Target: "web", Names: []string{name}, Bundle: b}})
	if err != nil || len(outcomes) != 1 {
		t.Fatalf("%v, %v", outcomes, err)
	}
	return outcomes[0]
}

// TestNginxHitless deploys again and again under a client that never stops.
func TestNginxHitless(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	first := ca.Issue(t, name)
	s := deployertest.StartNginx(t, first)
	d := realDeployer(t, t.TempDir(), nginxPolicy(s), nil)
	leaves := []string{first.LeafSHA256()}
	h := deployertest.StartHammer(t, s.Address, name, 2)
	for range 8 {
		b := ca.Issue(t, name)
		leaves = append(leaves, b.LeafSHA256())
		wantOutcome(t, deployOne(t, d, b), agent.Deployed, agent.PhaseDone, "deployed")
		if got := s.Served(t, name); got != b.LeafSHA256() {
			t.Errorf("leaf %s is served", got)
		}
	}
	h.Check(t, leaves...)
}

// TestNginxManyOneReload: three virtual hosts, one of them with a wildcard, one reload.
func TestNginxManyOneReload(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	dir := t.TempDir()
	var sites []deployertest.Site
	for _, site := range []string{"shop.example.com", "*.wild.example.com"} {
		base := filepath.Join(dir, strings.TrimPrefix(site, "*."))
		deployertest.WritePair(t, ca.Issue(t, site), base+".pem", base+".key")
		sites = append(sites, deployertest.Site{Name: site, Certificate: base + ".pem", Key: base + ".key"})
	}
	s := deployertest.StartNginx(t, ca.Issue(t, name), sites...)
	targets := []deployertest.Site{sites[0], sites[1]}
	targets[0].Name, targets[1].Name = "shop", "wild"
	d := realDeployer(t, t.TempDir(), nginxPolicy(s, targets...), nil)
	var all []agent.Deployment
	for target, certificate := range map[string]string{"web": name, "shop": "shop.example.com", "wild": "*.wild.example.com"} {
		all = append(all, agent.Deployment{
			Certificate: certificate, Deployer: "nginx", Target: target, Names: []string{certificate}, Bundle: ca.Issue(t, certificate),
		})
	}
	outcomes, err := d.Deploy(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range outcomes {
		wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "deployed")
		if got := s.Served(t, probe.Concrete(all[i].Certificate)); got != all[i].Bundle.LeafSHA256() {
			t.Errorf("%s serves leaf %s", all[i].Certificate, got)
		}
	}
	log, err := os.ReadFile(filepath.Join(s.Dir, "error.log"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "(SIGHUP) received"); n != 1 {
		t.Errorf("nginx was reloaded %d times", n)
	}
}

// spoiling is a deployer whose certificate file is garbage.
type spoiling struct{ agent.Deployer }

func (d spoiling) Files(t agent.Target, b *bundle.Bundle) ([]agent.File, error) {
	files, err := d.Deployer.Files(t, b)
	files[1].Data = []byte("garbage\n")
	return files, err
}

// TestNginxFailures: whatever fails, the previous leaf is served throughout.
func TestNginxFailures(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	tests := []struct {
		name  string
		spoil func(tb testing.TB, s *deployertest.Server)
		wrap  func(agent.Deployer) agent.Deployer
		issue func(tb testing.TB) *bundle.Bundle
		state agent.State
		phase agent.Phase
		want  string
		down  bool
	}{
		{
			name: "broken before us", spoil: func(tb testing.TB, s *deployertest.Server) {
				tb.Helper()
				s.WriteNginxConfig(tb, "no_such_directive on;")
			},
			state: agent.Refused, phase: agent.PhaseBaseline, want: "already broken and not by this certificate",
		},
		{
			name: "broken by us", wrap: func(d agent.Deployer) agent.Deployer { return spoiling{d} },
			state: agent.RolledBack, phase: agent.PhaseTest, want: "cannot load certificate",
		},
		{
			name: "mismatched pair", issue: func(tb testing.TB) *bundle.Bundle {
				tb.Helper()
				b := ca.Issue(tb, name)
				b.Key = ca.Issue(tb, name).Key
				return b
			}, state: agent.Refused, phase: agent.PhaseVerify, want: "key",
		},
		{
			name: "silent reload failure", spoil: func(tb testing.TB, s *deployertest.Server) {
				tb.Helper()
				l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
				if err != nil {
					tb.Fatal(err)
				}
				tb.Cleanup(func() { _ = l.Close() })
				s.WriteNginxConfig(tb, "server { listen "+l.Addr().String()+"; }")
			}, state: agent.RolledBack, phase: agent.PhaseReload, want: "started no new worker process within 2s",
		},
		{
			name: "the host does not use the files", spoil: func(tb testing.TB, s *deployertest.Server) {
				tb.Helper()
				other := *s
				other.Certificate, other.Key = filepath.Join(s.Dir, "other.pem"), filepath.Join(s.Dir, "other.key")
				for from, to := range map[string]string{s.Certificate: other.Certificate, s.Key: other.Key} {
					data, err := os.ReadFile(from)
					if err != nil {
						tb.Fatal(err)
					}
					if err := os.WriteFile(to, data, 0o600); err != nil {
						tb.Fatal(err)
					}
				}
				other.WriteNginxConfig(tb, "")
			}, state: agent.RolledBack, phase: agent.PhaseProbe, want: "still serves leaf",
		},
		{
			name: "stopped", spoil: func(tb testing.TB, s *deployertest.Server) { tb.Helper(); s.Stop(tb) },
			state: agent.Refused, phase: agent.PhaseBaseline, want: "start nginx", down: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			first := ca.Issue(t, name)
			s := deployertest.StartNginx(t, first)
			d := realDeployer(t, t.TempDir(), nginxPolicy(s), tt.wrap)
			if tt.spoil != nil {
				tt.spoil(t, s)
			}
			b := ca.Issue(t, name)
			if tt.issue != nil {
				b = tt.issue(t)
			}
			if tt.down {
				wantOutcome(t, deployOne(t, d, b), tt.state, tt.phase, tt.want)
				return
			}
			h := deployertest.StartHammer(t, s.Address, name, 1)
			o := deployOne(t, d, b)
			wantOutcome(t, o, tt.state, tt.phase, tt.want)
			if o.LeafSHA256 != first.LeafSHA256() && tt.phase != agent.PhaseVerify {
				t.Errorf("the outcome names leaf %s", o.LeafSHA256)
			}
			h.Check(t, first.LeafSHA256())
			data, err := os.ReadFile(s.Certificate)
			if err != nil || string(data) != string(first.FullChainPEM()) {
				t.Errorf("the certificate is another: %v", err)
			}
		})
	}
}

// TestNginxHeals: somebody deleted the key of a running server.
func TestNginxHeals(t *testing.T) {
	t.Parallel()
	ca := deployertest.NewCA(t, time.Now())
	b := ca.Issue(t, name)
	s := deployertest.StartNginx(t, b)
	if err := os.Remove(s.Key); err != nil {
		t.Fatal(err)
	}
	d := realDeployer(t, t.TempDir(), nginxPolicy(s), nil)
	h := deployertest.StartHammer(t, s.Address, name, 1)
	wantOutcome(t, deployOne(t, d, b), agent.Deployed, agent.PhaseDone, "before could not be loaded")
	h.Check(t, b.LeafSHA256())
}
