package deployer_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/deployer"
)

// TestRegistry knows the deployers that a policy may name.
func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"apache", "files", "haproxy", "nginx"} {
		if deployer.Registry()[name] == nil {
			t.Errorf("deployer %q is missing", name)
		}
	}
}

// script writes a shell script. Tests hand it to /bin/sh: a file that was just written may be open for writing in
// a child that another test is starting, and cannot be executed then.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRun: no shell, no environment, a bounded tail of the output.
func TestRun(t *testing.T) {
	t.Setenv("CERTFERRY_CANARY", "seen")
	tests := []struct {
		name, body string
		args       []string
		want       string // the output
		wantErr    string
	}{
		{name: "both streams", body: "echo out; echo err >&2", want: "out\nerr"},
		{name: "exit code", body: "echo why; exit 3", want: "why", wantErr: "exit status 3"},
		{name: "arguments are not a shell's", body: `echo "$1|$2"`, args: []string{"$(id)", "; rm -rf /"}, want: "$(id)|; rm -rf /"},
		{name: "clean environment", body: "env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | sort", want: "HOME=/\nLC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		{name: "root folder", body: "pwd", want: "/"},
		{name: "no input", body: "cat; echo end", want: "end"},
		{name: "control characters", body: `printf 'a\033[31mb\001\377c'`, want: "a [31mb  c"},
		{name: "tail", body: "yes start | head -n 5000; echo the end", want: "…"},
		{name: "background child holds the output", body: "sleep 20 & echo started", want: "started"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, err := deployer.Run(t.Context(), "", append([]string{"/bin/sh", script(t, tt.body)}, tt.args...))
			if tt.name == "tail" {
				if len(out) > 9000 || !strings.HasPrefix(out, "…") || !strings.HasSuffix(out, "the end") {
					t.Errorf("tail of %d bytes: %.40q", len(out), out)
				}
			} else if out != tt.want {
				t.Errorf("output %q, want %q", out, tt.want)
			}
			if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

// TestRunEnv: what is given comes beside the clean environment, and before it where both name a variable.
func TestRunEnv(t *testing.T) {
	t.Parallel()
	argv := []string{"/bin/sh", script(t, `echo "$GIVEN $HOME $LC_ALL"`)}
	output, err := deployer.RunEnv(t.Context(), "", []string{"GIVEN=given", "HOME=/srv"}, argv)
	if err != nil || output != "given /srv C" {
		t.Errorf("output %q, error %v", output, err)
	}
}

// TestRunKillsTheGroup: what a program started ends with it.
func TestRunKillsTheGroup(t *testing.T) {
	t.Parallel()
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if data, err := os.ReadFile(pidFile); err == nil && len(data) > 1 {
				cancel()
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	_, err := deployer.Run(ctx, "", []string{"/bin/sh", script(t, "sleep 60 & echo $! > "+pidFile+"; wait")})
	if err == nil || !strings.Contains(err.Error(), "stopped before it ended") {
		t.Errorf("error %v", err)
	}
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for !gone(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("child %d outlives its group", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// gone says that pid has ended; nobody may have taken note of that yet.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// TestRunRefuses programs that others could have written.
func TestRunRefuses(t *testing.T) {
	t.Parallel()
	writable := script(t, "echo ran")
	if err := os.Chmod(writable, 0o777); err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{
		"no program":       nil,
		"relative":         {"true"},
		"missing":          {"/nowhere/program"},
		"folder":           {"/etc"},
		"world-writable":   {writable},
		"not a program":    {"/etc/hostname"},
		"somebody else's":  {foreign(t, 0o700, 12345, os.Getegid())},
		"writable by some": {foreign(t, 0o770, os.Geteuid(), 12345)},
	}
	for name, argv := range tests {
		t.Run(name, func(t *testing.T) {
			if argv != nil && argv[0] == "" {
				t.Skip("SKIP: only root can give files away")
			}
			if out, err := deployer.Run(t.Context(), "", argv); err == nil || out != "" {
				t.Errorf("ran: %q, %v", out, err)
			}
		})
	}
}

// foreign makes a program of another owner, or returns "" without the right to.
func foreign(t *testing.T, mode os.FileMode, uid, gid int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return ""
	}
	path := script(t, "echo ran")
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}
