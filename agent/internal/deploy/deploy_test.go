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

// TestRefused: nothing is touched.
func TestRefused(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	tests := []struct {
		name   string
		change func(w *world, d *agent.Deployment)
		phase  agent.Phase
		want   string
	}{
		{"unknown target", func(_ *world, d *agent.Deployment) { d.Target = "other" }, agent.PhaseVerify, "does not stand in the policy"},
		{"other deployer", func(_ *world, d *agent.Deployment) { d.Deployer = "nginx" }, agent.PhaseVerify, "is for the deployer"},
		{"name not allowed", func(w *world, d *agent.Deployment) {
			d.Names, d.Bundle = []string{"evil.test"}, w.ca.Issue(w.t, "evil.test")
		}, agent.PhaseVerify, `name "evil.test"`},
		{"policy unreadable", func(w *world, _ *agent.Deployment) { w.policyErr = errors.New("policy is bad") }, agent.PhaseVerify, "policy is bad"},
		{"other names", func(w *world, d *agent.Deployment) { d.Bundle = w.ca.Issue(w.t, "web.test", "more.test") }, agent.PhaseVerify, "more.test"},
		{"no bundle", func(_ *world, d *agent.Deployment) { d.Bundle = nil }, agent.PhaseVerify, "no private key"},
		{"no key", func(_ *world, d *agent.Deployment) { d.Bundle.Key = nil }, agent.PhaseVerify, "no private key"},
		{"mismatched", func(w *world, d *agent.Deployment) { d.Bundle.Key = w.ca.Issue(w.t, "web.test").Key }, agent.PhaseVerify, "key"},
		{"expired", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(-90*day), 89*day, "web.test")
		}, agent.PhaseVerify, "expired"},
		{"far from valid", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(2*day), 90*day, "web.test")
		}, agent.PhaseVerify, "not valid before"},
		{"older", func(w *world, d *agent.Deployment) {
			d.Bundle = w.ca.IssueAt(w.t, time.Now().Add(-10*day), 90*day, "web.test")
		}, agent.PhaseVerify, "older than the one in use"},
		{"unknown owner", func(w *world, _ *agent.Deployment) { w.policyText = "    owner: nobody-here\n" }, agent.PhaseVerify, `find owner "nobody-here"`},
		{"unknown group", func(w *world, _ *agent.Deployment) { w.policyText = "    group: \"987654\"\n" }, agent.PhaseVerify, `find group "987654"`},
		{"stopped", func(w *world, _ *agent.Deployment) { w.stopped = true }, agent.PhaseBaseline, "is not running"},
		{"broken before", func(w *world, _ *agent.Deployment) { w.broken = true }, agent.PhaseBaseline, "already broken and not by this certificate; mend it, the deployment is tried again: test: exit status 1: unknown directive"},
		{"changed meanwhile", func(w *world, _ *agent.Deployment) {
			theirs := w.issue("web")
			w.onTest = func(int) error { deployertest.WritePair(w.t, theirs, w.cert("web"), w.key("web")); return nil }
		}, agent.PhaseStage, "changed by somebody else just now"},
		{"no room for the journal", func(w *world, _ *agent.Deployment) {
			w.onTest = func(int) error { return os.RemoveAll(filepath.Join(w.state(), "deployments")) }
		}, agent.PhaseStage, "nothing was changed"},
		{"folder gone", func(w *world, _ *agent.Deployment) {
			w.onTest = func(int) error { return os.Rename(w.path(""), w.path("")+".away") }
		}, agent.PhaseStage, "nothing was changed: stage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			older := w.issue("web")
			w.install("web", older)
			d := deployment("web", w.issue("web"))
			tt.change(w, &d)
			o := w.deployAll(d)[0]
			wantOutcome(t, o, agent.Refused, tt.phase, tt.want)
			switch tt.name {
			case "changed meanwhile":
			case "folder gone":
				if err := os.Rename(w.path("")+".away", w.path("")); err != nil {
					t.Fatal(err)
				}
				w.wantServed("web", older)
			default:
				w.wantServed("web", older)
			}
			w.policyErr = nil
			if tt.name == "no room for the journal" {
				w.deployer() // makes the folder again
			}
			w.wantTidy()
			if n := len(w.journals()); n > 0 {
				t.Errorf("%d journals are left behind", n)
			}
			if w.reloads > 0 {
				t.Error("the server was reloaded")
			}
		})
	}
}

// TestClockBehind: a clock that is wrong by a day stops nothing.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	b := w.ca.IssueAt(t, time.Now().Add(23*time.Hour), 90*24*time.Hour, "web.test")
	wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "")
}

// TestStepBack has to be meant.
func TestStepBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web")
	older, newer := w.issue("web"), w.issue("web")
	w.install("web", newer)
	wantOutcome(t, w.deploy(older), agent.Refused, agent.PhaseVerify, "older than the one in use")
	d := deployment("web", older)
	d.StepBack = true
	wantOutcome(t, w.deployAll(d)[0], agent.Deployed, agent.PhaseDone, "")
	w.wantServed("web", older)
}

