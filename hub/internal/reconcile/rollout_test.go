package reconcile_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/reconcile"
)

// fleet is a world with n servers that share the certificate "shop", issued and deployed.
func newFleet(t *testing.T, n int, change func(*manifest.Certificate)) *world {
	t.Helper()
	w := newWorld(t)
	w.cfg.Waves = manifest.DefaultWaves()
	for i := range n {
		w.enrol(fmt.Sprintf("web-%d", i), hub.ServerApproved, map[string]string{"role": "edge"})
	}
	w.want("shop", func(c *manifest.Certificate) {
		c.Deployments = []manifest.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "web"}}
		if change != nil {
			change(c)
		}
	})
	w.once()
	w.heartbeats()
	for _, server := range w.servers() {
		w.report(server, apiv1.DeploymentDeployed)
	}
	return w
}

func (w *world) servers() []string {
	w.Helper()
	rows, err := w.db.Servers(w.Context(), "", 1000)
	w.must(err)
	var names []string
	for _, row := range rows {
		names = append(names, row.Name)
	}
	return names
}

// heartbeats has all servers but those that are away say that they live.
func (w *world) heartbeats(away ...string) {
	w.Helper()
	for _, name := range w.servers() {
		row, err := w.db.Server(w.Context(), name)
		w.must(err)
		row.LastSeenAt, row.Status = w.clock.Now(), "ok"
		row.Counter++
		if !strings.Contains(" "+strings.Join(away, " ")+" ", " "+name+" ") {
			w.must(w.db.RecordHeartbeat(w.Context(), row))
		}
	}
}

// report says what became of the newest state of a server.
func (w *world) report(server string, state apiv1.DeploymentState) {
	w.Helper()
	tip := w.tip(server)
	var rows []hub.Observation
	for _, d := range tip.Manifest.Deployments {
		row := hub.Observation{
			Server: server, Certificate: d.Certificate, Target: d.Target, Commit: tip.Commit, Generation: tip.Manifest.Generation,
			State: state, Phase: apiv1.PhaseDone, LeafSHA256: d.LeafSHA256, ReportedAt: w.clock.Now(),
		}
		if state != apiv1.DeploymentDeployed {
			row.Phase, row.LeafSHA256, row.Detail = apiv1.PhaseTest, "", "nginx: configuration test failed\nsecond line"
		}
		rows = append(rows, row)
	}
	_, err := w.db.RecordReport(w.Context(), server, fmt.Sprintf("%s-%d-%s", tip.Commit[:8], w.clock.Now().UnixNano(), state), rows)
	w.must(err)
}

// on lists the servers whose branch holds a leaf of the certificate.
func (w *world) on(leaf string) []string {
	w.Helper()
	var names []string
	for _, server := range w.servers() {
		for _, d := range w.tip(server).Manifest.Deployments {
			if d.LeafSHA256 == leaf {
				names = append(names, server)
			}
		}
	}
	return names
}

// renew issues the certificate again, and answers the new leaf.
func (w *world) renew() string {
	w.Helper()
	w.ask(hub.Job{Certificate: "shop", Actor: "ada", Reason: "test"})
	w.once()
	return w.issued("shop").LeafSHA256
}

func (w *world) rollout() *manifest.Rollout {
	w.Helper()
	return w.snapshot().Rollouts["shop"]
}

func (w *world) alerts() []hub.Alert {
	w.Helper()
	all, err := w.db.Alerts(w.Context(), true, 0, 10)
	w.must(err)
	return all
}

func (w *world) subject() string {
	w.Helper()
	head, _ := w.store.Repo().Ref(manifest.MainBranch)
	c, err := w.store.Repo().Commit(head)
	w.must(err)
	first, _, _ := strings.Cut(c.Message, "\n")
	return first
}

