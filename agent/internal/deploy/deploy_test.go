package deploy_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deploy"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/gitstore/bundle"
)

func stat(t *testing.T, path string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// TestFirstAndNext: five certificates one after the other, the first where nothing was.
func TestFirstAndNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	for range 5 {
		b := w.issue("web")
		o := w.deploy(b)
		wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "deployed")
		if o.LeafSHA256 != b.LeafSHA256() || o.Certificate != "web.test" || o.Target != "web" || o.Duration <= 0 {
			t.Errorf("outcome %+v", o)
		}
		w.wantServed("web", b)
	}
	if key, cert := stat(t, w.key("web")).Mode&0o777, stat(t, w.cert("web")).Mode&0o777; key != 0o600 || cert != 0o644 {
		t.Errorf("key mode %o, certificate mode %o", key, cert)
	}
	if w.reloads != 5 {
		t.Errorf("%d reloads", w.reloads)
	}
	w.wantTidy()
	for _, name := range w.journals() {
		dir := filepath.Join(w.state(), "deployments", name)
		if mode := stat(t, dir).Mode & 0o777; mode != 0o700 {
			t.Errorf("journal %s has mode %o", name, mode)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 3 {
			t.Fatalf("journal %s: %v, %v", name, entries, err)
		}
		for _, e := range entries {
			if mode := stat(t, filepath.Join(dir, e.Name())).Mode & 0o777; mode != 0o600 {
				t.Errorf("%s has mode %o", e.Name(), mode)
			}
		}
	}
}

// TestNothingToDo touches nothing.
func TestNothingToDo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	b := w.issue("web")
	w.deploy(b)
	before := stat(t, w.key("web"))
	w.tests, w.reloads = 0, 0
	o := w.deploy(b)
	wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "nothing had to change")
	if stat(t, w.key("web")) != before || w.tests+w.reloads > 0 || o.LeafSHA256 != b.LeafSHA256() {
		t.Error("something was done")
	}
}

// TestOnDiskButNotServed reloads and writes nothing.
func TestOnDiskButNotServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.deploy(older)
	deployertest.WritePair(t, newer, w.cert("web"), w.key("web"))
	if err := os.Chmod(w.cert("web"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := stat(t, w.key("web"))
	wantOutcome(t, w.deploy(newer), agent.Deployed, agent.PhaseDone, "deployed")
	if stat(t, w.key("web")).Ino != before.Ino {
		t.Error("an equal file was written")
	}
	w.wantServed("web", newer)
	w.wantTidy()
}

// TestModeIsMended: the key is closed to others, and has the mode that the policy says.
func TestModeIsMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	b := w.issue("web")
	w.deploy(b)
	if err := os.Chmod(w.key("web"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "deployed")
	if mode := stat(t, w.key("web")).Mode & 0o777; mode != 0o640 {
		t.Errorf("key mode %o", mode)
	}
	w.policyText = "    mode: 0400\n"
	wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "deployed")
	if mode := stat(t, w.key("web")).Mode & 0o777; mode != 0o400 {
		t.Errorf("key mode %o", mode)
	}
}