// TestPlaceholder: a self-signed certificate for ten years and one for other names are no reason to refuse.
func TestPlaceholder(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, old := range map[string]func(w *world) *bundle.Bundle{
		"self-signed": func(*world) *bundle.Bundle {
			return deployertest.SelfSigned(t, now, 10*365*24*time.Hour, "web.test")
		},
		"other names": func(w *world) *bundle.Bundle { return w.ca.IssueAt(t, now, 365*24*time.Hour, "other.test") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			w.install("web", old(w))
			b := w.issue("web")
			wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "")
			w.wantServed("web", b)
		})
	}
}

// TestSameTargetTwice: no certificate wins by chance.
func TestSameTargetTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "web", "mail")
	for _, o := range w.deployAll(deployment("web", w.issue("web")), deployment("web", w.issue("web"))) {
		wantOutcome(t, o, agent.Refused, agent.PhaseVerify, "2 certificates want the target")
	}
	// Two targets that lead to one file.
	w.install("web", w.issue("web"))
	if err := errors.Join(os.Symlink("web.pem", w.cert("mail")), os.Symlink("web.key", w.key("mail"))); err != nil {
		t.Fatal(err)
	}
	outcomes := w.deployAll(deployment("web", w.issue("web")), deployment("mail", w.issue("mail")))
	wantOutcome(t, outcomes[0], agent.Deployed, agent.PhaseDone, "")
	wantOutcome(t, outcomes[1], agent.Refused, agent.PhaseVerify, "is also a file of target")
}

// TestRolledBack: the previous files are back and served, whatever failed.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		name    string
		spoil   func(w *world)
		phase   agent.Phase
		want    string
		reloads int
	}{
		{"the test fails with our files", func(w *world) {
			w.onTest = func(n int) error {
				if n == 2 {
					return boom
				}
				return nil
			}
		}, agent.PhaseTest, "test: boom: the program's last words; the previous files are back and served", 0},
		{"somebody breaks the configuration meanwhile", func(w *world) {
			w.onTest = func(n int) error {
				if n >= 2 {
					return boom
				}
				return nil
			}
		}, agent.PhaseTest, "now for another reason", 0},
		{"the reload fails", func(w *world) {
			w.onReload = func(n int) error {
				if n == 1 {
					return boom
				}
				return nil
			}
		}, agent.PhaseReload, "reload: boom", 2},
		{"every reload fails", func(w *world) { w.onReload = func(int) error { return boom } }, agent.PhaseReload, "reload: boom", 2},
		{"the reload does nothing", func(w *world) { w.jammed = true }, agent.PhaseProbe, "still serves leaf", 2},
		{"somebody breaks the configuration after the test", func(w *world) {
			w.onReload = func(int) error { w.broken = true; return nil }
		}, agent.PhaseProbe, "unknown directive", 1},
		{"somebody else reloads and fails", func(w *world) {
			w.onTest = func(n int) error {
				if n != 2 {
					return nil
				}
				leaf, err := w.read("web")
				w.loaded["web"] = leaf
				return errors.Join(err, boom)
			}
		}, agent.PhaseTest, "boom", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // a clock of its own: waiting takes no time
				w := newWorld(t, "web")
				older := w.issue("web")
				w.install("web", older)
				if err := os.Chmod(w.key("web"), 0o640); err != nil {
					t.Fatal(err)
				}
				before := stat(t, w.key("web"))
				tt.spoil(w)
				started := time.Now()
				o := w.deploy(w.issue("web"))
				wantOutcome(t, o, agent.RolledBack, tt.phase, tt.want)
				if o.LeafSHA256 != older.LeafSHA256() {
					t.Errorf("the outcome names leaf %q", o.LeafSHA256)
				}
				if took := time.Since(started); took > 30*time.Second {
					t.Errorf("it took %s", took)
				}
				w.wantServed("web", older)
				after := stat(t, w.key("web"))
				if after.Mtim == before.Mtim || after.Mode != before.Mode || after.Uid != before.Uid {
					t.Errorf("the key came back as %+v, was %+v", after, before)
				}
				if w.reloads != tt.reloads {
					t.Errorf("%d reloads, want %d", w.reloads, tt.reloads)
				}
				w.wantTidy()
			})
		})
	}
}

// TestFirstRolledBack: what was made is removed.
func TestFirstRolledBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // a clock of its own: waiting takes no time
		w := newWorld(t, "web")
		w.jammed = true
		o := w.deploy(w.issue("web"))
		wantOutcome(t, o, agent.RolledBack, agent.PhaseProbe, "the previous files are back")
		if o.LeafSHA256 != "" {
			t.Errorf("the outcome names leaf %q", o.LeafSHA256)
		}
		w.wantServed("web", nil)
		w.wantTidy()
	})
}