// TestRolloutInWaves takes a new issue to one server, a tenth, and the rest, each wave after the servers of the one
// before reported success, and leaves nothing behind.
func TestRolloutInWaves(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 21, nil)
	if w.rollout() != nil || len(w.on(w.issued("shop").LeafSHA256)) != 21 {
		t.Fatal("a first issue goes to all servers at once")
	}
	old := w.issued("shop").LeafSHA256
	leaf := w.renew()
	for i, want := range []int{1, 3, 21} {
		first := w.on(leaf)
		if len(first) != want || len(w.on(old)) != 21-want {
			t.Fatalf("wave %d: %d servers have the new issue, %d the old one", i+1, len(first), len(w.on(old)))
		}
		if ro := w.rollout(); ro.Wave != i+1 || ro.State != manifest.RolloutRunning || ro.LeafSHA256 != leaf || ro.FromLeafSHA256 != old {
			t.Fatalf("got %+v", ro)
		}
		w.clock.Advance(time.Minute)
		w.heartbeats()
		w.once() // nobody reported: nothing moves
		if len(w.on(leaf)) != want {
			t.Fatalf("wave %d went on without reports", i+1)
		}
		for _, server := range first {
			w.report(server, apiv1.DeploymentDeployed)
		}
		w.once()
	}
	if ro := w.rollout(); ro != nil || w.subject() != "complete rollout of shop: 21 servers" || len(w.alerts()) != 0 {
		t.Errorf("got %+v, %q, %+v", ro, w.subject(), w.alerts())
	}
	// The next rollout begins with another server as a rule, and a killed hub knows where it was: each w.once is a
	// reconciler of its own.
	if next := w.renew(); len(w.on(next)) != 1 {
		t.Errorf("the next rollout began with %v", w.on(next))
	}
}

// TestRolloutStops: a server that cannot deploy stops the rollout, whatever wave it is in; the others keep what they have.
func TestRolloutStops(t *testing.T) {
	t.Parallel()
	for _, state := range []apiv1.DeploymentState{apiv1.DeploymentFailed, apiv1.DeploymentRolledBack, apiv1.DeploymentRefused} {
		w := newFleet(t, 5, nil)
		leaf := w.renew()
		w.report(w.on(leaf)[0], state)
		w.once()
		w.clock.Advance(time.Minute)
		w.heartbeats()
		w.once()
		ro := w.rollout()
		if ro.State != manifest.RolloutFailed || ro.Wave != 1 || !strings.Contains(ro.Reason, w.on(leaf)[0]+": "+strings.ReplaceAll(string(state), "_", " ")) ||
			strings.Contains(ro.Reason, "second line") || len(w.on(leaf)) != 1 {
			t.Fatalf("%s: got %+v on %v", state, ro, w.on(leaf))
		}
		if a := w.alerts(); len(a) != 1 || a[0].Kind != hub.AlertRolloutStopped || a[0].Level != hub.AlertCritical || a[0].Count != 1 {
			t.Errorf("%s: got alerts %+v", state, a)
		}
	}
}

// TestRolloutForgetsOldFailures: what a server reported of a state before the new issue stops nothing.
func TestRolloutForgetsOldFailures(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 4, nil)
	for _, server := range w.servers() {
		w.clock.Advance(time.Second)
		w.report(server, apiv1.DeploymentFailed)
	}
	leaf := w.renew()
	w.once()
	if ro := w.rollout(); ro.State != manifest.RolloutRunning {
		t.Fatalf("got %+v", ro)
	}
	w.report(w.on(leaf)[0], apiv1.DeploymentDeployed)
	w.once()
	if len(w.on(leaf)) < 2 {
		t.Errorf("the rollout did not go on: %+v", w.rollout())
	}
}

// TestRolloutOfflineServers: servers that are away hold nothing up, but a wave in which nobody reports waits for a
// person after a while.
func TestRolloutOfflineServers(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 4, func(c *manifest.Certificate) { c.Waves = manifest.Waves{{N: 2}} })
	leaf := w.renew()
	two := w.on(leaf)
	w.clock.Advance(5 * time.Minute)
	w.heartbeats(two[1])
	w.report(two[0], apiv1.DeploymentDeployed)
	w.once()
	if got := w.on(leaf); len(got) != 4 {
		t.Fatalf("a server that is away holds the rollout up: %v, %+v", got, w.rollout())
	}

	w = newFleet(t, 4, nil)
	leaf = w.renew()
	w.clock.Advance(59 * time.Minute)
	w.once()
	if w.rollout().State != manifest.RolloutRunning {
		t.Fatalf("paused too early: %+v", w.rollout())
	}
	w.clock.Advance(2 * time.Minute)
	w.once()
	ro := w.rollout()
	if ro.State != manifest.RolloutPaused || !strings.Contains(ro.Reason, "nothing heard within 1h0m0s from "+w.on(leaf)[0]) {
		t.Errorf("got %+v", ro)
	}
	if a := w.alerts(); len(a) != 1 || a[0].Level != hub.AlertWarning {
		t.Errorf("got alerts %+v", a)
	}
}

