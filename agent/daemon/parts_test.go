package daemon

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/report"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/hub/apiv1"
)

// recovery stands for a deployer that finds what a crash left.
type recovery struct {
	outcomes []agent.Outcome
	err      error
}

func (r recovery) Deploy(context.Context, []agent.Deployment) ([]agent.Outcome, error) {
	return nil, r.err
}

func (r recovery) Recover(context.Context) ([]agent.Outcome, error) { return r.outcomes, r.err }

func recovering(t *testing.T, r recovery) *Agent {
	t.Helper()
	dir, err := state.Open(t.TempDir() + "/state")
	if err != nil {
		t.Fatal(err)
	}
	outbox, err := report.Open(dir.Path("reports"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	return &Agent{dir: dir, outbox: outbox, log: log, deploy: r, env: Environment{Now: time.Now, Logger: log}, cfg: Config{PollInterval: time.Minute}}
}

func TestRecoveryIsReported(t *testing.T) {
	t.Parallel()
	a := recovering(t, recovery{outcomes: []agent.Outcome{{Certificate: "example.com", Target: "web", State: agent.RolledBack, Phase: agent.PhaseSwap}}})
	if err := a.dir.SaveFloor(state.Floor{Commit: "c", Generation: 7}); err != nil {
		t.Fatal(err)
	}
	if err := a.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := a.outbox.Flush(t.Context(), func(_ context.Context, r apiv1.ReportRequest) error {
		if r.Cause != causeRecovery || r.Commit != "c" || r.Generation != 7 || len(r.Deployments) != 1 || r.Deployments[0].State != "rolled_back" {
			t.Errorf("report %+v", r)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// At boot, recovery alone says what became of the deployment, or that there was none.
func TestRecoverAlone(t *testing.T) {
	t.Parallel()
	a := recovering(t, recovery{outcomes: []agent.Outcome{{Certificate: "example.com", Target: "web", State: agent.RolledBack, Phase: agent.PhaseSwap}}})
	result, err := a.Recover(t.Context())
	if err != nil || len(result.Outcomes) != 1 || result.Outcomes[0].State != "rolled_back" {
		t.Errorf("%+v, %v", result, err)
	}
	if n, err := a.outbox.Len(); err != nil || n != 1 {
		t.Errorf("%d reports wait, %v", n, err)
	}
	if _, err := recovering(t, recovery{}).Recover(t.Context()); !errors.Is(err, ErrNothingToDo) {
		t.Errorf("nothing to recover: %v", err)
	}
}

// Until the interrupted deployment is dealt with nothing new is deployed.
func TestFailedRecoveryStopsEverything(t *testing.T) {
	t.Parallel()
	stuck := errors.New("stuck")
	a := recovering(t, recovery{err: stuck})
	if _, err := a.Once(t.Context()); !errors.Is(err, stuck) {
		t.Errorf("once: %v", err)
	}
	if _, err := a.Rollback(t.Context(), ""); !errors.Is(err, stuck) {
		t.Errorf("roll back: %v", err)
	}
	recovered := false
	if delay, _, moved := a.cycle(t.Context(), &recovered); recovered || delay <= 0 || !moved {
		t.Errorf("cycle: recovered %v, next in %v", recovered, delay)
	}
}

// A stop in the middle of a deployment is no fault of the commit.
func TestStopIsNoRefusal(t *testing.T) {
	t.Parallel()
	a := recovering(t, recovery{})
	for _, stop := range []error{context.Canceled, context.DeadlineExceeded} {
		if err := a.refused(state.Progress{}, "c", stop); !errors.Is(err, stop) {
			t.Errorf("refused: %v", err)
		}
	}
	progress, err := a.dir.Progress()
	waiting, lenErr := a.outbox.Len()
	if err != nil || lenErr != nil || progress.FailedCommit != "" || waiting != 0 {
		t.Errorf("progress %+v, %d reports, %v %v", progress, waiting, err, lenErr)
	}
}

func TestClipKeepsTheEnd(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 3000) + "the fault"
	got := clip(long)
	if utf8.RuneCountInString(got) != 1000 || !strings.HasPrefix(got, "…ä") || !strings.HasSuffix(got, "the fault") {
		t.Errorf("clip: %d characters, %q", utf8.RuneCountInString(got), got[len(got)-20:])
	}
	if clip("short") != "short" {
		t.Error("clip changed a short text")
	}
}

func TestJitterStaysNear(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := jitter(time.Minute); d < 48*time.Second || d > 72*time.Second {
			t.Fatalf("jitter of a minute: %v", d)
		}
	}
	if d := jitter(0); d != 0 {
		t.Errorf("jitter of nothing: %v", d)
	}
}

// A hub that is down makes no agent scan its server with each heartbeat.
func TestFindingsAreKeptForAWhile(t *testing.T) {
	t.Parallel()
	a := recovering(t, recovery{})
	now := time.Now()
	a.env.Now = func() time.Time { return now }
	a.last = findings{found: []apiv1.FoundCertificate{{Target: "kept"}}, at: now.Add(-scanEvery + time.Second)}
	kept := func() bool {
		found := a.findings(t.Context())
		return len(found) > 0 && found[0].Target == "kept"
	}
	if !kept() {
		t.Error("scanned again within half an hour")
	}
	now = now.Add(time.Second)
	if kept() {
		t.Error("told what was found half an hour ago")
	}
}
