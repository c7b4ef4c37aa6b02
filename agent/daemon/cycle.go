// This file holds the agent's one cycle: poll, fetch, verify, deploy, report. It is idempotent and may be killed
// anywhere: the journal of the deployment, the floor and the outbox say where to go on.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/report"
	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// Causes of a report.
const (
	causePoll     = "poll"
	causeRollback = "rollback"
	causeRecovery = "recovery"
)

// Words for Progress.Status.
const (
	statusOK       = "ok"
	statusDegraded = "degraded"
	statusFailed   = "failed"
)

// Errors that tell the command line which exit code to give.
var (
	// ErrNothingToDo means that the server holds what it should hold already.
	ErrNothingToDo = errors.New("nothing to do")
	// ErrDeployment means that at least one deployment did not succeed; the Result says which.
	ErrDeployment = errors.New("deployment did not succeed")
	// ErrUnreachable means that the remote did not answer.
	ErrUnreachable = source.ErrUnreachable
	// ErrDenied means that the remote does not accept this server's credential; it comes with ErrUnreachable.
	ErrDenied = gitrepo.ErrDenied
)

// Result is what one cycle did.
type Result struct {
	Commit     string            `json:"commit,omitempty" yaml:"commit,omitempty"`
	Generation uint64            `json:"generation,omitempty" yaml:"generation,omitempty"`
	Outcomes   []DeployedOutcome `json:"deployments" yaml:"deployments"`
}

// DeployedOutcome is one deployment of a Result.
type DeployedOutcome struct {
	Certificate string `json:"certificate" yaml:"certificate"`
	Target      string `json:"target" yaml:"target"`
	State       string `json:"state" yaml:"state"`
	Phase       string `json:"phase" yaml:"phase"`
	LeafSHA256  string `json:"leaf_sha256,omitempty" yaml:"leaf_sha256,omitempty"`
	Detail      string `json:"detail,omitempty" yaml:"detail,omitempty"`
}

// Once runs one cycle. It returns ErrNothingToDo when the server holds the newest state already or waits, and
// ErrDeployment with a Result when a deployment failed.
func (a *Agent) Once(ctx context.Context) (Result, error) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := a.recover(ctx); err != nil {
		return Result{}, err
	}
	result, _, err := a.sync(ctx)
	a.flush(ctx)
	return result, err
}

// recover finishes or undoes what a crash interrupted.
func (a *Agent) recover(ctx context.Context) error {
	_, err := a.recoverDeployments(ctx)
	return err
}

func (a *Agent) recoverDeployments(ctx context.Context) ([]agent.Outcome, error) {
	outcomes, err := a.deploy.Recover(ctx)
	if err != nil {
		return nil, fmt.Errorf("recover from an interrupted deployment: %w", err)
	}
	if len(outcomes) == 0 {
		return nil, nil
	}
	a.log.WarnContext(ctx, "recovered from an interrupted deployment", slog.Int("deployments", len(outcomes)))
	floor, err := a.dir.Floor()
	if err != nil {
		return nil, err
	}
	return outcomes, a.report(causeRecovery, floor.Commit, floor.Generation, outcomes, "")
}

// shown are outcomes as people see them.
func shown(outcomes []agent.Outcome) []DeployedOutcome {
	all := make([]DeployedOutcome, 0, len(outcomes))
	for _, o := range outcomes {
		all = append(all, DeployedOutcome{
			Certificate: o.Certificate, Target: o.Target, State: string(o.State), Phase: string(o.Phase),
			LeafSHA256: o.LeafSHA256, Detail: o.Detail,
		})
	}
	return all
}

// sync brings the server to the newest state of its branch. Where what one remote holds does not do, the next is
// asked. The caller holds the lock.
func (a *Agent) sync(ctx context.Context) (Result, time.Duration, error) {
	for left := a.source.Len(); ; left-- {
		result, retryAfter, err := a.look(ctx)
		if left <= 1 || !isNext(err) || ctx.Err() != nil {
			return result, retryAfter, err
		}
		a.log.WarnContext(ctx, "asking the next remote", slog.String("remote", a.source.Current()), slog.Any("reason", err))
		a.source.PassOver()
	}
}

