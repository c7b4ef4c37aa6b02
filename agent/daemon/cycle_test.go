package daemon_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

func TestOnceDeploysRenewsAndRests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	if s := w.status(a); s.Status != "new" || s.Server != "web-1" || len(s.History) != 0 {
		t.Errorf("status before the first cycle: %+v", s)
	}
	w.onceSays(a, daemon.ErrNothingToDo, "approved?")
	first := w.issue()
	one := w.publish(first)
	w.deployed(a, one, first)
	w.once(a, daemon.ErrNothingToDo)

	second := w.issue()
	two := w.publish(second)
	w.deployed(a, two, second)
	w.once(w.agent(), daemon.ErrNothingToDo) // another process knows too

	reports := w.taken()
	if len(reports) != 2 || reports[0].Commit != one || reports[1].Commit != two || reports[1].Generation != 2 || reports[1].Cause != "poll" {
		t.Fatalf("reports %+v", reports)
	}
	if d := reports[1].Deployments; len(d) != 1 || d[0].State != "deployed" || d[0].LeafSHA256 != second.LeafSHA256() || d[0].Certificate != site {
		t.Errorf("deployments %+v", d)
	}
	s := w.status(a)
	if s.Status != "ok" || s.Message != "" || s.Commit != two || s.Generation != 2 || s.NewestCommit != two || s.WaitingReports != 0 || len(s.History) != 2 {
		t.Errorf("status %+v", s)
	}
}

func TestFailedDeploymentIsRolledBackAndPutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	good := w.issue()
	one := w.publish(good)
	w.deployed(a, one, good)
	w.policy("[/bin/false]")
	bad := w.publish(w.issue())
	w.taken()
	w.badReports.Store(403)

	result, err := a.Once(t.Context())
	if !errors.Is(err, daemon.ErrDeployment) || len(result.Outcomes) != 1 || result.Outcomes[0].Phase != "reload" {
		t.Fatalf("once: %v %+v", err, result)
	}
	s := w.status(a)
	if s.Status != "failed" || s.Commit != one || s.NewestCommit != bad || s.WaitingReports != 1 || !s.RetryAt.Equal(w.now().Add(time.Minute)) {
		t.Errorf("status %+v", s)
	}
	w.site.wantServed(good)

	w.onceSays(a, daemon.ErrNothingToDo, "tried again at")
	for _, delay := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		if s := w.status(a); !s.RetryAt.Equal(w.now().Add(delay)) {
			t.Errorf("retry at %v, want %v from now", s.RetryAt, delay)
		}
		w.pass(delay)
		w.once(a, daemon.ErrDeployment)
	}
	for range 8 {
		w.pass(time.Hour)
		w.once(a, daemon.ErrDeployment)
	}
	if s := w.status(a); !s.RetryAt.Equal(w.now().Add(time.Hour)) {
		t.Errorf("retry at %v, want an hour from %v", s.RetryAt, w.now())
	}

	w.badReports.Store(0)
	w.policy("")
	mended := w.issue()
	three := w.publish(mended) // another commit is tried at once
	w.deployed(a, three, mended)
	if s := w.status(a); s.Status != "ok" || s.WaitingReports != 0 || !s.RetryAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	reports := w.taken()
	if len(reports) != 13 || reports[0].Commit != bad || reports[0].Deployments[0].Phase != "reload" || reports[12].Commit != three {
		t.Errorf("%d reports: %+v", len(reports), reports)
	}
}

// forge puts a commit on the branch of web-1 that its manifest does not cover.
func (w *world) forge() string {
	w.t.Helper()
	ref := manifest.ServerBranch("web-1")
	tip, _ := w.store.Repo().Ref(ref)
	who := gitrepo.Person{Name: "Mallory", Email: "mallory@example.com", When: w.now()}
	made, err := w.store.Repo().Apply(w.t.Context(), []gitrepo.Update{{
		Ref: ref, Expect: &tip, Base: tip, Parents: []gitrepo.Hash{tip}, Author: who, Committer: who, Message: "forged\n",
		Edits: []gitrepo.Edit{{Path: manifest.BundlePath(site), Data: []byte("swapped")}},
	}}, nil)
	w.must(err)
	return made[0].String()
}

