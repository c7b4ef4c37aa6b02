package gitserve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
)

// pushers lets ops and dev push beside what access says.
type pushers struct{ access }

func (p pushers) Authorize(ctx context.Context, username, password string) (gitserve.Grant, error) {
	switch username {
	case "ops", "dev", "view":
		if password != "secret of "+username {
			return gitserve.Grant{}, gitserve.ErrDenied
		}
		return gitserve.Grant{Name: username, All: true, Head: "refs/heads/main", Push: username != "view"}, nil
	}
	return p.access.Authorize(ctx, username, password)
}

// keeper takes what is pushed unless a file is called bad.yaml.
type keeper struct {
	mu   sync.Mutex
	repo *gitrepo.Repo
	err  error
}

func (k *keeper) Receive(ctx context.Context, p gitserve.Push) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	changes, err := p.Incoming.Changes(p.Old, p.New)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		if strings.HasSuffix(c.Path, "bad.yaml") {
			return nil, &gitserve.RefusalError{Reason: "1 fault", Notes: []string{c.Path + ":3: names: it is bad"}}
		}
	}
	_, err = k.repo.Apply(ctx, []gitrepo.Update{{Ref: p.Ref, Expect: &p.Old, To: p.New, Incoming: p.Incoming}}, nil)
	if errors.Is(err, gitrepo.ErrStale) {
		return nil, &gitserve.RefusalError{Reason: "fetch first"}
	}
	return []string{fmt.Sprintf("%d files change", len(changes))}, err
}

