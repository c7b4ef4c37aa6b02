package gitserve_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// access lets web-1 and web-2 see their branches, and ops everything.
type access struct{}

func (access) Authorize(_ context.Context, username, password string) (gitserve.Grant, error) {
	switch {
	case username == "down":
		return gitserve.Grant{}, errors.New("database is away")
	case password != "secret of "+username:
		return gitserve.Grant{}, gitserve.ErrDenied
	case username == "ops":
		return gitserve.Grant{Name: username, All: true, Head: "refs/heads/main"}, nil
	default:
		branch := "refs/heads/servers/" + username
		return gitserve.Grant{Name: username, Refs: []string{branch}, Head: branch}, nil
	}
}

type fixture struct {
	repo *gitrepo.Repo
	url  string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	repo, err := gitrepo.Open(filepath.Join(t.TempDir(), "repo.git"), gitrepo.Options{Now: func() time.Time { return start }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = repo.Close() })
	server := httptest.NewServer(gitserve.New(gitserve.Config{Repo: repo, Access: access{}, Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(server.Close)
	f := &fixture{repo: repo, url: server.URL}
	f.commit(t, "refs/heads/main", map[string]string{"certificates/a.yaml": "a"})
	f.commit(t, "refs/heads/servers/web-1", map[string]string{"manifest.json": "1", "bundles/a.pgp": "one"})
	f.commit(t, "refs/heads/servers/web-2", map[string]string{"manifest.json": "2", "bundles/b.pgp": "two"})
	return f
}

func (f *fixture) commit(t *testing.T, ref string, files map[string]string) gitrepo.Hash {
	t.Helper()
	who := gitrepo.Person{Name: "hub", Email: "hub@test", When: start}
	u := gitrepo.Update{Ref: ref, Author: who, Committer: who, Message: fmt.Sprintf("change %d files\n", len(files))}
	if tip, ok := f.repo.Ref(ref); ok {
		u.Base, u.Parents = tip, []gitrepo.Hash{tip}
	}
	for path, data := range files {
		u.Edits = append(u.Edits, gitrepo.Edit{Path: path, Data: []byte(data)})
	}
	hashes, err := f.repo.Apply(t.Context(), []gitrepo.Update{u}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return hashes[0]
}

// git runs a stock git as user, in dir, without the machine's configuration.
func (f *fixture) git(t *testing.T, user, dir string, args ...string) (string, error) {
	t.Helper()
	token := base64.StdEncoding.EncodeToString([]byte(user + ":secret of " + user))
	cmd := exec.Command("git", append([]string{"-c", "http.extraHeader=Authorization: Basic " + token}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "NO_PROXY=*")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (f *fixture) mustGit(t *testing.T, user, dir string, args ...string) string {
	t.Helper()
	out, err := f.git(t, user, dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestStockGitClonesItsOwnBranchOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, protocol := range []string{"0", "2"} {
		for _, depth := range [][]string{nil, {"--depth", "1"}} {
			dir := filepath.Join(t.TempDir(), "clone")
			args := append([]string{"-c", "protocol.version=" + protocol, "clone", "-q", "-b", "servers/web-1"}, depth...)
			f.mustGit(t, "web-1", "", append(args, f.url, dir)...)
			if got := read(t, filepath.Join(dir, "bundles/a.pgp")); got != "one" {
				t.Errorf("protocol %s %v: bundle %q", protocol, depth, got)
			}
			f.mustGit(t, "web-1", dir, "fsck", "--strict")
			out := f.mustGit(t, "web-1", dir, "-c", "protocol.version="+protocol, "ls-remote", f.url)
			if strings.Contains(out, "web-2") || strings.Contains(out, "main") {
				t.Errorf("protocol %s: other branches are shown:\n%s", protocol, out)
			}
		}
		if out, err := f.git(t, "web-1", "", "-c", "protocol.version="+protocol, "clone", "-q", "-b", "servers/web-2", f.url, filepath.Join(t.TempDir(), "x")); err == nil {
			t.Errorf("protocol %s: another server's branch was cloned:\n%s", protocol, out)
		}
	}
}

func TestAnotherServersObjectsAreRefusedById(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	other, _ := f.repo.Ref("refs/heads/servers/web-2")
	entry, err := f.repo.Stat(other, "bundles/b.pgp")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "clone")
	f.mustGit(t, "web-1", "", "clone", "-q", "-b", "servers/web-1", f.url, dir)
	for _, protocol := range []string{"0", "2"} {
		for what, id := range map[string]string{"commit": other.String(), "blob": entry.Hash.String()} {
			if out, err := f.git(t, "web-1", dir, "-c", "protocol.version="+protocol, "fetch", "origin", id); err == nil {
				t.Errorf("protocol %s: %s of another server was fetched:\n%s", protocol, what, out)
			}
		}
	}
}

func TestManyIncrementalFetches(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	full, shallow := filepath.Join(t.TempDir(), "full"), filepath.Join(t.TempDir(), "shallow")
	f.mustGit(t, "web-1", "", "clone", "-q", "-b", "servers/web-1", f.url, full)
	f.mustGit(t, "web-1", "", "clone", "-q", "--depth", "1", "-b", "servers/web-1", f.url, shallow)
	fetches := 30
	if os.Getenv("CERTFERRY_LONG") != "" {
		fetches = 500
	}
	for n := range fetches {
		for range n%3 + 1 {
			f.commit(t, "refs/heads/servers/web-1", map[string]string{"manifest.json": fmt.Sprint(n), "bundles/a.pgp": []string{"one", "two"}[n%2]})
		}
		for _, dir := range []string{full, shallow} {
			f.mustGit(t, "web-1", dir, "pull", "-q", "--ff-only")
			if got := read(t, filepath.Join(dir, "manifest.json")); got != fmt.Sprint(n) {
				t.Fatalf("fetch %d: manifest %q", n, got)
			}
		}
	}
	t.Logf("%d fetches of a full and of a shallow clone", fetches)
	f.mustGit(t, "web-1", full, "fsck", "--strict")
	f.mustGit(t, "web-1", shallow, "fsck", "--strict")
	f.mustGit(t, "web-1", shallow, "fetch", "-q", "--depth", "5")
	f.mustGit(t, "web-1", shallow, "fetch", "-q", "--unshallow")
	f.mustGit(t, "web-1", shallow, "fsck", "--strict")
	want, got := f.mustGit(t, "web-1", full, "rev-list", "--count", "HEAD"), f.mustGit(t, "web-1", shallow, "rev-list", "--count", "HEAD")
	if want != got {
		t.Errorf("after unshallow %s commits, want %s", got, want)
	}
}

func TestPeopleSeeEverything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	dir := filepath.Join(t.TempDir(), "clone")
	f.mustGit(t, "ops", "", "clone", "-q", f.url, dir)
	if got := f.mustGit(t, "ops", dir, "branch", "-a"); !strings.Contains(got, "servers/web-2") || !strings.Contains(got, "* main") {
		t.Errorf("branches:\n%s", got)
	}
	for n := range 40 { // more than git's first batch of haves
		f.commit(t, "refs/heads/main", map[string]string{"certificates/a.yaml": fmt.Sprint(n)})
		f.commit(t, "refs/heads/servers/web-1", map[string]string{"manifest.json": fmt.Sprint(n)})
	}
	f.mustGit(t, "ops", dir, "fetch", "-q")
	f.mustGit(t, "ops", dir, "fsck", "--strict")
	if out, err := f.git(t, "ops", dir, "push", "origin", "HEAD:refs/heads/evil"); err == nil {
		t.Errorf("a push was accepted:\n%s", out)
	}
}

func TestPollsAnswerNotModifiedUntilTheBranchMoves(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const branch = "refs/heads/servers/web-1"
	remote := &gitrepo.Remote{URL: f.url, Username: "web-1", Password: "secret of web-1", Limits: gitrepo.DefaultLimits}
	first, err := remote.Poll(t.Context(), branch, "")
	if err != nil {
		t.Fatal(err)
	}
	f.commit(t, "refs/heads/servers/web-2", map[string]string{"manifest.json": "x"})
	same, err := remote.Poll(t.Context(), branch, first.ETag)
	if err != nil || !same.NotModified {
		t.Errorf("poll after another server's change: %+v %v, want not modified", same, err)
	}
	want := f.commit(t, branch, map[string]string{"manifest.json": "new"})
	moved, err := remote.Poll(t.Context(), branch, first.ETag)
	if err != nil || moved.NotModified || moved.Hash != want {
		t.Fatalf("poll after a change: %+v %v, want %s", moved, err, want)
	}
	got, err := remote.Fetch(t.Context(), branch, moved.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Files["manifest.json"]) != "new" || string(got.Files["bundles/a.pgp"]) != "one" || got.Commit.Hash != want {
		t.Errorf("fetched %v of %s", got.Files, got.Commit.Hash)
	}
	// The branch may move between a client's two requests: what it was shown lately is still there for it.
	if late, err := remote.Fetch(t.Context(), branch, first.Hash); err != nil || late.Commit.Hash != first.Hash {
		t.Errorf("fetching the former tip: %v", err)
	}
	for n := range 20 {
		f.commit(t, branch, map[string]string{"manifest.json": fmt.Sprint(n)})
	}
	if _, err := remote.Fetch(t.Context(), branch, first.Hash); err == nil {
		t.Error("a commit far back was fetched")
	}
	none, err := remote.Poll(t.Context(), "refs/heads/servers/web-9", "")
	if err != nil || !none.Hash.IsZero() {
		t.Errorf("poll of a branch that is not there: %+v %v", none, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tip, _ := f.repo.Ref("refs/heads/servers/web-1")
	want := fmt.Sprintf("want %s side-band-64k multi_ack_detailed\n", tip)
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	for name, tt := range map[string]struct {
		user, method, path, body string
		status                   int
	}{
		"no credential":     {"", "GET", "/info/refs?service=git-upload-pack", "", 401},
		"wrong credential":  {"eve", "GET", "/info/refs?service=git-upload-pack", "", 401},
		"database away":     {"down", "GET", "/info/refs?service=git-upload-pack", "", 503},
		"push":              {"web-1", "GET", "/info/refs?service=git-receive-pack", "", 403},
		"push at once":      {"web-1", "POST", "/git-receive-pack", "", 403},
		"dumb protocol":     {"web-1", "GET", "/info/refs", "", 403},
		"dumb objects":      {"web-1", "GET", "/objects/info/packs", "", 404},
		"no pkt-lines":      {"web-1", "POST", "/git-upload-pack", "hello", 400},
		"unknown line":      {"web-1", "POST", "/git-upload-pack", line("filter blob:none\n"), 400},
		"bad hash":          {"web-1", "POST", "/git-upload-pack", line("want x\n"), 400},
		"negative depth":    {"web-1", "POST", "/git-upload-pack", line(want) + line("deepen -1\n"), 400},
		"no side band":      {"web-1", "POST", "/git-upload-pack", line("want "+tip.String()+"\n") + "0000" + line("done\n"), 400},
		"endless":           {"web-1", "POST", "/git-upload-pack", strings.Repeat(line("have "+tip.String()+"\n"), 40000), 400},
		"nothing is wanted": {"web-1", "POST", "/git-upload-pack", "0000", 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequestWithContext(t.Context(), tt.method, f.url+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			if tt.user != "" {
				password := "secret of " + tt.user
				if tt.user == "eve" {
					password = "guess"
				}
				req.SetBasicAuth(tt.user, password)
			}
			answer, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = answer.Body.Close() }()
			if answer.StatusCode != tt.status {
				t.Errorf("status %d, want %d", answer.StatusCode, tt.status)
			}
			if tt.status == 401 && answer.Header.Get("WWW-Authenticate") == "" {
				t.Error("no WWW-Authenticate: git would not ask for a credential")
			}
		})
	}
}

func TestClientWithoutDetailedAcks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old, _ := f.repo.Ref("refs/heads/servers/web-1")
	tip := f.commit(t, "refs/heads/servers/web-1", map[string]string{"manifest.json": "n"})
	line := func(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
	body := line("want "+tip.String()+" side-band-64k\n") + "0000" + line("have "+old.String()+"\n") + line("done\n")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/git-upload-pack", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("web-1", "secret of web-1")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var out bytes.Buffer
	if _, err := out.ReadFrom(answer.Body); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, line("ACK "+old.String()+"\n")) || !strings.Contains(got, "PACK") {
		t.Errorf("answer %q", got[:min(len(got), 80)])
	}
}
