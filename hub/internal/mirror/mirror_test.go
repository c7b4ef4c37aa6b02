package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/internal/githost"
)

// world is a hub's repository, a stock Git host, and a loop between them.
type world struct {
	t    *testing.T
	repo *gitrepo.Repo
	host *githost.Host
	dir  string
	loop *loop

	mu     sync.Mutex
	now    time.Time
	open   map[hub.AlertKind]string
	intake func(in *gitrepo.Incoming, tip gitrepo.Hash) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, host: githost.Start(t, false), open: map[hub.AlertKind]string{}, now: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
	var url string
	w.dir, url = w.host.Create(t, "fleet.git")
	var err error
	w.repo, err = gitrepo.Open(t.TempDir(), gitrepo.Options{Now: w.clock})
	w.must(err)
	t.Cleanup(func() { _ = w.repo.Close() })
	w.loop = w.newLoop(url)
	w.commit(mainRef, "certificates/a.yaml", "one")
	for n := range 3 {
		w.commit(fmt.Sprintf("refs/heads/servers/web-%d", n), "manifest.json", "one")
	}
	return w
}

func (w *world) newLoop(url string) *loop {
	limits := gitrepo.PushLimits
	limits.Timeout = 5 * time.Second
	remote := &gitrepo.Remote{URL: url, Username: githost.Writer, Password: githost.Password, Limits: limits}
	return newLoop(&Config{
		Repo: w.repo, Alerts: w, Intake: w, Interval: time.Hour, Now: w.clock, Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	}, Target{Name: "backup", URL: url, Remote: remote, Intent: true})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Raise implements Alerts.
func (w *world) Raise(_ context.Context, a hub.Alert) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.Object != "backup" || a.Message == "" || a.Level == "" {
		return fmt.Errorf("odd alert %+v", a)
	}
	w.open[a.Kind] = a.Message
	return nil
}

// Clear implements Alerts.
func (w *world) Clear(_ context.Context, kind hub.AlertKind, _ string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, kind)
	return nil
}

func (w *world) alert(kind hub.AlertKind) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[kind]
}

// Take implements Intake.
func (w *world) Take(_ context.Context, remote string, in *gitrepo.Incoming, tip gitrepo.Hash) error {
	if remote != "backup" {
		return errors.New("another remote")
	}
	if w.intake != nil {
		return w.intake(in, tip)
	}
	return w.merge(in, tip)
}

// merge makes the hub's main lead to tip, as the intent service does.
func (w *world) merge(in *gitrepo.Incoming, tip gitrepo.Hash) error {
	ours, _ := w.repo.Ref(mainRef)
	person := gitrepo.Person{Name: "hub", Email: "hub@example.com"}
	_, err := w.repo.Apply(w.t.Context(), []gitrepo.Update{{
		Ref: mainRef, Expect: &ours, Base: ours, Parents: []gitrepo.Hash{ours, tip}, Incoming: in, Author: person, Committer: person,
		Message: "merge", Edits: []gitrepo.Edit{{Path: "certificates/merged.yaml", Data: tip[:]}},
	}}, nil)
	return err
}

func (w *world) commit(ref, path, text string) gitrepo.Hash {
	w.t.Helper()
	person := gitrepo.Person{Name: "hub", Email: "hub@example.com"}
	u := gitrepo.Update{Ref: ref, Author: person, Committer: person, Message: text, Edits: []gitrepo.Edit{{Path: path, Data: []byte(text)}}}
	if at, ok := w.repo.Ref(ref); ok {
		u.Base, u.Parents = at, []gitrepo.Hash{at}
	}
	h, err := w.repo.Apply(w.t.Context(), []gitrepo.Update{u}, nil)
	w.must(err)
	return h[0]
}

func (w *world) git(dir string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=p", "GIT_AUTHOR_EMAIL=p@e",
		"GIT_COMMITTER_NAME=p", "GIT_COMMITTER_EMAIL=p@e")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// clone is what a person works in.
