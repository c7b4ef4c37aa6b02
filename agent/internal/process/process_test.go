package process_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
)

// proc is a made-up /proc.
type proc struct{ dir string }

func newProc(t *testing.T) proc {
	t.Helper()
	return proc{dir: t.TempDir()}
}

func (p proc) fs() process.FS { return process.FS(p.dir) }

func (p proc) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func (p proc) link(t *testing.T, name, target string) {
	t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

func stat(pid int, name, state string) string {
	return fmt.Sprintf("%d (%s) %s 7 %[1]d %[1]d 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 777 1 1", pid, name, state)
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.write(t, "meminfo", "")
	p.write(t, "41/stat", stat(41, "a) S (b", "S"))
	p.write(t, "41/cmdline", "nginx: master process nginx -c a b\x00\x00\x00")
	p.write(t, "42/stat", stat(42, "kworker", "I"))
	p.write(t, "42/cmdline", "")
	p.write(t, "43/stat", stat(43, "java", "R"))
	p.write(t, "43/cmdline", "java\x00\x00-D\x00")
	p.write(t, "44/stat", stat(44, "zombie", "Z"))
	p.write(t, "44/cmdline", "")
	p.write(t, "45/stat", "45 (short) S 1")
	p.write(t, "46/stat", "garbage")
	p.write(t, "47/stat", strings.Replace(stat(47, "odd", "S"), "777", "x", 1))
	p.write(t, "47/cmdline", "")
	p.write(t, "48/stat", stat(48, "ending", "S"))
	all, err := p.fs().Processes()
	if err != nil {
		t.Fatal(err)
	}
	want := []process.Process{
		{PID: 41, PPID: 7, Start: 777, Name: "a) S (b", Args: []string{"nginx: master process nginx -c a b"}},
		{PID: 42, PPID: 7, Start: 777, Name: "kworker"},
		{PID: 43, PPID: 7, Start: 777, Name: "java", Args: []string{"java", "", "-D"}},
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	if title := all[2].Title(); title != "java  -D" {
		t.Errorf("title %q", title)
	}
	if _, err := p.fs().Process(44); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a zombie: %v", err)
	}
	if _, err := process.FS(filepath.Join(p.dir, "none")).Processes(); err == nil {
		t.Error("a missing folder is accepted")
	}
}

func TestExeCwdEnviron(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.link(t, "1/exe", "/usr/sbin/nginx")
	p.link(t, "2/exe", "/usr/sbin/nginx (deleted)")
	p.link(t, "1/cwd", "/srv")
	p.write(t, "1/environ", "A=1\x00B=x=y\x00")
	p.write(t, "2/environ", strings.Repeat("A", 1<<20+1))
	for pid, wantDeleted := range map[int]bool{1: false, 2: true} {
		path, deleted, err := p.fs().Exe(pid)
		if path != "/usr/sbin/nginx" || deleted != wantDeleted || err != nil {
			t.Errorf("exe %d: %q, %v, %v", pid, path, deleted, err)
		}
	}
	if cwd, err := p.fs().Cwd(1); cwd != "/srv" || err != nil {
		t.Errorf("cwd: %q, %v", cwd, err)
	}
	if env, err := p.fs().Environ(1); !slices.Equal(env, []string{"A=1", "B=x=y"}) || err != nil {
		t.Errorf("environ: %q, %v", env, err)
	}
	if _, err := p.fs().Environ(2); err == nil || strings.Contains(err.Error(), "AAAA") {
		t.Errorf("a huge environment: %v", err)
	}
	_, _, err1 := p.fs().Exe(3)
	_, err2 := p.fs().Cwd(3)
	_, err3 := p.fs().Environ(3)
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a missing process: %v", err)
		}
	}
}

