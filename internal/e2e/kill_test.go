package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
)

// kills is how often a process is killed at each point; CERTFERRY_KILLS sets another number.
func kills(t *testing.T) int {
	t.Helper()
	text := os.Getenv("CERTFERRY_KILLS")
	if text == "" {
		return 2
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestHubSurvivesKill kills the hub at each step from order to push: it goes on where it was, nothing is lost, and
// what is served stays right.
func TestHubSurvivesKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.serve(bin)
	w.login()
	s := w.site("site-1", "site.test")
	s.enrol(nil)
	s.run(bin)
	create(t, w, apiv1.CertificateSpec{
		Name: "site", Names: []string{"site.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Server: "site-1", Deployer: "files", Target: "site"}},
	})
	leaf := w.deployed("site", "", s)
	stop := s.load(1)
	for _, point := range []string{
		"hub.issue.ordered", "hub.issue.received", "hub.issue.sealed", "hub.commit.packed", "hub.commit.recorded",
		"hub.commit.moved", "hub.issue.done", "hub.publish.packed", "hub.publish.moved",
	} {
		for range kills(t) {
			w.hub.stop()
			w.serve(fail, "CERTFERRY_FAILPOINT="+point)
			w.login()
			_, _ = w.client.RenewCertificate(t.Context(), "site", apiv1.RenewRequest{Reason: point})
			<-w.hub.done
			if said := w.hub.cmd.ProcessState.String(); said != "signal: killed" {
				t.Fatalf("%s: the hub was not killed: %s", point, said)
			}
			w.serve(bin)
			w.login()
			w.renewUntilOther("site", leaf)
			leaf = w.deployed("site", leaf, s)
			t.Logf("%s: recovered", point)
		}
	}
	if tried, failed := stop(); failed > 0 {
		t.Errorf("%d of %d handshakes failed", failed, tried)
	}
	w.hub.stop()
	w.do("", filepath.Join(bin, "certferry-hub"), "--config", w.config, "store", "verify")
	w.do("", "git", "-C", filepath.Join(w.dir, "hub", "repo.git"), "fsck", "--strict")
}

// renewUntilOther asks for a renewal where the kill came before the job was kept; a job that was kept goes on alone.
func (w *world) renewUntilOther(certificate, leaf string) {
	w.t.Helper()
	x, err := w.client.Certificate(w.t.Context(), certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	active := x.Job != nil && x.Job.State != apiv1.JobDone && x.Job.State != apiv1.JobFailed
	if !active && x.Issued.LeafSHA256 == leaf {
		w.renew(certificate)
	}
}

// TestAgentSurvivesKill kills the agent at each step of a deployment to a real nginx under a connection loop.
func TestAgentSurvivesKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	w.serve(bin)
	w.login()
	s := w.nginx("web-1", "shop.test")
	s.enrol(nil)
	s.run(bin)
	create(t, w, apiv1.CertificateSpec{
		Name: "shop", Names: []string{"shop.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Server: "web-1", Deployer: "nginx", Target: "site"}},
	})
	leaf := w.deployed("shop", "", s)
	stop := s.load(2)
	for _, point := range []string{
		"agent.deploy.prepared", "agent.deploy.staged", "agent.deploy.committing", "agent.deploy.between",
		"agent.deploy.committed", "agent.deploy.reloading", "agent.deploy.reloaded", "agent.deploy.verified",
	} {
		for range kills(t) {
			s.daemon.stop()
			w.renew("shop")
			s.run(fail, "CERTFERRY_FAILPOINT="+point)
			<-s.daemon.done
			if said := s.daemon.cmd.ProcessState.String(); said != "signal: killed" {
				t.Fatalf("%s: the agent was not killed: %s", point, said)
			}
			if s.seen() == "" {
				t.Errorf("%s: nothing is served after the kill", point)
			}
			s.run(bin)
			leaf = w.deployed("shop", leaf, s)
			t.Logf("%s: recovered", point)
		}
	}
	tried, failed := stop()
	t.Logf("%d handshakes, %d failed", tried, failed)
	if failed > 0 {
		t.Errorf("%d of %d handshakes failed", failed, tried)
	}
}