func (w *world) clone() string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "clone")
	w.git(filepath.Dir(dir), "clone", "-q", w.dir, dir)
	return dir
}

func (w *world) edit(clone, branch, text string, push ...string) {
	w.t.Helper()
	w.git(clone, "checkout", "-q", "-B", branch, "origin/"+branch)
	w.must(os.WriteFile(filepath.Join(clone, "person.txt"), []byte(text), 0o600))
	w.git(clone, "add", ".")
	w.git(clone, "commit", "-q", "-m", text)
	w.git(clone, append([]string{"push", "-q", "origin", branch}, push...)...)
}

// once is one look, with all that follows from its outcome.
func (w *world) once() error {
	err := w.loop.pass(w.t.Context())
	w.loop.note(w.t.Context(), err)
	return err
}

// current wants the remote at what the hub holds.
func (w *world) current() {
	w.t.Helper()
	w.must(w.once())
	want := make([]string, 0, 4)
	for ref, h := range w.repo.Refs() {
		want = append(want, h.String()+" "+ref)
	}
	slices.Sort(want)
	got := strings.Split(w.git(w.dir, "for-each-ref", "--format=%(objectname) %(refname)"), "\n")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		w.t.Errorf("the remote holds\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s := w.loop.snapshot(); s.State != hub.RemoteCurrent || s.Behind != 0 || s.LastOK.IsZero() || s.LastError != "" || s.Failures != 0 {
		w.t.Errorf("status %+v", s)
	}
}

func TestMirrorFollows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if s := w.loop.snapshot(); s.State != hub.RemoteStarting || s.Name != "backup" {
		t.Errorf("status before the first look: %+v", s)
	}
	w.current()
	w.commit("refs/heads/servers/web-1", "manifest.json", "two")
	proposal := w.commit("refs/heads/proposals/a/04ab", "x", "y")
	if s := w.loop.snapshot(); s.Behind != 2 {
		t.Errorf("%d branches behind, want 2", s.Behind)
	}
	w.current()
	_, err := w.repo.Apply(t.Context(), []gitrepo.Update{{Ref: "refs/heads/proposals/a/04ab", Expect: &proposal, Delete: true}}, nil)
	w.must(err)
	w.commit(mainRef, "certificates/b.yaml", "two")
	w.current()
	asked := w.host.Asked()
	w.current()
	if n := w.host.Asked() - asked; n > 2 {
		t.Errorf("a look at a remote that is up to date took %d requests", n)
	}
	w.git(w.dir, "fsck", "--full", "--strict")
}

// TestFirstPushCutOff: branches arrived, main did not, and the hub starts anew.
func TestFirstPushCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.current()
	w.git(w.dir, "update-ref", "-d", mainRef)
	w.loop = w.newLoop(w.host.URL + "/fleet.git")
	w.current()
}

func TestDownAndUpAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.current()
	w.host.Break(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Retry-After", "1800")
		rw.WriteHeader(http.StatusServiceUnavailable)
	})
	w.commit("refs/heads/servers/web-1", "manifest.json", "two")
	for n := 1; n <= patience; n++ {
		if err := w.loop.pass(t.Context()); !errors.Is(err, gitrepo.ErrUnreachable) {
			t.Fatalf("down: %v", err)
		} else if wait := w.loop.note(t.Context(), err); wait != 30*time.Minute {
			t.Errorf("next try in %s, the remote asked for half an hour", wait)
		}
		if open := w.alert(hub.AlertGitRemote) != ""; open != (n == patience) {
			t.Errorf("after %d failures: alert %t", n, open)
		}
	}
	if s := w.loop.snapshot(); s.State != hub.RemoteFailing || s.Behind != 1 || s.Failures != patience || s.NextTry.IsZero() || !strings.Contains(s.LastError, "503") {
		t.Errorf("status %+v", s)
	}
	w.host.Break(nil)
	w.current()
	if text := w.alert(hub.AlertGitRemote); text != "" {
		t.Errorf("alert stays: %s", text)
	}
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 7: 320 * time.Second, 8: 10 * time.Minute, 1000: 10 * time.Minute} {
		if got := backOff(firstDelay, failures); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
	for range 1000 {
		if d := jitter(time.Minute); d < 48*time.Second || d > 72*time.Second {
			t.Fatalf("jitter gave %s", d)
		}
	}
}

