package database_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
)

// crashPath names the database that a child process of TestKill writes to.
const crashPath = "CERTFERRY_TEST_CRASH_PATH"

// TestMain is the way into the child.
func TestMain(m *testing.M) {
	if path := os.Getenv(crashPath); path != "" {
		fmt.Println("ended:", writeWithoutEnd(context.Background(), path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeWithoutEnd is the child: it says of each round of acts when it was promised to be kept.
func writeWithoutEnd(ctx context.Context, path string) error {
	db, err := database.Open(ctx, path, time.Now)
	if err != nil {
		return err
	}
	running, err := db.RunningJobs(ctx)
	if err != nil {
		return err
	}
	for _, job := range running { // as the reconcile loop does at its start
		if err := db.RequeueJob(ctx, job.ID); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("s%d-%d", os.Getpid(), i)
		token := hub.JoinToken{Hash: name, Server: name, ExpiresAt: time.Now().Add(time.Hour)}
		if err := db.InsertJoinToken(ctx, token, event("create-join-token", name)); err != nil {
			return err
		}
		if err := db.InsertServer(ctx, server(name, name), name, event("register-server", name)); err != nil {
			return err
		}
		if _, _, err := db.EnqueueJob(ctx, hub.Job{Certificate: name}); err != nil {
			return err
		}
		job, _, err := db.ClaimJob(ctx, nil)
		if err != nil {
			return err
		}
		if err := db.FinishJob(ctx, job.ID); err != nil {
			return err
		}
		fmt.Println("kept", name, job.ID)
	}
}

// TestKill kills a writing process at any moment: what it was promised is there, an act and its audit row are both
// there or both not, and the chain holds.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 3
	}
	w := newWorld(t)
	w.must(w.Close())
	var servers, jobs []string
	for range kills {
		kept := runAndKill(w)
		if len(kept) == 0 {
			t.Fatal("the child kept nothing")
		}
		for _, line := range kept {
			_, rest, _ := strings.Cut(line, " ")
			name, job, _ := strings.Cut(rest, " ")
			servers, jobs = append(servers, name), append(jobs, job)
		}
		w.open()
		w.must(w.VerifyAudit(t.Context()))
		for i, name := range servers {
			if _, err := w.Server(t.Context(), name); err != nil {
				t.Fatalf("server %s was promised: %v", name, err)
			}
			if job := w.job(jobs[i]); job.State != "done" {
				t.Fatalf("job %s was promised to be done, it is %s", job.ID, job.State)
			}
		}
		for _, same := range [][2]string{
			{"SELECT hash FROM join_tokens", "SELECT object FROM audit WHERE action = 'create-join-token'"},
			{"SELECT name FROM servers", "SELECT object FROM audit WHERE action = 'register-server'"},
			{"SELECT name FROM servers", "SELECT server FROM join_tokens WHERE used_at > 0"},
		} {
			odd := append(w.strings(same[0]+" EXCEPT "+same[1]), w.strings(same[1]+" EXCEPT "+same[0])...)
			if len(odd) > 0 {
				t.Fatalf("%v holds for one of: %s", odd, same)
			}
		}
		if check := w.strings("PRAGMA integrity_check"); check[0] != "ok" {
			t.Fatalf("the file is damaged: %v", check)
		}
		w.must(w.Close())
	}
	t.Logf("%d kills, %d acts kept", kills, len(servers))
}

// runAndKill starts the child, kills it after some of its acts, and returns what it said was kept.
func runAndKill(w *world) []string {
	w.t.Helper()
	child := exec.CommandContext(w.t.Context(), os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashPath+"="+w.path)
	out, err := child.StdoutPipe()
	w.must(err)
	w.must(child.Start())
	acts := 1 + rand.IntN(6)
	delay := time.Duration(rand.IntN(5000)) * time.Microsecond
	var kept, other []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), "kept ") {
			other = append(other, lines.Text())
			continue
		}
		kept = append(kept, lines.Text())
		if len(kept) == acts {
			time.AfterFunc(delay, func() { _ = child.Process.Kill() })
		}
	}
	if err := child.Wait(); err == nil || len(kept) < acts {
		w.t.Fatalf("the child ended by itself: %v %v", err, other)
	}
	return kept
}