// TestOwnerAndAttributes are the policy's for the key, and stay for the certificate.
func TestOwnerAndAttributes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("SKIP: only root can give files away")
	}
	w := newWorld(t, "web")
	w.policyText = "    owner: daemon\n    group: \"2\"\n    mode: 0640\n"
	w.install("web", w.issue("web"))
	if err := errors.Join(os.Chown(w.cert("web"), 12345, 54321), os.Chmod(w.cert("web"), 0o604)); err != nil {
		t.Fatal(err)
	}
	_ = unix.Setxattr(w.cert("web"), "user.note", []byte("keep"), 0)
	wantOutcome(t, w.deploy(w.issue("web")), agent.Deployed, agent.PhaseDone, "")
	if st := stat(t, w.key("web")); st.Uid != 1 || st.Gid != 2 || st.Mode&0o777 != 0o640 {
		t.Errorf("key %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	if st := stat(t, w.cert("web")); st.Uid != 12345 || st.Gid != 54321 || st.Mode&0o777 != 0o604 {
		t.Errorf("certificate %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	note := make([]byte, 16)
	if n, err := unix.Getxattr(w.cert("web"), "user.note", note); err != nil || string(note[:n]) != "keep" {
		t.Errorf("the attribute is %q, %v", note, err)
	}
}

// TestSymlink: a link stays, and what it leads to is replaced.
func TestSymlink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.install("web", older)
	if err := errors.Join(
		os.Mkdir(filepath.Join(w.dir, "real"), 0o755),
		os.Rename(w.key("web"), filepath.Join(w.dir, "real", "k")),
		os.Symlink("../real/k", w.key("web")),
	); err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, w.deploy(newer), agent.Deployed, agent.PhaseDone, "")
	if target, err := os.Readlink(w.key("web")); err != nil || target != "../real/k" {
		t.Errorf("the link is %q, %v", target, err)
	}
	w.wantServed("web", newer)
}

// TestManyOneReload: certificates of one server share test and reload.
func TestManyOneReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "b", "c")
	var all []agent.Deployment
	bundles := make(map[string]*bundle.Bundle)
	for _, site := range w.sites {
		w.install(site, w.issue(site))
		bundles[site] = w.issue(site)
		all = append(all, deployment(site, bundles[site]))
	}
	bad := deployment("b", w.ca.Issue(t, "evil.test"))
	for i, o := range w.deployAll(all[0], bad, all[2]) {
		if i == 1 {
			wantOutcome(t, o, agent.Refused, agent.PhaseVerify, "evil.test")
			continue
		}
		wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "")
	}
	if w.reloads != 1 {
		t.Errorf("%d reloads", w.reloads)
	}
	wantOutcome(t, w.deployAll(all...)[1], agent.Deployed, agent.PhaseDone, "deployed")
	for site, b := range bundles {
		w.wantServed(site, b)
	}
	w.wantTidy()
}

// TestCulprit: one certificate that no client sees does not hold up the others.
func TestCulprit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a clock of its own: waiting takes no time
		w := newWorld(t, "a", "b", "c")
		var all []agent.Deployment
		for _, site := range w.sites {
			w.install(site, w.issue(site))
			all = append(all, deployment(site, w.issue(site)))
		}
		w.stuck = "b"
		outcomes := w.deployAll(all...)
		wantOutcome(t, outcomes[0], agent.Deployed, agent.PhaseDone, "deployed")
		wantOutcome(t, outcomes[1], agent.RolledBack, agent.PhaseProbe, "still serves")
		wantOutcome(t, outcomes[2], agent.Deployed, agent.PhaseDone, "deployed")
		w.wantServed("a", all[0].Bundle)
		w.wantServed("c", all[2].Bundle)
		w.wantTidy()
	})
}

// TestBlame: one file that the server cannot load is found among many.
func TestBlame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "a", "b", "c", "d", "e")
	var all []agent.Deployment
	for _, site := range w.sites {
		w.install(site, w.issue(site))
		all = append(all, deployment(site, w.issue(site)))
	}
	w.onTest = func(int) error {
		if leaf, err := w.read("d"); err != nil || leaf.Equal(all[3].Bundle.Leaf) {
			return errors.New("key too small")
		}
		return nil
	}
	for i, o := range w.deployAll(all...) {
		if i == 3 {
			wantOutcome(t, o, agent.RolledBack, agent.PhaseTest, "key too small")
		} else {
			wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "deployed")
			w.wantServed(w.sites[i], all[i].Bundle)
		}
	}
	w.wantTidy()
}