// TestWithoutProbe: the deployer's word is all there is.
func TestWithoutProbe(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	w := newWorld(t, "web")
	w.policyText = "    probe: {none: true}\n"
	older, newer := w.issue("web"), w.issue("web")
	o := w.deploy(older)
	wantOutcome(t, o, agent.Deployed, agent.PhaseDone, "deployed")
	if o.LeafSHA256 != "" {
		t.Error("a leaf was seen by nobody")
	}
	wantOutcome(t, w.deploy(older), agent.Deployed, agent.PhaseDone, "nothing had to change")
	w.onReload = func(int) error { return boom }
	wantOutcome(t, w.deploy(newer), agent.Failed, agent.PhaseReload, "the previous files are back, but not loaded")
	w.wantOnDisk("web", older)
	w.onReload = func(int) error { w.broken = true; return boom }
	wantOutcome(t, w.deploy(newer), agent.Failed, agent.PhaseReload, "the previous files are back, but not loaded")
	w.wantOnDisk("web", older)
	w.wantTidy()
}

// TestFailed: the way back cannot be proven.
func TestFailed(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	tests := []struct {
		name  string
		spoil func(w *world)
		phase agent.Phase
		want  string
		disk  string // "old" or "other"
	}{
		{"the server dies at the reload", func(w *world) {
			w.onReload = func(int) error { w.stopped = true; return boom }
		}, agent.PhaseReload, "the previous files are back, but test: the server is not running", "old"},
		{"the new leaf stays", func(w *world) {
			w.onReload = func(n int) error {
				if n == 1 {
					leaf, err := w.read("web")
					w.loaded["web"], w.jammed = leaf, true
					return errors.Join(err, boom)
				}
				return nil
			}
		}, agent.PhaseReload, "but not served", "old"},
		{"somebody else writes the file", func(w *world) {
			w.onReload = func(int) error {
				return errors.Join(os.WriteFile(w.cert("web"), []byte("theirs"), 0o600), boom)
			}
		}, agent.PhaseReload, "was changed by somebody else meanwhile and is left alone", "other"},
		{"the copy is gone", func(w *world) {
			w.onReload = func(int) error {
				copies, err := filepath.Glob(filepath.Join(w.state(), "deployments", "*", "file-*"))
				for _, c := range copies {
					err = errors.Join(err, os.Remove(c))
				}
				return errors.Join(err, boom)
			}
		}, agent.PhaseReload, "the previous files could not be put back", "other"},
		{"the copy is damaged", func(w *world) {
			w.onReload = func(int) error {
				copies, err := filepath.Glob(filepath.Join(w.state(), "deployments", "*", "file-*"))
				for _, c := range copies {
					err = errors.Join(err, os.WriteFile(c, []byte("x"), 0o600))
				}
				return errors.Join(err, boom)
			}
		}, agent.PhaseReload, "is damaged", "other"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // a clock of its own: waiting takes no time
				w := newWorld(t, "web")
				older := w.issue("web")
				w.install("web", older)
				tt.spoil(w)
				wantOutcome(t, w.deploy(w.issue("web")), agent.Failed, tt.phase, tt.want)
				if tt.disk == "old" {
					w.wantOnDisk("web", older)
				}
				w.wantTidy()
			})
		})
	}
}

// TestBrokenPair: the pair on disk is the one thing that was broken before.
func TestBrokenPair(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	breakPair := map[string]func(w *world) error{
		"key deleted":           func(w *world) error { return os.Remove(w.key("web")) },
		"certificate truncated": func(w *world) error { return os.Truncate(w.cert("web"), 100) },
		"key replaced": func(w *world) error {
			pem, err := w.issue("web").KeyPEM()
			return errors.Join(err, os.WriteFile(w.key("web"), pem, 0o600))
		},
	}
	for name, spoil := range breakPair {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			b := w.issue("web")
			w.install("web", b)
			if err := spoil(w); err != nil {
				t.Fatal(err)
			}
			wantOutcome(t, w.deploy(b), agent.Deployed, agent.PhaseDone, "before could not be loaded")
			w.wantServed("web", b)
			w.wantTidy()
		})
		t.Run(name+" and more", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			b := w.issue("web")
			w.install("web", b)
			if err := spoil(w); err != nil {
				t.Fatal(err)
			}
			w.broken = true
			o := w.deploy(b)
			wantOutcome(t, o, agent.Failed, agent.PhaseTest, "something else in the configuration is broken; nothing was reloaded")
			w.wantServed("web", b)
			if w.reloads > 0 {
				t.Error("the server was reloaded")
			}
			w.wantTidy()
		})
		t.Run(name+" and no reload", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "web")
			b := w.issue("web")
			w.install("web", b)
			if err := spoil(w); err != nil {
				t.Fatal(err)
			}
			w.onReload = func(int) error { return boom }
			wantOutcome(t, w.deploy(b), agent.Failed, agent.PhaseReload, "the new files were kept")
			w.wantServed("web", b)
			w.wantTidy()
		})
	}
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
