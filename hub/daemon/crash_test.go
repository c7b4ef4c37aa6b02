//go:build failpoints

package daemon

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
)

// crashDir, set in the environment, makes the test binary a hub that reconciles the folder once and ends.
const crashDir = "HUB_CRASH_TEST_DIR"

// TestCrashChild is that hub; by itself it does nothing.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("a part of TestKilledAtEachStep")
	}
	h, err := New(t.Context(), Config{DataDir: dir, Listen: "127.0.0.1:0"}, options(io.Discard, os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.reconciler.Once(t.Context()), h.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestKilledAtEachStep kills a hub with SIGKILL at each step from order to publication, and has the next one finish.
func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	for _, point := range []string{
		"hub.issue.ordered", "hub.issue.received", "hub.issue.sealed", "hub.commit.packed", "hub.commit.recorded",
		"hub.commit.moved", "hub.issue.done", "hub.publish.packed", "hub.publish.moved",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			for range rounds {
				killAt(t, point)
			}
		})
	}
}

func killAt(t *testing.T, point string) {
	t.Helper()
	cfg, _ := initialised(t)
	prepareCrash(t, &cfg)
	if err := child(t, cfg.DataDir, point); !killed(err) {
		t.Fatalf("the hub was not killed at %s: %v", point, err)
	}
	before := stateAfterCrash(t, &cfg)
	if err := child(t, cfg.DataDir, ""); err != nil {
		t.Fatalf("the hub did not recover: %v", err)
	}
	after := stateAfterCrash(t, &cfg)
	if after.leaf == "" || after.served != after.leaf || strings.Join(after.jobs, " ") != "done" {
		t.Errorf("after recovery: %+v", after)
	}
	if before.leaf != "" && before.leaf != after.leaf {
		t.Error("a certificate that stood on main was ordered again")
	}
	report, err := VerifyStore(t.Context(), cfg, time.Now)
	if err != nil || len(report.Faults) > 0 {
		t.Errorf("store: %+v, %v", report, err)
	}
	t.Logf("%s left %+v", point, before)
}

// child runs this binary as a hub that dies at point.
func child(t *testing.T, dir, point string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir, "CERTFERRY_FAILPOINT="+point)
	out, err := cmd.CombinedOutput()
	if err != nil && !killed(err) {
		t.Logf("%s", out)
	}
	return err
}

func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// prepareCrash gives the hub an approved server and a wish for a certificate on it.
func prepareCrash(t *testing.T, cfg *Config) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(cfg.Complete())
	k, err := loadKeys(cfg, time.Now())
	must(err)
	store, err := openStore(cfg, k, time.Now, nil)
	must(err)
	certificate, err := (&manifest.Certificate{
		Name: "example.com", Names: []string{"example.com"}, Issuer: DefaultIssuer,
		Deployments: []manifest.Placement{{Server: "web-1", Deployer: "nginx", Target: "web"}},
	}).Encode()
	must(err)
	server, err := (&manifest.Server{Name: "web-1"}).Encode()
	must(err)
	_, err = store.Apply(t.Context(), gitstore.Change{Subject: "prepare", Edits: []gitrepo.Edit{
		{Path: manifest.CertificatePath("example.com"), Data: certificate}, {Path: manifest.ServerPath("web-1"), Data: server},
	}})
	must(errors.Join(err, store.Close()))
	key, err := seal.Generate("web-1", time.Now())
	must(err)
	public, err := key.Public().Armor()
	must(err)
	db, err := database.Open(t.Context(), cfg.paths().database(), time.Now)
	must(err)
	must(db.InsertJoinToken(t.Context(), hub.JoinToken{Hash: "t", Server: "web-1", ExpiresAt: time.Now().Add(time.Hour)}, hub.AuditEvent{Action: "test"}))
	must(db.InsertServer(t.Context(), hub.Server{
		Name: "web-1", State: hub.ServerApproved, Fingerprint: key.Fingerprint(), PublicKey: string(public), CreatedAt: time.Now(),
	}, "t", hub.AuditEvent{Action: "test"}))
	must(db.Close())
}

// crashed is what a hub left: the leaf on main and the one on the server's branch, empty for none, and the jobs.
type crashed struct {
	leaf, served string
	jobs         []string
}

func stateAfterCrash(t *testing.T, cfg *Config) (left crashed) {
	t.Helper()
	for _, pattern := range []string{"repo.git/refs/heads/*", "repo.git/refs/heads/*/*"} {
		loose, err := filepath.Glob(filepath.Join(cfg.DataDir, pattern))
		if err != nil || len(loose) > 0 {
			t.Errorf("loose references: %v, %v", loose, err)
		}
	}
	k, err := loadKeys(cfg, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	store, err := openStore(cfg, k, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if issued := snapshot.Issued["example.com"]; issued != nil {
		left.leaf = issued.LeafSHA256
	}
	db, err := database.Open(t.Context(), cfg.paths().database(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	all, err := db.Jobs(t.Context(), "", "", 100)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, job := range all {
		left.jobs = append(left.jobs, string(job.State))
	}
	if tip, err := store.ServerTip("web-1"); err == nil && len(tip.Manifest.Deployments) == 1 {
		left.served = tip.Manifest.Deployments[0].LeafSHA256
	}
	return left
}