// TestRun: the loop pushes when the hub has news, without waiting for its interval, and tries again after faults.
func TestRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.loop.delay = time.Millisecond
	w.host.Break(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	m := &Mirror{loops: []*loop{w.loop}}
	go func() { done <- m.Run(ctx) }()
	w.await("failures", func() bool { return m.Status()[0].Failures >= 3 })
	w.host.Break(nil)
	w.await("the first push", func() bool { return m.Status()[0].State == hub.RemoteCurrent })
	h := w.commit("refs/heads/servers/web-2", "manifest.json", "two")
	w.await("the second push", func() bool {
		return w.git(w.dir, "rev-parse", "servers/web-2") == h.String()
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestPeopleCommit: what people do to main reaches the hub, and both have one history again.
func TestPeopleCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.current()
	clone := w.clone()
	w.edit(clone, "main", "a wish")
	w.commit(mainRef, "certificates/b.yaml", "meanwhile")
	w.current()
	if log := w.git(w.dir, "log", "--format=%s", "main"); !strings.Contains(log, "a wish") || !strings.Contains(log, "meanwhile") {
		t.Errorf("main on the remote:\n%s", log)
	}
	if text := w.alert(hub.AlertHistoryRewritten); text != "" {
		t.Errorf("a commit is no rewriting: %s", text)
	}
	// Somebody goes back: what the hub knows is only old.
	w.git(w.dir, "update-ref", mainRef, w.git(w.dir, "rev-parse", "main~1"))
	w.current()
}

// TestTakeFails: main waits, servers do not.
func TestTakeFails(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world){
		"intake fails":     func(w *world) { w.intake = func(*gitrepo.Incoming, gitrepo.Hash) error { return errors.New("no") } },
		"intake lies":      func(w *world) { w.intake = func(*gitrepo.Incoming, gitrepo.Hash) error { return nil } },
		"intent is not on": func(w *world) { w.loop.target.Intent = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.current()
			spoil(w)
			w.edit(w.clone(), "main", "a wish")
			theirs := w.git(w.dir, "rev-parse", "main")
			h := w.commit("refs/heads/servers/web-2", "manifest.json", "two")
			w.commit(mainRef, "certificates/b.yaml", "ours")
			if err := w.once(); !errors.Is(err, errNotTaken) {
				t.Errorf("pass: %v", err)
			}
			if got := w.git(w.dir, "rev-parse", "servers/web-2", "main"); got != h.String()+"\n"+theirs {
				t.Errorf("the remote holds %s", got)
			}
			if w.alert(hub.AlertGitRemote) == "" || w.loop.snapshot().Behind != 1 {
				t.Errorf("no alert, or status %+v", w.loop.snapshot())
			}
		})
	}
}

// TestOthersOnServerBranches: what is the hub's alone is put back, told, and the alert goes after a while.
func TestOthersOnServerBranches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.current()
	clone := w.clone()
	w.edit(clone, "servers/web-1", "mine")
	w.git(w.dir, "update-ref", "refs/heads/servers/evil", "servers/web-1")
	w.git(w.dir, "update-ref", "-d", "refs/heads/servers/web-2")
	w.git(w.dir, "update-ref", "refs/heads/people", "servers/web-0")
	err := w.once()
	w.must(err)
	if text := w.alert(hub.AlertHistoryRewritten); !strings.Contains(text, "servers/web-1") || !strings.Contains(text, "servers/evil") {
		t.Errorf("alert %q", text)
	}
	w.git(w.dir, "update-ref", "-d", "refs/heads/people") // which was not the hub's and stayed
	w.current()
	if w.alert(hub.AlertHistoryRewritten) == "" {
		t.Error("the alert is gone before anybody could see it")
	}
	w.pass(2 * time.Hour)
	w.current()
	if text := w.alert(hub.AlertHistoryRewritten); text != "" {
		t.Errorf("the alert stays: %s", text)
	}
}