// look asks the first remote that is well and deploys what it holds.
func (a *Agent) look(ctx context.Context) (Result, time.Duration, error) {
	progress, err := a.dir.Progress()
	if err != nil {
		return Result{}, 0, err
	}
	floor, err := a.dir.Floor()
	if err != nil {
		return Result{}, 0, err
	}
	tip, retryAfter, err := a.source.Tip(ctx)
	if errors.Is(err, source.ErrRefused) {
		return Result{}, retryAfter, a.refused(progress, "", err)
	}
	if err != nil {
		return Result{}, retryAfter, a.note(progress, statusDegraded, err)
	}
	if name := a.source.Current(); name != progress.Remote {
		if progress.Remote != "" {
			a.log.InfoContext(ctx, "state comes from another remote", slog.String("remote", name), slog.String("former", progress.Remote))
		}
		progress.Remote = name
		if err := a.dir.SaveProgress(progress); err != nil {
			return Result{}, retryAfter, err
		}
	}
	switch {
	case tip == "" && floor.Generation > 0:
		return Result{}, retryAfter, nextError{a.nothing(progress, floor, "waiting: "+progress.Remote+" has no branch for this server")}
	case tip == "":
		return Result{}, retryAfter, a.nothing(progress, floor, "waiting: the hub has nothing for this server yet (is it approved?)")
	case progress.Held:
		return Result{}, retryAfter, a.nothing(progress, floor, "held at commit "+progress.Commit+" by this server's administrator")
	case tip == progress.Commit:
		err := a.nothing(progress, floor, "")
		if a.expectsNewer(floor) {
			err = nextError{err}
		}
		return Result{}, retryAfter, err
	case tip == progress.FailedCommit && a.env.Now().Before(progress.RetryAt):
		return Result{}, retryAfter, fmt.Errorf("%w: commit %s failed before and is tried again at %s",
			ErrNothingToDo, tip, progress.RetryAt.Format(time.RFC3339))
	}
	st, err := a.obtain(ctx, tip, floor)
	switch {
	case errors.Is(err, ErrUnreachable):
		return Result{}, retryAfter, nextError{a.note(progress, statusDegraded, err)}
	case errors.Is(err, source.ErrBehind):
		return Result{}, retryAfter, nextError{a.nothing(progress, floor, err.Error())}
	case err != nil:
		return Result{}, retryAfter, nextError{a.refused(progress, tip, err)}
	}
	if err := a.accept(st, progress.Commit); err != nil {
		return Result{}, retryAfter, err
	}
	result, err := a.apply(ctx, causePoll, st, progress)
	return result, retryAfter, err
}

// obtain returns the verified state at tip, from the local history where it was fetched before.
func (a *Agent) obtain(ctx context.Context, tip string, floor state.Floor) (*source.State, error) {
	bound := source.Floor{Generation: floor.Generation, ManifestSHA256: floor.ManifestSHA256, KeyringVersion: floor.KeyringVersion}
	if _, err := a.takeKeys(); err != nil {
		return nil, err
	}
	if _, files, err := a.dir.LoadCommit(tip); err == nil {
		return a.source.Verify(bound, tip, files)
	}
	return a.source.Fetch(ctx, bound)
}

// accept raises the floor and keeps the commit, before anything of it is deployed.
func (a *Agent) accept(st *source.State, deployed string) error {
	if err := a.dir.SaveCommit(state.Order{KeyringVersion: st.KeyringVersion, Generation: st.Generation}, st.Commit, st.Files, deployed); err != nil {
		return err
	}
	err := a.dir.SaveFloor(state.Floor{
		Generation: st.Generation, ManifestSHA256: st.ManifestSHA256, KeyringVersion: st.KeyringVersion,
		Commit: st.Commit, FreshUntil: st.FreshUntil,
	})
	if err != nil {
		return err
	}
	a.noteKeys(st)
	return a.promote(st)
}

// apply deploys st and notes and reports the outcome.
func (a *Agent) apply(ctx context.Context, cause string, st *source.State, progress state.Progress) (Result, error) {
	outcomes, err := a.deploy.Deploy(ctx, a.withKeys(ctx, st.Deployments))
	if err != nil {
		return Result{}, a.refused(progress, st.Commit, err)
	}
	result := Result{Commit: st.Commit, Generation: st.Generation, Outcomes: shown(outcomes)}
	var failed *agent.Outcome
	for _, o := range outcomes {
		if o.State != agent.Deployed && failed == nil {
			failed = &o
		}
		a.log.InfoContext(ctx, "deployment finished", slog.String("certificate", o.Certificate), slog.String("target", o.Target),
			slog.String("state", string(o.State)), slog.String("phase", string(o.Phase)), slog.String("detail", o.Detail),
			slog.String("commit", st.Commit), slog.Uint64("generation", st.Generation), slog.Duration("duration", o.Duration))
	}
	// The report is on disk first: a crash in between reports twice, never not at all.
	if err := a.report(cause, st.Commit, st.Generation, outcomes, ""); err != nil {
		return result, err
	}
	if failed != nil {
		message := fmt.Sprintf("%s at %s: %s at %s: %s", failed.Certificate, failed.Target, failed.State, failed.Phase, failed.Detail)
		return result, errors.Join(fmt.Errorf("%w: %s", ErrDeployment, message), a.saveFailure(progress, st.Commit, message))
	}
	return result, a.dir.SaveProgress(state.Progress{
		Commit: st.Commit, Generation: st.Generation, KeyringVersion: st.KeyringVersion, Held: cause == causeRollback,
		Status: statusOK, At: a.env.Now().UTC(), Counter: progress.Counter, Remote: progress.Remote,
	})
}

