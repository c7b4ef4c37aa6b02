package daemon_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitstoretest"
	"github.com/certferry/certferry/gitstore/manifest"
)

// attack puts w's keys into the hands of the honest hub that is attacked.
func (w *world) attack() *gitstoretest.Attack {
	w.t.Helper()
	a, err := gitstoretest.NewAttack(gitstoretest.Setting{
		RepoID: repoID, Server: "web-1", Root: w.root, Signing: w.sign, Retired: w.key("retired"), Agent: w.agentKey,
		Certificate: site, Deployer: "files", Target: "web", Bundles: [3]*bundle.Bundle{w.issue(), w.issue(), w.issue()}, Now: w.now(),
	})
	w.must(err)
	return a
}

// play lets an honest remote serve files and returns the commit.
func (w *world) play(files map[string][]byte) string {
	r := gitstoretest.Honest(manifest.ServerBranch("web-1"), files)
	w.played.Store(r)
	return r.Tip
}

// TestHostileRemotes plays every hostile remote to a whole agent: the site goes on serving what it did, the hub hears of
// what was refused in the same cycle, and the agent is well again as soon as the remote is. Remotes that take all the
// time there is are left to the test of the source, where that time is short.
func TestHostileRemotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent()
	a := w.attack()
	w.deployed(agent, w.play(a.Present), a.Bundles[1])
	w.taken()
	tried, survived := 0, 0
	for _, c := range gitstoretest.Cases() {
		if c.Slow {
			continue
		}
		tried++
		if t.Run(c.Name, func(t *testing.T) { w.attacked(t, agent, a, c) }) {
			survived++
		}
	}
	w.deployed(agent, w.play(a.SharedNext), a.Bundles[2])
	t.Logf("FAULT hostile.agent tried=%d survived=%d", tried, survived)
}

func (w *world) attacked(t *testing.T, agent *daemon.Agent, a *gitstoretest.Attack, c gitstoretest.Case) {
	t.Helper()
	w.played.Store(c.Remote(a))
	result, err := agent.Once(t.Context())
	if err == nil || result.Commit != "" || errors.Is(err, daemon.ErrNothingToDo) != (c.Outcome == gitstoretest.Frozen) {
		t.Fatalf("%+v, %v", result, err)
	}
	status, statusErr := agent.Status()
	if statusErr != nil || status.Generation != 5 {
		t.Errorf("status %+v, %v", status, statusErr)
	}
	reports := w.taken()
	switch c.Outcome {
	case gitstoretest.Refused:
		if len(reports) != 1 || reports[0].Error == "" || !strings.Contains(reports[0].Error, c.Says) || status.Status != "failed" {
			t.Errorf("status %s, reports %+v", status.Status, reports)
		}
	case gitstoretest.Away:
		if len(reports) != 0 || status.Status != "degraded" || !strings.Contains(status.Message, c.Says) {
			t.Errorf("status %s: %s; reports %+v", status.Status, status.Message, reports)
		}
	case gitstoretest.Frozen:
		if len(reports) != 0 {
			t.Errorf("reports %+v", reports)
		}
	}
	for _, text := range []string{status.Message, err.Error()} {
		if strings.Contains(text, credential) {
			t.Errorf("the credential is in %q", text)
		}
	}
	w.site.wantServed(a.Bundles[1])
	// The remote is honest again: all is well, and the same attack is news once more.
	w.play(a.Present)
	w.pass(time.Minute)
	if _, err := agent.Once(t.Context()); !errors.Is(err, daemon.ErrNothingToDo) {
		t.Errorf("with an honest remote: %v", err)
	}
	if status, err := agent.Status(); err != nil || status.Status != "ok" {
		t.Errorf("with an honest remote: %+v, %v", status, err)
	}
}