// TestForcePushToMain: nothing is lost and somebody is told.
func TestForcePushToMain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(mainRef, "certificates/b.yaml", "two")
	w.current()
	clone := w.clone()
	w.git(clone, "reset", "-q", "--hard", "HEAD~1")
	w.must(os.WriteFile(filepath.Join(clone, "person.txt"), []byte("x"), 0o600))
	w.git(clone, "add", ".")
	w.git(clone, "commit", "-q", "-m", "instead")
	w.git(clone, "push", "-q", "--force", "origin", "main")
	w.current()
	if text := w.alert(hub.AlertHistoryRewritten); !strings.Contains(text, "replaced main") {
		t.Errorf("alert %q", text)
	}
	if data, err := w.repo.ReadFile(mustMain(w), "certificates/b.yaml"); err != nil || string(data) != "two" {
		t.Errorf("the hub lost its own: %q %v", data, err)
	}
}

func mustMain(w *world) gitrepo.Hash {
	h, _ := w.repo.Ref(mainRef)
	return h
}

func TestUnrelated(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, other *world){
		"another main": func(w, other *world) { w.git(w.dir, "fetch", "-q", other.dir, "+refs/heads/*:refs/heads/*") },
		"another hub's servers": func(w, other *world) {
			w.git(w.dir, "fetch", "-q", other.dir, "+refs/heads/servers/*:refs/heads/servers/*")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, other := newWorld(t), newWorld(t)
			other.commit(mainRef, "certificates/z.yaml", "other")
			other.now = other.now.Add(time.Minute) // another time makes other commits
			for ref := range other.repo.Refs() {
				_, err := other.repo.Apply(t.Context(), []gitrepo.Update{{Ref: ref, Author: gitrepo.Person{Name: "o"}, Committer: gitrepo.Person{Name: "o"}, Message: "root of another"}}, nil)
				other.must(err)
			}
			other.current()
			spoil(w, other)
			before := w.git(w.dir, "for-each-ref")
			if err := w.once(); !errors.Is(err, errUnrelated) {
				t.Errorf("pass: %v", err)
			}
			if after := w.git(w.dir, "for-each-ref"); after != before {
				t.Errorf("the remote was changed:\n%s", after)
			}
			if w.alert(hub.AlertHistoryRewritten) == "" || w.loop.snapshot().State != hub.RemoteUnrelated {
				t.Errorf("no alert, or status %+v", w.loop.snapshot())
			}
		})
	}
}

// TestOneProtectedBranch: a hook that refuses one branch does not hold up the others.
func TestOneProtectedBranch(t *testing.T) {
	t.Parallel()
	for _, atomic := range []string{"true", "false"} {
		t.Run("atomic "+atomic, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.git(w.dir, "config", "receive.advertiseAtomic", atomic)
			w.must(os.WriteFile(filepath.Join(w.dir, "hooks", "update"), []byte("#!/bin/sh\ncase $1 in */web-1) echo branch is protected >&2; exit 1;; esac\n"), 0o700))
			if err := w.once(); !errors.Is(err, gitrepo.ErrRejected) {
				t.Errorf("pass: %v", err)
			}
			if got := w.git(w.dir, "for-each-ref", "--format=%(refname:short)"); got != "main\nservers/web-0\nservers/web-2" {
				t.Errorf("the remote holds:\n%s", got)
			}
			if s := w.loop.snapshot(); s.Behind != 1 || !strings.Contains(s.LastError, "branch is protected") || !strings.Contains(s.LastError, "servers/web-1") {
				t.Errorf("status %+v", s)
			}
			if w.alert(hub.AlertGitRemote) == "" {
				t.Error("no alert at once for what does not pass by itself")
			}
			w.must(os.Remove(filepath.Join(w.dir, "hooks", "update")))
			w.current()
		})
	}
}