func TestOwned(t *testing.T) {
	t.Parallel()
	self := os.Geteuid()
	tests := []struct {
		status string
		owned  bool
	}{
		{"Uid:\t0\t0\t0\t0\n", true},
		{fmt.Sprintf("Name:\tx\nUid:\t0\t%d\t0\t%[1]d\nGid:\t5\n", self), true},
		{"Uid:\t12345\t0\t0\t0\n", false},
		{"Uid:\t0\t0\t0\t12345\n", false},
		{"Uid:\t0\n", false},
		{"Name:\tx\n", false},
	}
	for i, tt := range tests {
		p := newProc(t)
		p.write(t, "1/status", tt.status)
		if err := p.fs().Owned(1); (err == nil) != tt.owned {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := newProc(t).fs().Owned(1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing process: %v", err)
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.link(t, "self/ns/mnt", "mnt:[1]")
	for pid, where := range map[int][2]string{1: {"/", "mnt:[1]"}, 2: {"/", "mnt:[2]"}, 3: {"/jail", "mnt:[1]"}} {
		p.link(t, strconv.Itoa(pid)+"/root", where[0])
		p.link(t, strconv.Itoa(pid)+"/ns/mnt", where[1])
	}
	p.link(t, "4/root", "/")
	for pid := range 5 {
		root, foreign, err := p.fs().Foreign(pid)
		want := ""
		if pid == 2 || pid == 3 {
			want = p.fs().Path(pid, "root")
		}
		if root != want || foreign != (want != "") || (err != nil) != (pid == 0 || pid == 4) {
			t.Errorf("%d: %q, %v, %v", pid, root, foreign, err)
		}
	}
}

func TestListening(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.link(t, "1/fd/3", "socket:[100]")
	p.link(t, "1/fd/4", "socket:[101]")
	p.link(t, "1/fd/5", "socket:[102]")
	p.link(t, "1/fd/6", "pipe:[103]")
	p.link(t, "1/fd/7", "socket:[104]")
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	const row = "   0: %s %s %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 0 100 0 0 10 0\n"
	// The kernel prints words in the byte order of the machine.
	word := func(b ...byte) string {
		return fmt.Sprintf("%08X", binary.NativeEndian.Uint32(b))
	}
	zero := word(0, 0, 0, 0)
	p.write(t, "1/net/tcp", head+
		fmt.Sprintf(row, word(127, 0, 0, 1)+":01BB", zero+":0000", "0A", 100)+
		fmt.Sprintf(row, zero+":0050", zero+":0000", "0A", 101)+
		fmt.Sprintf(row, word(10, 0, 0, 1)+":1F90", zero+":0000", "0A", 999)+
		fmt.Sprintf(row, word(10, 0, 0, 1)+":1F90", word(10, 0, 0, 2)+":1F90", "01", 100))
	p.write(t, "1/net/tcp6", head+
		fmt.Sprintf(row, zero+zero+zero+zero+":01BB", zero+":0000", "0A", 102)+
		fmt.Sprintf(row, zero+zero+zero+word(0, 0, 0, 1)+":01BB", zero+":0000", "0A", 104))
	got, err := p.fs().Listening(1)
	want := []agent.Listener{
		{Network: "tcp", Address: "127.0.0.1:443"},
		{Network: "tcp", Address: ":80"},
		{Network: "tcp", Address: "[::1]:443"},
		{Network: "tcp", Address: "[::]:443"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := os.Remove(filepath.Join(p.dir, "1/net/tcp6")); err != nil {
		t.Fatal(err)
	}
	if got, err := p.fs().Listening(1); len(got) != 2 || err != nil {
		t.Errorf("without IPv6: %v, %v", got, err)
	}
	for _, bad := range []string{"7F00:01BB", "zz:01BB", "0100007F:xyz", "0100007F"} {
		p.write(t, "1/net/tcp", head+fmt.Sprintf(row, bad, zero, "0A", 100))
		if _, err := p.fs().Listening(1); err == nil {
			t.Errorf("address %q is accepted", bad)
		}
	}
	if _, err := p.fs().Listening(2); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing process: %v", err)
	}
}

// TestReal asks the real /proc about this process and a child.
func TestReal(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var proc process.FS
	self := os.Getpid()
	listening, err := proc.Listening(self)
	if err != nil || !slices.Contains(listening, agent.Listener{Network: "tcp", Address: l.Addr().String()}) {
		t.Errorf("%s is not among %v: %v", l.Addr(), listening, err)
	}
	exe, deleted, err := proc.Exe(self)
	if want, _ := os.Executable(); exe != want || deleted || err != nil {
		t.Errorf("exe %q, %v, %v", exe, deleted, err)
	}
	cwd, err := proc.Cwd(self)
	if want, _ := os.Getwd(); cwd != want || err != nil {
		t.Errorf("cwd %q, %v", cwd, err)
	}
	if _, foreign, err := proc.Foreign(self); foreign || err != nil {
		t.Errorf("foreign: %v, %v", foreign, err)
	}
	if err := proc.Owned(self); err != nil {
		t.Error(err)
	}
	if _, err := proc.Environ(self); err != nil {
		t.Error(err)
	}
}

func TestSignal(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var proc process.FS
	p, err := proc.Process(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if p.PPID != os.Getpid() {
		t.Errorf("parent %d", p.PPID)
	}
	other := p
	other.Start--
	if err := proc.Signal(other, syscall.SIGKILL); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("another process with the same id: %v", err)
	}
	if err := proc.Signal(p, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM { //nolint:errcheck,forcetypeassert // Linux
		t.Errorf("the child ended with %v", err)
	}
	if err := proc.Signal(p, syscall.SIGTERM); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("an ended process: %v", err)
	}
}