// TestRolloutNeverStarves: a server whose certificate is about to end, or that has none, gets the new issue whatever
// the rollout says.
func TestRolloutNeverStarves(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 6, nil)
	leaf := w.renew()
	w.report(w.on(leaf)[0], apiv1.DeploymentFailed)
	w.once()
	w.enrol("web-new", hub.ServerApproved, map[string]string{"role": "edge"})
	w.once()
	if got := strings.Join(w.on(leaf), " "); !strings.Contains(got, "web-new") {
		t.Errorf("a server without any certificate is held back: %s", got)
	}
	w.want("shop", func(c *manifest.Certificate) {
		c.Renewal.Paused = true // else a newer issue comes first
		c.Deployments = []manifest.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "web"}}
	})
	tip := w.tip(w.on(w.rollout().FromLeafSHA256)[0])
	w.clock.Advance(tip.Manifest.Deployments[0].NotAfter.Sub(w.clock.Now()) - 23*time.Hour)
	w.once()
	if got := w.on(leaf); len(got) != 7 {
		t.Errorf("servers whose certificate ends in 23 hours are held back: only %v have the new one", got)
	}
}

// TestRolloutReplaced: a newer issue takes over, and each server keeps what it has until its wave comes.
func TestRolloutReplaced(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 10, func(c *manifest.Certificate) { c.Waves = manifest.Waves{{N: 3}} })
	first := w.issued("shop").LeafSHA256
	second := w.renew()
	third := w.renew()
	ro := w.rollout()
	if ro.LeafSHA256 != third || ro.FromLeafSHA256 != first || ro.Wave != 1 {
		t.Fatalf("got %+v", ro)
	}
	if len(w.on(third)) != 3 || len(w.on(first))+len(w.on(second)) != 7 || len(w.on(first)) < 4 {
		t.Errorf("first %v second %v third %v", w.on(first), w.on(second), w.on(third))
	}
	// The issue that main holds and that a held-back server does not have is not sealed for it; what it has stays open.
	for _, server := range w.on(first) {
		w.open(server, "shop")
	}
}

// TestRolloutKeepsWhatItHas: a server that waits is refreshed, and re-sealed to another key, with its old issue.
func TestRolloutKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 3, nil)
	old := w.issued("shop").LeafSHA256
	w.renew()
	waiting := w.on(old)
	w.clock.Advance(gitstore.RefreshAfter + time.Minute)
	before := w.tip(waiting[0]).Manifest.Generation
	w.once()
	if tip := w.tip(waiting[0]); tip.Manifest.Generation != before+1 || tip.Manifest.Deployments[0].LeafSHA256 != old {
		t.Errorf("got %+v", tip.Manifest)
	}
}

// TestRolloutSoak waits between waves.
func TestRolloutSoak(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 2, nil)
	w.cfg.Soak = 10 * time.Minute
	leaf := w.renew()
	w.report(w.on(leaf)[0], apiv1.DeploymentDeployed)
	w.once()
	if len(w.on(leaf)) != 1 {
		t.Fatal("the second wave did not wait")
	}
	w.clock.Advance(10 * time.Minute)
	w.once()
	if len(w.on(leaf)) != 2 {
		t.Errorf("the second wave did not come: %+v", w.rollout())
	}
}

// TestRolloutView describes waves and servers.
func TestRolloutView(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 12, nil)
	leaf := w.renew()
	w.report(w.on(leaf)[0], apiv1.DeploymentRolledBack)
	r, err := reconcile.New(w.cfg)
	w.must(err)
	all, err := r.Rollouts(t.Context())
	w.must(err)
	if len(all) != 1 || len(all[0].Waves) != 3 || all[0].Wave != 1 || all[0].LeafSHA256 != leaf {
		t.Fatalf("got %+v", all)
	}
	states := map[string]int{}
	for _, wave := range all[0].Waves {
		for _, s := range wave.Servers {
			states[fmt.Sprint(wave.Number, s.State)]++
		}
	}
	if states["1failed"] != 1 || states["2later"] != 1 || states["3later"] != 10 {
		t.Errorf("got %v", states)
	}
}

