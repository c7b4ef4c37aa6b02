package deploy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/certferry/certferry/agent"
)

// TestRecover: after a kill at any step, one Recover brings the server to the old or the new pair.
func TestRecover(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		at    string
		spoil func(w *world) // between the crash and Recover
		state agent.State    // empty: nothing to report
		phase agent.Phase
		want  string
		pair  string // "old", "new" or "" for not looked at
	}{
		{at: "begun", pair: "old"},
		{at: "prepared", state: agent.RolledBack, phase: agent.PhaseStage, want: "nothing had been changed", pair: "old"},
		{at: "staged", state: agent.RolledBack, phase: agent.PhaseStage, want: "nothing had been changed", pair: "old"},
		{at: "committing", state: agent.RolledBack, phase: agent.PhaseSwap, want: "interrupted", pair: "old"},
		{at: "between", state: agent.RolledBack, phase: agent.PhaseSwap, want: "the previous files are back and served", pair: "old"},
		{at: "committed", state: agent.Deployed, phase: agent.PhaseDone, want: "after an interruption", pair: "new"},
		{at: "reloading", state: agent.Deployed, phase: agent.PhaseDone, want: "after an interruption", pair: "new"},
		{at: "rolling_back", state: agent.RolledBack, phase: agent.PhaseSwap, want: "the previous files are back and served", pair: "old"},
		{at: "restaged", state: agent.RolledBack, phase: agent.PhaseSwap, want: "the previous files are back and served", pair: "old"},
		{
			at: "committed", spoil: func(w *world) {
				w.onTest = func(n int) error {
					if n == 1 {
						return boom
					}
					return nil
				}
			},
			state: agent.RolledBack, phase: agent.PhaseTest, want: "boom", pair: "old",
		},
		{
			at: "reloading", spoil: func(w *world) { w.jammed = true },
			state: agent.RolledBack, phase: agent.PhaseProbe, want: "still serves", pair: "old",
		},
		// The machine starts, and the agent is there before its server.
		{at: "between", spoil: (*world).stop, state: agent.RolledBack, phase: agent.PhaseSwap, want: "the previous files are back", pair: "old on disk"},
		{at: "committed", spoil: (*world).stop, state: agent.RolledBack, phase: agent.PhaseTest, want: "not running", pair: "old on disk"},
		// The administrator changed his mind meanwhile.
		{at: "staged", spoil: (*world).forbid, state: agent.RolledBack, phase: agent.PhaseStage, want: "nothing had been changed", pair: "old"},
		{at: "between", spoil: (*world).forbid, state: agent.Failed, phase: agent.PhaseSwap, want: "put back without a test", pair: "old on disk"},
		{at: "committed", spoil: (*world).forbid, state: agent.Failed, phase: agent.PhaseSwap, want: "does not stand in the policy", pair: "old on disk"},
		{at: "committed", spoil: func(w *world) { w.policyErr = boom }, state: agent.Failed, phase: agent.PhaseSwap, want: "boom", pair: "old on disk"},
		// Somebody else wrote a file meanwhile.
		{at: "between", spoil: func(w *world) {
			if err := os.WriteFile(w.cert("web"), []byte("theirs"), 0o600); err != nil {
				w.t.Error(err)
			}
		}, state: agent.Failed, phase: agent.PhaseSwap, want: "is left alone"},
	}
	for _, tt := range tests {
		t.Run(tt.at, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "web")
				older, newer := w.issue("web"), w.issue("web")
				w.install("web", older)
				if err := w.deployer().Interrupt(t.Context(), []agent.Deployment{deployment("web", newer)}, tt.at); err != nil {
					t.Fatal(err)
				}
				w.tests, w.reloads = 0, 0
				if tt.spoil != nil {
					tt.spoil(w)
				}
				outcomes, err := w.deployer().Recover(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case tt.state == "" && len(outcomes) > 0:
					t.Errorf("outcomes %+v", outcomes)
				case tt.state != "" && len(outcomes) != 1:
					t.Fatalf("%d outcomes", len(outcomes))
				case tt.state != "":
					wantOutcome(t, outcomes[0], tt.state, tt.phase, tt.want)
					if outcomes[0].Certificate != "web.test" || outcomes[0].Target != "web" {
						t.Errorf("outcome %+v", outcomes[0])
					}
				}
				switch tt.pair {
				case "old":
					w.wantServed("web", older)
				case "new":
					w.wantServed("web", newer)
				case "old on disk":
					w.wantOnDisk("web", older)
				}
				w.wantTidy()
			})
		})
	}
}

func (w *world) stop()   { w.stopped = true }
func (w *world) forbid() { w.sites = []string{"other"} }

// TestRecoverBrokenPair: what could not be loaded is not put back, even if the server does not run.
func TestRecoverBrokenPair(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	b := w.issue("web")
	w.install("web", b)
	if err := os.Remove(w.key("web")); err != nil {
		t.Fatal(err)
	}
	if err := w.deployer().Interrupt(t.Context(), []agent.Deployment{deployment("web", b)}, "committed"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	outcomes, err := w.deployer().Recover(t.Context())
	if err != nil || len(outcomes) != 1 {
		t.Fatalf("%v, %v", outcomes, err)
	}
	wantOutcome(t, outcomes[0], agent.Failed, agent.PhaseTest, "not running")
	w.wantOnDisk("web", b)
}

// TestDeployRecoversFirst: what a crash left is cleared up by whoever deploys next.
func TestDeployRecoversFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.install("web", older)
	if err := w.deployer().Interrupt(t.Context(), []agent.Deployment{deployment("web", newer)}, "between"); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, w.deploy(newer), agent.Deployed, agent.PhaseDone, "deployed")
	w.wantServed("web", newer)
	w.wantTidy()
}

// TestDamagedJournal: a journal that cannot be read is put aside and told of once; deployments go on.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	w.install("web", w.issue("web"))
	newer := w.issue("web")
	if err := w.deployer().Interrupt(t.Context(), []agent.Deployment{deployment("web", newer)}, "prepared"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(w.state(), "deployments", w.journals()[0], "journal.json")
	if err := os.WriteFile(path, []byte(`{"format": 1, "step": "done"} more`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.deployer().Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "put aside as") {
		t.Errorf("error %v", err)
	}
	if _, err := w.deployer().Recover(t.Context()); err != nil {
		t.Error(err)
	}
	wantOutcome(t, w.deploy(newer), agent.Deployed, agent.PhaseDone, "deployed")
	if names := w.journals(); len(names) != 2 || !strings.HasSuffix(names[0], ".corrupt") {
		t.Errorf("journals %v", names)
	}
	// A journal that is no file at all does not stop a deployment either.
	last := filepath.Join(w.state(), "deployments", w.journals()[1], "journal.json")
	if err := errors.Join(os.Remove(last), os.Mkdir(last, 0o700)); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, w.deploy(w.issue("web")), agent.Deployed, agent.PhaseDone, "deployed")
}
