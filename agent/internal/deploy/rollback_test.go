// This file tests the way back.

package deploy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/certferry/certferry/agent"
)

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
	if o.LeafSHA256 != older.LeafSHA256() || !strings.Contains(o.Detail, "nobody looked") {
		t.Errorf("the hub could not tell that it is deployed, or that nobody saw it: %+v", o)
	}
	wantOutcome(t, w.deploy(older), agent.Deployed, agent.PhaseDone, "nothing had to change; nobody looked")
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