// newPushFixture serves a repository that takes pushes.
func newPushFixture(t *testing.T) (*fixture, *keeper) {
	t.Helper()
	f := newFixture(t)
	k := &keeper{repo: f.repo}
	server := httptest.NewServer(gitserve.New(gitserve.Config{
		Repo: f.repo, Access: pushers{}, Receiver: k, Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f, k
}

// clone clones main as user, who commits under that name.
func (f *fixture) clone(t *testing.T, user string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "clone")
	f.mustGit(t, user, "", "clone", "-q", f.url, dir)
	f.mustGit(t, user, dir, "config", "user.name", user)
	f.mustGit(t, user, dir, "config", "user.email", user+"@test")
	return dir
}

func (f *fixture) change(t *testing.T, user, dir, path, text string) {
	t.Helper()
	file := filepath.Join(dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	f.mustGit(t, user, dir, "add", path)
	f.mustGit(t, user, dir, "commit", "-q", "-m", "change "+path)
}

func (f *fixture) main(t *testing.T) gitrepo.Hash {
	t.Helper()
	h, _ := f.repo.Ref("refs/heads/main")
	return h
}

// TestStockGitPushes takes what people commit, small and large, and answers so that they see it.
func TestStockGitPushes(t *testing.T) {
	t.Parallel()
	f, _ := newPushFixture(t)
	dir := f.clone(t, "ops")
	f.change(t, "ops", dir, "certificates/b.yaml", "b")
	out := f.mustGit(t, "ops", dir, "push", "origin", "main")
	if !strings.Contains(out, "remote: 1 files change") {
		t.Errorf("the pusher does not see the note:\n%s", out)
	}
	for n := range 300 {
		name := filepath.Join(dir, "certificates", fmt.Sprintf("c%d.yaml", n))
		if err := os.WriteFile(name, []byte(strings.Repeat(fmt.Sprint(n), 3000+n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.mustGit(t, "ops", dir, "add", ".")
	f.mustGit(t, "ops", dir, "commit", "-q", "-m", "many")
	// Above its buffer git asks first and then sends in chunks.
	f.mustGit(t, "ops", dir, "-c", "http.postBuffer=65536", "-c", "core.compression=0", "push", "-q", "origin", "main")
	head := strings.TrimSpace(f.mustGit(t, "ops", dir, "rev-parse", "HEAD"))
	if f.main(t).String() != head {
		t.Errorf("main is at %s, want %s", f.main(t), head)
	}
	again := f.clone(t, "dev")
	f.mustGit(t, "dev", again, "fsck", "--strict")
	if out := f.mustGit(t, "ops", dir, "push", "origin", "main"); !strings.Contains(out, "up-to-date") {
		t.Errorf("pushing again: %s", out)
	}
}

// TestPushRefusals: whoever may not, and whatever must not, is told why, and nothing moves.
func TestPushRefusals(t *testing.T) {
	t.Parallel()
	f, k := newPushFixture(t)
	dir := f.clone(t, "ops")
	f.change(t, "ops", dir, "certificates/bad.yaml", "b")
	before := f.repo.Refs()
	for name, tc := range map[string]struct {
		user string
		args []string
		want string
	}{
		"bad file":       {"ops", []string{"main"}, "certificates/bad.yaml:3: names: it is bad"},
		"bad, in short":  {"ops", []string{"main"}, "1 fault"},
		"viewer":         {"view", []string{"main"}, "403"},
		"agent":          {"web-1", []string{"HEAD:refs/heads/servers/web-1"}, "403"},
		"server branch":  {"ops", []string{"HEAD:refs/heads/servers/web-1", "--force"}, "the hub alone writes the branches of servers"},
		"other branch":   {"ops", []string{"HEAD:refs/heads/topic"}, "only main takes pushes"},
		"tag":            {"ops", []string{"HEAD:refs/tags/v1"}, "only main takes pushes"},
		"delete main":    {"ops", []string{":main"}, "main cannot be deleted"},
		"atomic, partly": {"ops", []string{"--atomic", "main", "HEAD:refs/heads/topic"}, "only main takes pushes"},
	} {
		out, err := f.git(t, tc.user, dir, append([]string{"push", "origin"}, tc.args...)...)
		if err == nil || !strings.Contains(out, tc.want) {
			t.Errorf("%s: got %v, %s\nwant %q", name, err, out, tc.want)
		}
	}
	k.mu.Lock()
	k.err = errors.New("secret detail of the hub")
	k.mu.Unlock()
	out, err := f.git(t, "ops", dir, "push", "origin", "main")
	if err == nil || !strings.Contains(out, "try again") || strings.Contains(out, "secret detail") {
		t.Errorf("hub failed: got %v, %s", err, out)
	}
	for ref, h := range f.repo.Refs() {
		if before[ref] != h {
			t.Errorf("%s moved", ref)
		}
	}
}

// TestConcurrentPushes lets people who rebase on each other all get through.
func TestConcurrentPushes(t *testing.T) {
	t.Parallel()
	f, _ := newPushFixture(t)
	stale := f.clone(t, "dev")
	f.change(t, "dev", stale, "certificates/z.yaml", "z")
	var group sync.WaitGroup
	const people, each = 4, 3
	for n := range people {
		dir := f.clone(t, "ops")
		group.Go(func() {
			for i := range each {
				f.change(t, "ops", dir, fmt.Sprintf("certificates/p%d-%d.yaml", n, i), "x")
				for {
					if _, err := f.git(t, "ops", dir, "push", "-q", "origin", "main"); err == nil {
						break
					}
					f.mustGit(t, "ops", dir, "pull", "-q", "--rebase", "origin", "main")
				}
			}
		})
	}
	group.Wait()
	entries, err := f.repo.ReadDir(f.main(t), "certificates")
	if err != nil || len(entries) != people*each+1 {
		t.Errorf("got %d files, %v, want all %d", len(entries), err, people*each+1)
	}
	if out, err := f.git(t, "dev", stale, "push", "origin", "main"); err == nil || !strings.Contains(out, "fetch first") {
		t.Errorf("stale push: %v %s", err, out)
	}
	if out, err := f.git(t, "dev", stale, "push", "--force", "origin", "main"); err == nil {
		// git sends what it was shown as the old value, so a forced push is one that drops commits.
		t.Logf("%s", out)
		if c, err := f.repo.Commit(f.main(t)); err != nil || len(c.Parents) != 1 {
			t.Errorf("main is at %v, %v", c, err)
		}
	}
}

// TestMalformedPushes: garbage is refused, whatever it says of itself.
func TestMalformedPushes(t *testing.T) {
	t.Parallel()
	f, _ := newPushFixture(t)
	zero, at := strings.Repeat("0", 40), f.main(t).String()
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	command := line(at + " " + strings.Repeat("1", 40) + " refs/heads/main\x00report-status\n")
	for name, tc := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"probe":            {"0000", 200, ""},
		"no pkt-lines":     {"hello", 400, ""},
		"cut off":          {command, 400, ""},
		"short command":    {line("x\n") + "0000", 400, ""},
		"no hash":          {line("x y refs/heads/main\n") + "0000", 400, ""},
		"no pack":          {command + "0000", 200, "unpack ok"},
		"garbage for pack": {command + "0000" + "PACK of lies", 200, "unpack the pack cannot be read"},
		"many references":  {strings.Repeat(line(zero+" "+at+" refs/heads/x\n"), 200) + "0000", 400, ""},
		"gzip that is not": {"\x1f\x8b garbage", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/git-receive-pack", strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("ops", "secret of ops")
			if strings.HasPrefix(tc.body, "\x1f\x8b") {
				req.Header.Set("Content-Encoding", "gzip")
			}
			answer, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			data, err := io.ReadAll(answer.Body)
			if err != nil || answer.StatusCode != tc.status || !strings.Contains(string(data), tc.want) {
				t.Errorf("got %d %q, %v, want %d %q", answer.StatusCode, data, err, tc.status, tc.want)
			}
		})
	}
	if f.main(t).String() != at {
		t.Error("main moved")
	}
}
