package gitrepo_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

const writerVariable = "CERTFERRY_TEST_WRITER"

// TestWriterProcess is not a test: it is the process that TestKillNine kills. It commits to main and a server's
// branch without end and tells each commit when Apply has acknowledged it.
func TestWriterProcess(t *testing.T) {
	dir := os.Getenv(writerVariable)
	if dir == "" {
		return
	}
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	fmt.Println("ready")
	for n := commits(t, r) + 1; ; n++ {
		batch := []gitrepo.Update{
			update(r, mainRef, fmt.Sprintf("commit %d", n), "n", strconv.Itoa(n), "d/e", strings.Repeat("x", n%100)),
			update(r, "refs/heads/servers/web-1", fmt.Sprintf("deploy %d", n), "manifest.json", strconv.Itoa(n)),
		}
		_, err := r.Apply(context.Background(), batch, func([]gitrepo.Hash) error {
			fmt.Println("recorded", n)
			return nil
		})
		if err != nil {
			fmt.Println("failed", err)
			return
		}
		fmt.Println("moved", n)
		if os.Getenv("CERTFERRY_FAILPOINT") == "" { // a failpoint counts commits
			litter(t, r, n)
		}
	}
}

// commits returns how many commits main holds, and fails unless the server's branch holds as many.
func commits(t *testing.T, r *gitrepo.Repo) int {
	t.Helper()
	counts := map[string]int{}
	for _, ref := range []string{mainRef, "refs/heads/servers/web-1"} {
		tip, ok := r.Ref(ref)
		if !ok {
			continue
		}
		log, err := r.Log(tip, 0)
		if err != nil {
			t.Fatalf("log of %s: %v", ref, err)
		}
		counts[ref] = len(log)
	}
	if counts[mainRef] != counts["refs/heads/servers/web-1"] {
		t.Errorf("a batch was torn apart: %v", counts)
	}
	return counts[mainRef]
}

// TestKillNine kills a writing process again and again at any moment. What was acknowledged must be there, both
// branches or none must have moved, and stock git must find nothing wrong.
func TestKillNine(t *testing.T) {
	t.Parallel()
	kills := count(t, "CERTFERRY_KILLS", 20)
	dir := t.TempDir()
	total := 0
	for i := range kills {
		recorded, moved := killWriter(t, dir, nil, time.Duration(rand.IntN(60_000))*time.Microsecond)
		total = checkAfterKill(t, dir, recorded, max(moved, total))
		if total > 0 && (i%25 == 0 || i == kills-1) {
			fsck(t, dir)
		}
		if t.Failed() {
			t.Logf("FAULT store.kill-nine tried=%d survived=%d", kills, i)
			t.Fatalf("after kill %d", i+1)
		}
	}
	t.Logf("%d commits, none lost", total)
	t.Logf("FAULT store.kill-nine tried=%d survived=%d", kills, kills)
}

// killWriter runs the writer, kills it some time after it has opened the repository, and returns the numbers of the last commit
// that it recorded and of the last that it acknowledged.
func killWriter(t *testing.T, dir string, env []string, after time.Duration) (recorded, moved int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^TestWriterProcess$", "-test.timeout=1m")
	cmd.Env = append(append(os.Environ(), writerVariable+"="+dir), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.Atoi(rest)
		switch word {
		case "recorded":
			recorded = n
		case "moved":
			moved = n
		case "ready":
			if env == nil {
				time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			}
		case "failed":
			t.Errorf("writer: %s", rest)
		}
	}
	err = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
		t.Errorf("the writer ended by itself: %v", err)
	}
	return recorded, moved
}

// checkAfterKill opens the repository and returns the number of commits.
func checkAfterKill(t *testing.T, dir string, recorded, moved int) int {
	t.Helper()
	r, err := gitrepo.Open(dir, testOptions())
	if err != nil {
		t.Fatalf("open after a kill: %v", err)
	}
	defer closeRepo(t, r)
	n := commits(t, r)
	if n < moved || n > max(recorded, moved) {
		t.Errorf("%d commits, but %d were acknowledged and %d recorded", n, moved, recorded)
	}
	if err := errors.Join(r.Verify(t.Context()), r.CheckAll(t.Context())); err != nil {
		t.Error(err)
	}
	return n
}
