package acmesh_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// TestNobodyLooksForRecordsOfAnOrderThatIsOver: its folder is gone by then.
func TestNobodyLooksForRecordsOfAnOrderThatIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var looking atomic.Int64
	w.cfg.DNSWait = time.Minute
	w.cfg.LookupTXT = func(ctx context.Context, _ string) ([]string, error) {
		looking.Add(1)
		defer looking.Add(-1)
		cancel()
		<-ctx.Done()
		<-time.After(300 * time.Millisecond) // a resolver that gives up late
		return nil, ctx.Err()
	}
	w.open(t)
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "looked.test")
	req.Challenge = w.dns("x")
	if _, err := w.issuer.Issue(ctx, req); classOf(t, err) != issuer.Retryable {
		t.Errorf("error %v", err)
	}
	if n := looking.Load(); n != 0 {
		t.Errorf("%d still look", n)
	}
}

// TestWorkFolderBehindALink: processes are known by their working folder, as the kernel tells it.
func TestWorkFolderBehindALink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	w.cfg.WorkDir = filepath.Join(link, "work")
	w.open(t)
	left := filepath.Join(w.cfg.WorkDir, "certferry-orders", "left-1")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("/bin/sleep", "600")
	sleeper.Dir = left
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = sleeper.Wait() // it is killed
	}()
	if _, err := w.issuer.Recover(t.Context(), nil); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("a process of an interrupted order is left")
		_ = sleeper.Process.Kill()
		<-ended
	}
}
