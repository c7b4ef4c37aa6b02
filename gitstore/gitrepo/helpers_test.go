package gitrepo_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

var (
	start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ada   = gitrepo.Person{Name: "Ada", Email: "ada@example.com"}
	hub   = gitrepo.Person{Name: "Certferry hub", Email: "hub@example.com"}
	none  gitrepo.Hash
)

const mainRef = "refs/heads/main"

func testOptions() gitrepo.Options {
	return gitrepo.Options{Now: func() time.Time { return start }}
}

func openRepo(tb testing.TB, dir string) *gitrepo.Repo {
	tb.Helper()
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		tb.Fatalf("open repository: %v", err)
	}
	tb.Cleanup(func() { closeRepo(tb, r) })
	return r
}

func closeRepo(tb testing.TB, r *gitrepo.Repo) {
	tb.Helper()
	if err := r.Close(); err != nil {
		tb.Errorf("close repository: %v", err)
	}
}

// runGit runs the real git, away from the machine's configuration.
func runGit(tb testing.TB, dir string, args ...string) string {
	tb.Helper()
	out, err := tryGit(tb, dir, nil, args...)
	if err != nil {
		tb.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func tryGit(tb testing.TB, dir string, stdin []byte, args ...string) (string, error) {
	tb.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		tb.Skip("SKIP: git is not installed")
	}
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "GIT_CEILING_DIRECTORIES=/",
		"GIT_AUTHOR_NAME=Op", "GIT_AUTHOR_EMAIL=op@example.com", "GIT_COMMITTER_NAME=Op", "GIT_COMMITTER_EMAIL=op@example.com",
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func fsck(tb testing.TB, dir string) {
	tb.Helper()
	if out := runGit(tb, dir, "fsck", "--full", "--strict", "--no-progress", "--no-dangling"); out != "" {
		tb.Errorf("git fsck: %s", out)
	}
}

// put makes one commit on ref with the files given as path, content pairs; empty content removes.
func put(tb testing.TB, r *gitrepo.Repo, ref, message string, pairs ...string) gitrepo.Hash {
	tb.Helper()
	u := update(r, ref, message, pairs...)
	hashes, err := r.Apply(tb.Context(), []gitrepo.Update{u}, nil)
	if err != nil {
		tb.Fatalf("apply %q: %v", message, err)
	}
	return hashes[0]
}

func update(r *gitrepo.Repo, ref, message string, pairs ...string) gitrepo.Update {
	u := gitrepo.Update{Ref: ref, Author: ada, Committer: hub, Message: message}
	if tip, ok := r.Ref(ref); ok {
		u.Base, u.Parents, u.Expect = tip, []gitrepo.Hash{tip}, &tip
	}
	for i := 0; i < len(pairs); i += 2 {
		u.Edits = append(u.Edits, gitrepo.Edit{Path: pairs[i], Data: []byte(pairs[i+1]), Delete: pairs[i+1] == ""})
	}
	return u
}

func files(tb testing.TB, r *gitrepo.Repo, commit gitrepo.Hash, dir string) map[string]string {
	tb.Helper()
	got := map[string]string{}
	err := r.Walk(commit, dir, func(path string, data []byte) error {
		got[path] = string(data)
		return nil
	})
	if err != nil {
		tb.Fatalf("walk: %v", err)
	}
	return got
}

func packNames(tb testing.TB, dir string) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "objects/pack/*"))
	if err != nil {
		tb.Fatal(err)
	}
	return names
}
