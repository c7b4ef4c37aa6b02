// This file tests what is refused before anything is touched.

package deploy_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore/bundle"
)

// TestRefused: nothing is touched.
func TestRefused(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	tests := []struct {
		name   string
		change func(w *world, d *agent.Deployment)
		phase  agent.Phase
		want   string
	}{
		{"unknown target", func(_ *world, d *agent.Deployment) { d.Target = "other" }, agent.PhaseVerify, "does not stand in the policy"},
		{"other deployer", func(_ *world, d *agent.Deployment) { d.Deployer = "nginx" }, agent.PhaseVerify, "is for the deployer"},
		{"name not allowed", func(w *world, d *agent.Deployment) {
			d.Names, d.Bundle = []string{"evil.test"}, w.ca.Issue(w.t, "evil.test")
		}, agent.PhaseVerify, `name "evil.test"`},
		{"policy unreadable", func(w *world, _ *agent.Deployment) { w.policyErr = errors.New("policy is bad") }, agent.PhaseVerify, "policy is bad"},
		{"other names", func(w *world, d *agent.Deployment) { d.Bundle = w.ca.Issue(w.t, "web.test", "more.test") }, agent.PhaseVerify, "more.test"},
		{"no bundle", func(_ *world, d *agent.Deployment) { d.Bundle = nil }, agent.PhaseVerify, "no private key"},
		{"no key", func(_ *world, d *agent.Deployment) { d.Bundle.Key = nil }, agent.PhaseVerify, "no private key"},
		{"mismatched", func(w *world, d *agent.Deployment) { d.Bundle.Key = w.ca.Issue(w.t, "web.test").Key }, agent.PhaseVerify, "key"},
		{"expired", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(-90*day), 89*day, "web.test")
		}, agent.PhaseVerify, "expired"},
		{"far from valid", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(2*day), 90*day, "web.test")
		}, agent.PhaseVerify, "not valid before"},
		{"older", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(-10*day), 90*day, "web.test")
		}, agent.PhaseVerify, "older than the one in use"},
		{"unknown owner", func(w *world, _ *agent.Deployment) { w.policyText = "    owner: nobody-here\n" }, agent.PhaseVerify, `find owner "nobody-here"`},
		{"unknown group", func(w *world, _ *agent.Deployment) { w.policyText = "    group: \"987654\"\n" }, agent.PhaseVerify, `find group "987654"`},
		{"stopped", func(w *world, _ *agent.Deployment) { w.stopped = true }, agent.PhaseBaseline, "is not running"},
		{"which server", func(w *world, _ *agent.Deployment) {
			w.onTest = func(int) error { return agent.ErrAmbiguous }
		}, agent.PhaseBaseline, "test: which of several servers is meant is not clear"},
		{"broken before", func(w *world, _ *agent.Deployment) { w.broken = true }, agent.PhaseBaseline, "already broken and not by this certificate; mend it, the deployment is tried again: test: exit status 1: unknown directive"},
		{"changed meanwhile", func(w *world, _ *agent.Deployment) {
			theirs := w.issue("web")
			w.onTest = func(int) error { deployertest.WritePair(w.t, theirs, w.cert("web"), w.key("web")); return nil }
		}, agent.PhaseStage, "changed by somebody else just now"},
		{"no room for the journal", func(w *world, _ *agent.Deployment) {
			w.onTest = func(int) error { return os.RemoveAll(filepath.Join(w.state(), "deployments")) }
		}, agent.PhaseStage, "nothing was changed"},
		{"folder gone", func(w *world, _ *agent.Deployment) {
			w.onTest = func(int) error { return os.Rename(w.path(""), w.path("")+".away") }
		}, agent.PhaseStage, "nothing was changed: stage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			older := w.issue("web")
			w.install("web", older)
			d := deployment("web", w.issue("web"))
			tt.change(w, &d)
			o := w.deployAll(d)[0]
			wantOutcome(t, o, agent.Refused, tt.phase, tt.want)
			switch tt.name {
			case "changed meanwhile":
			case "folder gone":
				if err := os.Rename(w.path("")+".away", w.path("")); err != nil {
					t.Fatal(err)
				}
				w.wantServed("web", older)
			default:
				w.wantServed("web", older)
			}
			w.policyErr = nil
			if tt.name == "no room for the journal" {
				w.deployer() // makes the folder again
			}
			w.wantTidy()
			if n := len(w.journals()); n > 0 {
				t.Errorf("%d journals are left behind", n)
			}
			if w.reloads > 0 {
				t.Error("the server was reloaded")
			}
		})
	}
}

// TestClockBehind: a clock that is wrong by a day stops nothing.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	b := w.ca.IssueAt(t, time.Now().Add(23*time.Hour), 90*24*time.Hour, "web.test")
	wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "")
}

// TestStepBack has to be meant.
func TestStepBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.install("web", newer)
	wantOutcome(t, w.deploy(older), agent.Refused, agent.PhaseVerify, "older than the one in use")
	d := deployment("web", older)
	d.StepBack = true
	wantOutcome(t, w.deployAll(d)[0], agent.Deployed, agent.PhaseDone, "")
	w.wantServed("web", older)
}

// TestPlaceholder: a self-signed certificate for ten years and one for other names are no reason to refuse.
func TestPlaceholder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, old := range map[string]func(w *world) *bundle.Bundle{
		"self-signed": func(*world) *bundle.Bundle {
			return deployertest.SelfSigned(t, now, 10*365*24*time.Hour, "web.test")
		},
		"other names": func(w *world) *bundle.Bundle { return w.ca.IssueAt(t, now, 365*24*time.Hour, "other.test") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			w.install("web", old(w))
			b := w.issue("web")
			wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "")
			w.wantServed("web", b)
		})
	}
}

// TestSameTargetTwice: no certificate wins by chance.
func TestSameTargetTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web", "mail")
	for _, o := range w.deployAll(deployment("web", w.issue("web")), deployment("web", w.issue("web"))) {
		wantOutcome(t, o, agent.Refused, agent.PhaseVerify, "2 certificates want the target")
	}
	// Two targets that lead to one file.
	w.install("web", w.issue("web"))
	if err := errors.Join(os.Symlink("web.pem", w.cert("mail")), os.Symlink("web.key", w.key("mail"))); err != nil {
		t.Fatal(err)
	}
	outcomes := w.deployAll(deployment("web", w.issue("web")), deployment("mail", w.issue("mail")))
	wantOutcome(t, outcomes[0], agent.Deployed, agent.PhaseDone, "")
	wantOutcome(t, outcomes[1], agent.Refused, agent.PhaseVerify, "is also a file of target")
}