// refused notes and reports a commit of which nothing could be used.
func (a *Agent) refused(progress state.Progress, commit string, cause error) error {
	if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
		return cause // stopped from outside: the commit is not to blame
	}
	errs := []error{cause}
	if progress.FailedCommit != commit || progress.Message != cause.Error() {
		errs = append(errs, a.report(causePoll, commit, 0, nil, cause.Error()))
	}
	return errors.Join(append(errs, a.saveFailure(progress, commit, cause.Error()))...)
}

// saveFailure puts the commit off: a minute after the first failure, twice as long after each further one, an
// hour at most. Another commit is tried at once.
func (a *Agent) saveFailure(progress state.Progress, commit, message string) error {
	if progress.FailedCommit != commit {
		progress.Failures = 0
	}
	progress.FailedCommit = commit
	progress.Failures++
	delay := min(time.Minute<<min(progress.Failures-1, 10), time.Hour)
	now := a.env.Now().UTC()
	progress.RetryAt, progress.At = now.Add(delay).Truncate(time.Second), now
	progress.Status, progress.Message = statusFailed, message
	return a.dir.SaveProgress(progress)
}

// note keeps a passing fault for status and heartbeat, and returns it.
func (a *Agent) note(progress state.Progress, status string, cause error) error {
	if progress.Status == statusFailed {
		return cause // a failed deployment is the graver news
	}
	message := cause.Error()
	if floor, err := a.dir.Floor(); err == nil {
		if alarm := a.alarm(progress, floor); alarm != "" {
			message = alarm + "; " + message
		}
	}
	progress.Status, progress.Message, progress.At = status, message, a.env.Now().UTC()
	return errors.Join(cause, a.dir.SaveProgress(progress))
}

// nothing notes that there is nothing to deploy. A state that should have been renewed by now is worth a warning:
// somebody may be holding newer ones back.
func (a *Agent) nothing(progress state.Progress, floor state.Floor, message string) error {
	status := statusOK
	if alarm := a.alarm(progress, floor); alarm != "" {
		if progress.Message != alarm {
			a.log.Warn("alarm", slog.String("what", alarm))
		}
		status, message = statusDegraded, alarm
	}
	if progress.Status != status || progress.Message != message {
		progress.Status, progress.Message, progress.At = status, message, a.env.Now().UTC()
		progress.FailedCommit, progress.Failures, progress.RetryAt = "", 0, time.Time{}
		if err := a.dir.SaveProgress(progress); err != nil {
			return err
		}
	}
	if message == "" {
		return ErrNothingToDo
	}
	return fmt.Errorf("%w: %s", ErrNothingToDo, message)
}

func (a *Agent) report(cause, commit string, generation uint64, outcomes []agent.Outcome, refusal string) error {
	r := apiv1.ReportRequest{
		At: a.env.Now().UTC(), Commit: commit, Generation: generation, Cause: cause,
		Deployments: make([]apiv1.DeploymentReport, 0, len(outcomes)), Error: clip(refusal),
	}
	for _, o := range outcomes {
		r.Deployments = append(r.Deployments, apiv1.DeploymentReport{
			Certificate: o.Certificate, Target: o.Target, State: apiv1.DeploymentState(o.State),
			Phase: apiv1.DeploymentPhase(o.Phase), LeafSHA256: o.LeafSHA256, Detail: clip(o.Detail),
			DurationMillis: o.Duration.Milliseconds(),
		})
	}
	return a.outbox.Add(r)
}

// clip shortens text to what the hub takes, keeping the end, where programs say what was wrong.
func clip(text string) string {
	const limit = 1000 // characters, of up to four bytes
	if runes := []rune(text); len(runes) > limit {
		return "…" + string(runes[len(runes)-limit+1:])
	}
	return text
}

// flush sends what waits for the hub; what cannot be sent now goes with a later cycle.
func (a *Agent) flush(ctx context.Context) {
	err := a.outbox.Flush(ctx, func(ctx context.Context, r apiv1.ReportRequest) error {
		err := a.hub.Report(ctx, r)
		if refused := new(client.Error); errors.As(err, &refused) && rejects(refused.Status) {
			return fmt.Errorf("%w: %w", report.ErrRejected, err)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "reports not delivered", slog.Any("error", err))
	}
}

// rejects says whether a status means that the same report will never be taken.
func rejects(status int) bool {
	return status == 400 || status == 413 || status == 415 || status == 422
}