// TestRolloutByHand: a document that says more than there is does no harm.
func TestRolloutByHand(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 3, nil)
	leaf := w.renew()
	// Somebody takes all servers away.
	w.want("shop", nil)
	w.once()
	if ro := w.rollout(); ro != nil || !strings.HasPrefix(w.subject(), "end rollout of shop") {
		t.Errorf("got %+v, %q", ro, w.subject())
	}
	_, err := w.store.Apply(t.Context(), gitstore.Change{Subject: "bad", Edits: []gitrepo.Edit{{Path: manifest.RolloutPath("shop"), Data: []byte("x")}}})
	if err == nil || leaf == "" {
		t.Error("a rollout that cannot be read was written")
	}
}

// TestRolloutResumed goes on after a person looked at a failure: what was reported before does not stop it again, what
// is reported after does.
func TestRolloutResumed(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 4, nil)
	leaf := w.renew()
	first := w.on(leaf)[0]
	w.report(first, apiv1.DeploymentFailed)
	w.once()
	resume := func() {
		t.Helper()
		w.clock.Advance(time.Minute)
		w.heartbeats()
		next := *w.rollout()
		next.State, next.Reason, next.WaveStartedAt = manifest.RolloutRunning, "", w.clock.Now()
		data, err := next.Encode()
		w.must(err)
		_, err = w.store.Apply(t.Context(), gitstore.Change{Subject: "resume", Edits: []gitrepo.Edit{{Path: manifest.RolloutPath("shop"), Data: data}}})
		w.must(err)
		w.once()
	}
	resume()
	if ro := w.rollout(); ro.State != manifest.RolloutRunning || ro.Wave != 1 {
		t.Fatalf("stopped again by the old report: %+v", ro)
	}
	w.clock.Advance(time.Second)
	w.report(first, apiv1.DeploymentRolledBack)
	w.once()
	if ro := w.rollout(); ro.State != manifest.RolloutFailed {
		t.Fatalf("went on past a new failure: %+v", ro)
	}
	resume()
	w.clock.Advance(time.Second)
	w.report(first, apiv1.DeploymentDeployed)
	w.once()
	if got := w.on(leaf); len(got) != 4 {
		t.Errorf("did not go on after the repair: %v, %+v", got, w.rollout())
	}
}

// TestRolloutSilentWave: a wave in the middle of which nobody is there waits for a person; the last one does not.
func TestRolloutSilentWave(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 6, func(c *manifest.Certificate) { c.Waves = manifest.Waves{{N: 1}, {N: 3}} })
	leaf := w.renew()
	w.report(w.on(leaf)[0], apiv1.DeploymentDeployed)
	w.once()
	second := w.on(leaf)
	if len(second) != 3 {
		t.Fatalf("got %v", second)
	}
	w.clock.Advance(61 * time.Minute)
	w.heartbeats(second...)
	w.once()
	if ro := w.rollout(); ro.State != manifest.RolloutPaused || ro.Wave != 2 {
		t.Errorf("got %+v", ro)
	}
}

// TestRolloutKeepsWaitingForTheBranch: each issue that comes to main by whatever way is rolled out; one that is older
// than what servers have, as after a rollback, goes to all at once.
func TestRolloutOfRollback(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 5, nil)
	old := w.issued("shop").LeafSHA256
	before := w.snapshot().Commit
	leaf := w.renew()
	for len(w.on(leaf)) < 5 || w.rollout() != nil {
		w.clock.Advance(time.Second)
		for _, server := range w.on(leaf) {
			w.report(server, apiv1.DeploymentDeployed)
		}
		w.once()
	}
	h, err := gitrepo.ParseHash(before)
	w.must(err)
	var edits []gitrepo.Edit
	for _, file := range []string{"certificate.yaml", "chain.pem", "bundle.pgp"} {
		path := manifest.IssuedDir("shop") + "/" + file
		data, err := w.store.Repo().ReadFile(h, path)
		w.must(err)
		edits = append(edits, gitrepo.Edit{Path: path, Data: data})
	}
	_, err = w.store.Apply(t.Context(), gitstore.Change{Subject: "roll back", Edits: edits})
	w.must(err)
	w.once()
	if got := w.on(old); len(got) != 5 || w.rollout() != nil {
		t.Errorf("the way back goes in waves: %v, %+v", got, w.rollout())
	}
}