func TestRefusedStateChangesNothingAndIsReportedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	good := w.issue()
	one := w.publish(good)
	w.deployed(a, one, good)
	w.taken()
	forged := w.forge()
	for range 3 {
		if _, err := a.Once(t.Context()); err == nil || errors.Is(err, daemon.ErrNothingToDo) || !strings.Contains(err.Error(), "state refused") {
			t.Fatalf("once: %v, want a refusal", err)
		}
		w.once(a, daemon.ErrNothingToDo)
		w.pass(time.Hour)
	}
	w.site.wantServed(good)
	if r := w.taken(); len(r) != 1 || r[0].Commit != forged || !strings.Contains(r[0].Error, "state refused") || len(r[0].Deployments) != 0 {
		t.Errorf("reports %+v, want one with the refusal", r)
	}
	if s := w.status(a); s.Status != "failed" || s.Commit != one || s.NewestCommit != one || len(s.History) != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestPolicyThatIsMissingOrForbids(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	w.publish(w.issue())
	w.must(os.Remove(w.cfg.Policy))
	if _, err := a.Once(t.Context()); err == nil || !strings.Contains(err.Error(), w.cfg.Policy) {
		t.Errorf("no policy: %v, want its path", err)
	}
	w.must(os.WriteFile(w.cfg.Policy, []byte("apiVersion: certferry/v1\nkind: Policy\ntargets: {}\n"), 0o600))
	w.pass(time.Hour)
	result, err := a.Once(t.Context())
	if err == nil || !strings.Contains(err.Error(), "policy") {
		t.Errorf("empty policy: %v %+v", err, result)
	}
	if _, err := os.Stat(w.site.cert); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was written: %v", err)
	}
}

func TestHubDownGitUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	w.hubDown.Store(true)
	first, second := w.issue(), w.issue()
	w.deployed(a, w.publish(first), first)
	w.deployed(a, w.publish(second), second)
	if s := w.status(a); s.WaitingReports != 2 || s.Status != "ok" {
		t.Errorf("status %+v", s)
	}
	w.hubDown.Store(false)
	w.once(a, daemon.ErrNothingToDo)
	if r := w.taken(); len(r) != 2 || r[0].Generation != 1 || r[1].Generation != 2 {
		t.Errorf("reports %+v", r)
	}
}

func TestGitDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	good := w.issue()
	w.deployed(a, w.publish(good), good)
	w.gitDown.Store(true)
	w.once(a, daemon.ErrUnreachable)
	if s := w.status(a); s.Status != "degraded" || !strings.Contains(s.Message, "unreachable") {
		t.Errorf("status %+v", s)
	}
	w.gitDown.Store(false)
	w.once(a, daemon.ErrNothingToDo)
	if s := w.status(a); s.Status != "ok" {
		t.Errorf("status %+v", s)
	}
	// A failed deployment is the graver news.
	w.policy("[/bin/false]")
	w.publish(w.issue())
	w.once(a, daemon.ErrDeployment)
	w.gitDown.Store(true)
	w.once(a, daemon.ErrUnreachable)
	if s := w.status(a); s.Status != "failed" {
		t.Errorf("status %+v", s)
	}
}

func TestStaleStateWarns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent()
	good := w.issue()
	w.deployed(a, w.publish(good), good)
	w.pass(8 * 24 * time.Hour)
	w.onceSays(a, daemon.ErrNothingToDo, "holds newer states back")
	if s := w.status(a); s.Status != "degraded" || s.FreshUntil.IsZero() {
		t.Errorf("status %+v", s)
	}
	w.deployed(a, w.publish(good), good) // signed again, same certificate
	w.once(a, daemon.ErrNothingToDo)
	if s := w.status(a); s.Status != "ok" {
		t.Errorf("status %+v", s)
	}
}

func TestRejectedReportsAreDropped(t *testing.T) {
	t.Parallel()
	for status, waiting := range map[int32]int{400: 0, 413: 0, 415: 0, 422: 0, 401: 1, 403: 1, 429: 1, 500: 1} {
		w := newWorld(t)
		a := w.agent()
		w.badReports.Store(status)
		good := w.issue()
		w.deployed(a, w.publish(good), good)
		if s := w.status(a); s.WaitingReports != waiting {
			t.Errorf("status %d: %d reports wait, want %d", status, s.WaitingReports, waiting)
		}
	}
}

func TestSecondOnceWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := w.agent(), w.agent()
	good := w.issue()
	w.publish(good)
	done := make(chan error, 2)
	for _, a := range []*daemon.Agent{first, second} {
		go func() {
			_, err := a.Once(t.Context())
			done <- err
		}()
	}
	one, two := <-done, <-done
	if (one == nil) == (two == nil) || !errors.Is(errors.Join(one, two), daemon.ErrNothingToDo) {
		t.Errorf("two at once: %v and %v, want one deployment and nothing to do", one, two)
	}
	if r := w.taken(); len(r) != 1 {
		t.Errorf("%d reports, want 1", len(r))
	}

	lock, err := os.OpenFile(filepath.Join(w.cfg.StateDir, "lock"), os.O_RDWR, 0)
	w.must(err)
	defer func() { _ = lock.Close() }()
	w.must(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = first.Once(short)
	_, back := first.Rollback(short, "")
	for _, err := range []error{err, back, first.Resume(short)} {
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another certferry-agent") {
			t.Errorf("while another is at work: %v", err)
		}
	}
}
