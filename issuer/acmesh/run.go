// This file runs acme.sh: no shell text of ours, an exact environment, its own process group, bounded output.

package acmesh

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/certferry/certferry/issuer"
)

const (
	// maxOutput bounds what is kept of acme.sh's output, in bytes.
	maxOutput = 256 << 10
	// stopGrace is the time between asking acme.sh to stop and killing it.
	stopGrace = 5 * time.Second
	// umask keeps what acme.sh writes from other users. The words behind it are arguments, not text.
	umask = `umask 077; exec "$@"`
)

// result is what a run of acme.sh left beside files.
type result struct {
	output string
	code   int
}

// run carries out one order. The error is set where acme.sh could not be started at all.
func (i *Issuer) run(ctx context.Context, h *home, req issuer.Request) (result, error) {
	hooks := i.cfg.HooksDir
	if hooks == "" {
		hooks = filepath.Dir(i.cfg.Script)
	}
	args := []string{
		"-c", umask, "sh", "/bin/sh", i.cfg.Script, "--renew", "--force", "--domain", req.Names[0], "--ecc",
		"--home", hooks, "--config-home", h.dir, "--cert-home", filepath.Join(h.dir, "certs"),
		"--server", i.cfg.Directory, "--no-color",
	}
	if i.cfg.CABundle != "" {
		args = append(args, "--ca-bundle", i.cfg.CABundle)
	}
	var output tail
	cmd := exec.CommandContext(ctx, "/bin/sh", args...) //nolint:gosec // every argument was checked, none is shell text
	cmd.Dir = h.dir
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + h.dir, "TMPDIR=" + filepath.Join(h.dir, "tmp"),
		"LC_ALL=C", "TZ=UTC", "LOG_FILE=" + filepath.Join(h.dir, "job.log"), "LOG_LEVEL=2",
	}
	for name, value := range req.Challenge.Credentials {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// acme.sh sets no traps: only the whole group ends what it started (curl, socat).
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopGrace
	started := i.cfg.Now()
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whatever is left of the group
	}
	if cmd.ProcessState == nil {
		return result{}, &issuer.Error{Class: issuer.Local, Detail: "start acme.sh", Err: err}
	}
	i.cfg.Logger.InfoContext(ctx, "acme.sh finished", slog.String("job", req.ID), slog.Int("exit_code", cmd.ProcessState.ExitCode()),
		slog.Duration("duration", i.cfg.Now().Sub(started)))
	if err != nil && ctx.Err() != nil {
		return result{}, &issuer.Error{Class: issuer.Retryable, Detail: "the order took too long or was cancelled", Err: errors.Join(ctx.Err(), err)}
	}
	return result{output: output.String(), code: cmd.ProcessState.ExitCode()}, nil
}

// tail keeps the end of what is written to it.
type tail struct{ buf bytes.Buffer }

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - maxOutput; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.buf.String() }
