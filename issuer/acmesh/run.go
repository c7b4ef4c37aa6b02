// This file runs acme.sh: no shell text but constants, an exact environment, its own process group and user, limits, and
// bounded output.

package acmesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/issuer"
)

const (
	// stopGrace is the time between asking acme.sh to stop and killing it.
	stopGrace = 5 * time.Second
	// finishGrace is how long an order that the CA is fulfilling may go on when it should stop: the certificate counts
	// against the limits, and would be lost.
	finishGrace = 2 * time.Minute
	// confine sets what the kernel holds acme.sh and its children to: files for nobody else, no core dumps, 120 seconds
	// of CPU, files of 32 MiB, 256 open files, 2 GiB of memory. The words behind it are arguments, not text. The script
	// before curl ends CERTFERRY_MAIN, which is acme.sh.
	confine = `umask 077; export CERTFERRY_MAIN=$$; ulimit -c 0; ulimit -t 120; ulimit -f 65536; ulimit -n 256; ulimit -v 2097152; exec "$@"`
)

// result is what a run of acme.sh left beside files.
type result struct {
	output string
	code   int
	// phase is how far it came.
	phase issuer.Phase
}

// issue carries out one order in its home. The error is set where acme.sh could not be started, or was stopped.
func (i *Issuer) issue(ctx context.Context, h *home, req *issuer.Request) (result, error) {
	args := []string{
		"--renew", "--force", "--domain", req.Names[0], "--ecc",
		"--home", h.dir, "--config-home", h.dir, "--cert-home", filepath.Join(h.dir, "certs"),
		"--server", i.cfg.Directory, "--no-color",
	}
	release, err := i.holdPorts(ctx, req)
	if err != nil {
		return result{}, err
	}
	defer release()
	if err := i.prepareWebroots(req); err != nil {
		return result{}, err
	}
	var watching sync.WaitGroup
	defer watching.Wait() // it writes into the home, which is removed next
	watched, stop := context.WithCancel(ctx)
	defer stop()
	if h.lastRecord != "" {
		watching.Go(func() { h.watchRecords(watched, i.cfg.LookupTXT, i.cfg.DNSWait) })
	}
	return i.exec(ctx, h, args, req.Tell)
}

// exec runs the script with args in a home and tells what it says. Arguments were checked: none is shell text.
func (i *Issuer) exec(ctx context.Context, h *home, args []string, tell func(issuer.Event)) (result, error) {
	if err := i.verifyFiles(h.hooks); err != nil {
		return result{}, err
	}
	out := &output{tell: tell, mask: h.mask}
	cmd := exec.Command("/bin/sh", append([]string{"-c", confine, "sh", "/bin/sh", i.cfg.Script}, args...)...) //nolint:gosec,noctx // see wait
	cmd.Dir, cmd.Env = h.dir, h.environment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = stopGrace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	as, err := i.cfg.credential()
	if err == nil {
		err = h.giveTo(as)
	}
	if err != nil {
		return result{}, &issuer.Error{Class: issuer.Local, Detail: "run acme.sh as its own user", Err: err}
	}
	i.enclose(ctx, cmd, as)
	started := i.cfg.Now()
	err = wait(ctx, cmd, out)
	out.flush()
	if cmd.ProcessState == nil {
		return result{}, &issuer.Error{Class: issuer.Local, Detail: "start acme.sh", Err: err}
	}
	i.cfg.Logger.InfoContext(ctx, "acme.sh finished", slog.String("order", h.orderID), slog.Int("exit_code", cmd.ProcessState.ExitCode()),
		slog.Duration("duration", i.cfg.Now().Sub(started)))
	r := result{output: out.String(), code: cmd.ProcessState.ExitCode(), phase: out.reached()}
	if err != nil && ctx.Err() != nil {
		return r, &issuer.Error{
			Class: issuer.Retryable, Phase: r.phase, Detail: "the order took too long or was cancelled", Err: errors.Join(context.Cause(ctx), err),
		}
	}
	return r, nil
}

// wait starts cmd and waits for its end, or ends it when ctx is done.
func wait(ctx context.Context, cmd *exec.Cmd, out *output) error {
	started, done := make(chan error, 1), make(chan error, 1)
	go func() {
		// The thread sets no_new_privs for the child and for nobody else: it is not given back. The kernel kills the child
		// when this thread dies, so that it must live as long as the child.
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			started <- fmt.Errorf("give up privileges: %w", err)
			return
		}
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		done <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return err
	}
	group := -cmd.Process.Pid
	defer func() { _ = syscall.Kill(group, syscall.SIGKILL) }() // whatever is left of the group
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if out.reached().Spent() {
		select {
		case err := <-done:
			return err
		case <-time.After(finishGrace):
		}
	}
	// acme.sh sets no traps: only the whole group ends what it started (curl, socat).
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case err := <-done:
		return errors.Join(ctx.Err(), err)
	case <-time.After(stopGrace):
		_ = syscall.Kill(group, syscall.SIGKILL)
		return errors.Join(ctx.Err(), <-done)
	}
}

// credential is the user that acme.sh runs as, nil for that of this process.
func (c *Config) credential() (*syscall.Credential, error) {
	if c.User == "" || os.Getuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup(c.User)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 31)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 31)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// giveTo hands the home to a user; nil keeps it with this process.
func (h *home) giveTo(as *syscall.Credential) error {
	if as == nil {
		return nil
	}
	return fs.WalkDir(h.root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return h.root.Lchown(path, int(as.Uid), int(as.Gid))
	})
}