// TestMountedFile: a file that is a mount of its own cannot be replaced; what was swapped before it comes back.
func TestMountedFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older := w.issue("web")
	w.install("web", older)
	if err := unix.Mount(w.cert("web"), w.cert("web"), "", unix.MS_BIND, ""); err != nil {
		t.Skipf("SKIP: no right to mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(w.cert("web"), unix.MNT_DETACH) })
	wantOutcome(t, w.deploy(w.issue("web")), agent.RolledBack, agent.PhaseSwap, "mount its folder instead")
	w.wantServed("web", older)
	w.wantTidy()
}

// TestFullDisk: neither a full disk below the files nor one below the journal changes anything.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"ssl", "state"} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			full := filepath.Join(w.dir, dir)
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=64k,mode=0755"); err != nil {
				t.Skipf("SKIP: no right to mount a small disk: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(full, unix.MNT_DETACH) })
			older := w.issue("web")
			w.install("web", older)
			w.deployer() // makes the journal's folder
			filler := filepath.Join(full, "filler")
			if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("the disk is not full: %v", err)
			}
			wantOutcome(t, w.deploy(w.issue("web")), agent.Refused, agent.PhaseStage, "no space left on device")
			w.wantServed("web", older)
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			b := w.issue("web")
			wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "")
			w.wantServed("web", b)
			w.wantTidy()
		})
	}
}

// TestSecondWaits for the first, as long as its context lasts.
func TestSecondWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	w.install("web", w.issue("web"))
	entered, leave := make(chan struct{}), make(chan struct{})
	w.onReload = func(n int) error {
		if n == 1 {
			close(entered)
			<-leave
		}
		return nil
	}
	first, second := w.issue("web"), w.issue("web")
	done := make(chan agent.Outcome, 2)
	go func() { done <- w.deploy(first) }()
	<-entered

	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
	defer cancel()
	d := w.deployer()
	if _, err := d.Deploy(ctx, nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another deployment") {
		t.Errorf("deploy: %v", err)
	}
	if _, err := d.Recover(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("recover: %v", err)
	}
	go func() { done <- w.deploy(second) }()
	close(leave)
	for range 2 {
		wantOutcome(t, <-done, agent.Deployed, agent.PhaseDone, "deployed")
	}
	w.wantServed("web", second)
}

// TestCancelled: before the swap nothing happens, after it the end is reached.
func TestCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.install("web", older)
	ctx, cancel := context.WithCancel(t.Context())
	w.onTest = func(int) error { cancel(); return nil }
	outcomes, err := w.deployer().Deploy(ctx, []agent.Deployment{deployment("web", newer)})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, outcomes[0], agent.Refused, agent.PhaseBaseline, "context canceled")
	outcomes, err = w.deployer().Deploy(ctx, []agent.Deployment{deployment("web", newer)})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, outcomes[0], agent.Refused, agent.PhaseVerify, "stopped before it began")
	w.wantServed("web", older)

	ctx, cancel = context.WithCancel(t.Context())
	w.onTest = nil
	w.onReload = func(int) error { cancel(); return nil }
	outcomes, err = w.deployer().Deploy(ctx, []agent.Deployment{deployment("web", newer)})
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, outcomes[0], agent.Deployed, agent.PhaseDone, "deployed")
	w.wantServed("web", newer)
}

// TestNew refuses what it could not work with.
func TestNew(t *testing.T) {
	t.Parallel()
	if _, err := deploy.New(deploy.Config{StateDir: "state"}); err == nil {
		t.Error("a relative folder is accepted")
	}
	if _, err := deploy.New(deploy.Config{StateDir: t.TempDir()}); err == nil {
		t.Error("an empty configuration is accepted")
	}
	w := newWorld(t)
	if err := os.WriteFile(w.state(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := deploy.New(deploy.Config{StateDir: w.state(), Deployers: map[string]agent.Deployer{}, Prober: w, Policy: w.policy, Now: time.Now, Logger: nil})
	if err == nil {
		t.Error("no logger is accepted")
	}
	w2 := newWorld(t)
	d := w2.deployer()
	if err := os.RemoveAll(w2.state()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Deploy(t.Context(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its folder: %v", err)
	}
	if _, err := d.Recover(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without its folder: %v", err)
	}
}
