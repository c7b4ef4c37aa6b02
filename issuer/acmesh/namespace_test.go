package acmesh_test

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// spy is a script in place of acme.sh that looks for other orders and leaves a process behind, as a hook might.
const spy = `#!/bin/sh
exec 2>&1
echo "runs as $(id -un) in $(pwd) as $$, started by $PPID"
echo "sees" /proc/[0-9]*/environ
cat /proc/[0-9]*/environ | tr '\0' '\n' | sed 's/^/sees /'
for dir in ../*; do echo "folder $dir"; done
cat ../*/ca/*/account.key
echo >written && echo "writes its own folder"
(cd / && exec setsid sleep SECONDS) >/dev/null 2>&1 &
grep -c . /etc/shadow
mount -t proc none /proc && echo "mounts"
sleep 1
`

// TestRunsSeeNothingOfEachOther: all orders run as one user, and hooks are foreign code.
func TestRunsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can run a program as another user")
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	seconds := strconv.Itoa(1e8 + rand.IntN(1e8)) // known by it, whatever runs beside
	w.asNobody(t, strings.Replace(spy, "SECONDS", seconds, 1))
	other := filepath.Join(w.cfg.WorkDir, "certferry-orders", "other-1")
	key := filepath.Join(other, "ca", "x", "account.key")
	err := errors.Join(os.MkdirAll(filepath.Dir(key), 0o755), os.WriteFile(key, []byte("canary-of-key"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "spy.test")
	req.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "stateless"}
	told := &events{}
	req.Progress = told.tell
	if _, err := w.issuer.Issue(t.Context(), req); err == nil {
		t.Fatal("a script that does nothing issued a certificate")
	}
	if strings.Contains(w.log.String(), "no namespaces") {
		t.Skip("skipped: this system makes no namespaces")
	}
	text := told.text()
	for _, want := range []string{"runs as nobody in " + w.cfg.WorkDir, "started by 1\n", "writes its own folder", "Permission denied"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	for _, not := range []string{"other-1", "canary-of-key", "go-build", "mounts\n"} {
		if strings.Contains(text, not) {
			t.Errorf("it sees %q:\n%s", not, text)
		}
	}
	if pids := processesOf(t, seconds); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "[^.]*")); err != nil || len(left) != 1 {
		t.Errorf("folders %v, %v", left, err)
	}
}

// TestNoWallIsSaid: where acme.sh runs as the hub, nothing stands between hooks and the hub's keys.
func TestNoWallIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	w.issue(t, "nowall-1.test", nil)
	w.issue(t, "nowall-2.test", nil)
	if n := strings.Count(w.log.String(), "can read its keys"); n != 1 {
		t.Errorf("said %d times:\n%s", n, w.log)
	}
}

// TestOrderBehindTheWall is a whole one: the web server answers, and acme.sh asks the CA.
func TestOrderBehindTheWall(t *testing.T) {
	t.Parallel()
	script := os.Getenv("ACME_SH")
	if os.Getuid() != 0 || script == "" {
		t.Skip("skipped: it needs root, and ACME_SH to name the real acme.sh")
	}
	code, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	w.asNobody(t, string(code))
	root := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(root), 0o711), os.Chmod(root, 0o755)); err != nil {
		t.Fatal(err)
	}
	w.serve(t, http.FileServer(http.Dir(root)))
	w.issue(t, "walled.test", func(r *issuer.Request) {
		r.Challenge = issuer.Challenge{Type: issuer.HTTP01, Method: "webroot", Webroot: root}
	})
	w.leavesNothing(t, "canary")
}

// TestNothingOfARunOutlivesTheHub kills the hub while a process works that left the run's group and folder.
func TestNothingOfARunOutlivesTheHub(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("skipped: only root can run a program as another user")
	}
	w := newWorld(t, issuertest.PebbleConfig{})
	seconds := strconv.Itoa(1e8 + rand.IntN(1e8))
	w.asNobody(t, "#!/bin/sh\n(cd / && exec setsid sleep "+seconds+") >/dev/null 2>&1 &\nsleep 1\necho 'Signing from existing CSR'\nsleep 60\n")
	w.kill(t, issuer.PhaseOrder, "outlives.test")
	if exec.CommandContext(t.Context(), "unshare", "--pid", "--fork", "--mount-proc", "true").Run() != nil {
		t.Skip("skipped: this system makes no namespaces")
	}
	left := processesOf(t, seconds)
	for end := time.Now().Add(10 * time.Second); len(left) > 0 && time.Now().Before(end); left = processesOf(t, seconds) {
		time.Sleep(50 * time.Millisecond) // the kernel needs a moment
	}
	for _, pid := range left {
		t.Errorf("process %d is left", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// asNobody lets a script run in place of acme.sh, as the user nobody.
func (w *world) asNobody(t *testing.T, script string) {
	t.Helper()
	// What another user shall reach must not lie in a folder of ours alone.
	dir := t.TempDir()
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "acme.sh"), []byte(script), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	w.cfg.Script, w.cfg.User, w.cfg.WorkDir = filepath.Join(dir, "acme.sh"), "nobody", filepath.Join(dir, "work")
	w.open(t)
}

// processesOf are the processes with a word in their command line.
func processesOf(t *testing.T, word string) []int {
	t.Helper()
	var all []int
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		words := strings.Split(string(data), "\x00")
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && len(words) > 1 && words[1] == word {
			all = append(all, pid)
		}
	}
	return all
}
