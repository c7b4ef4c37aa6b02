// This file holds what the server's own administrator asks of the agent: status, roll back, resume, policy check.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/state"
)

// ErrNoEarlier means that the local history holds nothing to go back to.
var ErrNoEarlier = errors.New("no earlier commit of the present keyring in this server's local history (see certferry-agent status; --to COMMIT goes back further)")

// Status is where a server stands.
type Status struct {
	Server      string `json:"server" yaml:"server"`
	Hub         string `json:"hub" yaml:"hub"`
	Fingerprint string `json:"fingerprint" yaml:"fingerprint"`
	// Status is ok, degraded, failed or new; Message says why.
	Status  string    `json:"status" yaml:"status"`
	Message string    `json:"message,omitempty" yaml:"message,omitempty"`
	At      time.Time `json:"at,omitzero" yaml:"at,omitempty"`
	// Commit and Generation are what is deployed, NewestCommit and NewestGeneration what was verified last.
	Commit           string    `json:"commit,omitempty" yaml:"commit,omitempty"`
	Generation       uint64    `json:"generation" yaml:"generation"`
	NewestCommit     string    `json:"newest_commit,omitempty" yaml:"newest_commit,omitempty"`
	NewestGeneration uint64    `json:"newest_generation" yaml:"newest_generation"`
	FreshUntil       time.Time `json:"fresh_until,omitzero" yaml:"fresh_until,omitempty"`
	// Alarm says that the remotes seem to hold newer states back; empty where nothing speaks for it.
	Alarm string `json:"alarm,omitempty" yaml:"alarm,omitempty"`
	// Remote is the one that answered last.
	Remote         string    `json:"remote,omitempty" yaml:"remote,omitempty"`
	Held           bool      `json:"held" yaml:"held"`
	RetryAt        time.Time `json:"retry_at,omitzero" yaml:"retry_at,omitempty"`
	WaitingReports int       `json:"waiting_reports" yaml:"waiting_reports"`
	// History lists the commits that rollback can go to, newest first.
	History []string `json:"history" yaml:"history"`
}

// Status reads where the server stands from its state folder; nothing is asked of the network.
func (a *Agent) Status() (Status, error) {
	progress, err := a.dir.Progress()
	if err != nil {
		return Status{}, err
	}
	floor, err := a.dir.Floor()
	if err != nil {
		return Status{}, err
	}
	waiting, err := a.outbox.Len()
	if err != nil {
		return Status{}, err
	}
	entries, err := a.dir.History()
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Server: a.id.Server, Hub: a.id.HubURL, Fingerprint: *a.fingerprint.Load(),
		Status: progress.Status, Message: progress.Message, At: progress.At,
		Commit: progress.Commit, Generation: progress.Generation,
		NewestCommit: floor.Commit, NewestGeneration: floor.Generation, FreshUntil: floor.FreshUntil,
		Held: progress.Held, RetryAt: progress.RetryAt, WaitingReports: waiting,
		Alarm: a.alarm(progress, floor), Remote: progress.Remote,
		History: make([]string, 0, len(entries)),
	}
	if s.Status == "" {
		s.Status = "new"
	}
	for _, e := range entries {
		s.History = append(s.History, e.Commit)
	}
	return s, nil
}

// Rollback deploys an earlier commit from the local history and holds the server there until Resume. An empty
// commit means the newest one before what is deployed now. It needs no network.
func (a *Agent) Rollback(ctx context.Context, commit string) (Result, error) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := a.recover(ctx); err != nil {
		return Result{}, err
	}
	progress, err := a.dir.Progress()
	if err != nil {
		return Result{}, err
	}
	if commit == "" {
		if commit, err = a.earlier(progress); err != nil {
			return Result{}, err
		}
	}
	entry, files, err := a.dir.LoadCommit(commit)
	if err != nil {
		return Result{}, fmt.Errorf("roll back to %s: %w (see certferry-agent status)", commit, err)
	}
	st, err := a.source.Load(entry.Commit, files)
	if err != nil {
		return Result{}, fmt.Errorf("roll back to %s: %w", entry.Commit, err)
	}
	result, err := a.apply(ctx, causeRollback, st, progress)
	a.flush(ctx)
	return result, err
}

// earlier is the newest commit in the history before the one that is deployed. Those of an earlier keyring are passed
// over: its keys may have been stolen. Whoever means one of them says so.
func (a *Agent) earlier(progress state.Progress) (string, error) {
	entries, err := a.dir.History()
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if e.KeyringVersion == progress.KeyringVersion && e.Compare(progress.Order()) < 0 {
			return e.Commit, nil
		}
	}
	return "", ErrNoEarlier
}

// Recover finishes or undoes the deployment that a crash interrupted, and answers what became of it; ErrNothingToDo where
// there was none. It needs no network and no running server: at boot it comes before the servers that read the files.
func (a *Agent) Recover(ctx context.Context) (Result, error) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	outcomes, err := a.recoverDeployments(ctx)
	if err != nil {
		return Result{}, err
	}
	if len(outcomes) == 0 {
		return Result{}, fmt.Errorf("%w: no deployment was interrupted", ErrNothingToDo)
	}
	progress, err := a.dir.Progress()
	return Result{Commit: progress.Commit, Generation: progress.Generation, Outcomes: shown(outcomes)}, err
}

// Resume ends a hold of this server's administrator; the next cycle deploys the newest state. It returns
// ErrNothingToDo where the server is not held.
func (a *Agent) Resume(ctx context.Context) error {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	progress, err := a.dir.Progress()
	if err != nil {
		return err
	}
	if !progress.Held {
		return fmt.Errorf("%w: this server is not held here", ErrNothingToDo)
	}
	progress.Held = false
	return a.dir.SaveProgress(progress)
}

// CheckPolicy reads the policy file and writes what it allows to w.
func CheckPolicy(path string, w io.Writer) error {
	p, err := policy.Load(path)
	if err != nil {
		return err
	}
	return p.Explain(w)
}
