// Package haproxy is the deployer for HAProxy, by its files or by its runtime API.
//
// It works on the running process: that process's own binary tests the configuration with that process's own arguments and
// environment. With a master process (-W, -Ws) a reload is a SIGUSR2 to the master, believed only when a new worker
// process takes the connections: the master answers nothing and goes on with the old workers when its configuration is
// bad. Without one, what differs from the files is sent to the administration socket, certificate by certificate. The
// package never starts a server: one that the agent started would live in the agent's cgroup and die with it.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
	"github.com/certferry/certferry/gitstore/bundle"
)

const (
	// reloadBudget is how long a new worker process may take; a thousand certificates need about two seconds.
	reloadBudget = 10 * time.Second
	firstPause   = 10 * time.Millisecond
	longestPause = 100 * time.Millisecond
	// settleTime is how long a new worker must live where it listens at no TCP port that could be seen.
	settleTime = 500 * time.Millisecond
)

// Runner runs a program with more environment and returns the tail of its output; see deployer.RunEnv.
type Runner func(ctx context.Context, dir string, env, argv []string) (output string, err error)

// Config is what New and NewFinder need.
type Config struct {
	Run Runner
	// ReloadBudget is how long to wait for a new worker process after a reload; 0 is 10 seconds.
	ReloadBudget time.Duration
	// Proc is the proc file system, "/proc" if empty.
	Proc string
	// Root is the folder below which a finder looks for configurations that nothing runs with; empty is this machine's.
	Root string
}

// Deployer is the deployer "haproxy".
type Deployer struct {
	run    Runner
	budget time.Duration
	proc   process.FS
}

// New returns a deployer for the HAProxy instances of this machine.
func New(cfg Config) *Deployer {
	d := &Deployer{run: cfg.Run, budget: cfg.ReloadBudget, proc: process.FS(cfg.Proc)}
	if d.budget <= 0 {
		d.budget = reloadBudget
	}
	return d
}

// Files implements agent.Deployer.
func (d *Deployer) Files(t agent.Target, b *bundle.Bundle) ([]agent.File, error) {
	return agent.Outputs(t, b)
}

// Test implements agent.Deployer: the running process's binary reads the configuration as it stands on disk.
func (d *Deployer) Test(ctx context.Context, t agent.Target) error {
	output, err := d.test(ctx, t)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Output: output, Err: err}
	}
	return nil
}

func (d *Deployer) test(ctx context.Context, t agent.Target) (output string, err error) {
	i, err := d.instance(ctx, t.Instance)
	if err != nil {
		return "", err
	}
	cwd, err := d.proc.Cwd(i.PID)
	if err != nil {
		return "", err
	}
	env, err := d.proc.Environ(i.PID)
	if err != nil {
		return "", err
	}
	argv := append([]string{d.proc.Path(i.PID, "exe"), "-c"}, testArguments(i.Args)...)
	if output, err = d.run(ctx, cwd, testEnvironment(env), argv); err != nil {
		return output, fmt.Errorf("haproxy refuses its configuration: %w", err)
	}
	return output, nil
}

// testEnvironment leaves out what a master tells its successor and what systemd tells a service: a test that got that
// would take itself for one.
func testEnvironment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return strings.HasPrefix(name, "HAPROXY_MWORKER") || name == "HAPROXY_PROCESSES" || name == "HAPROXY_LOAD_SUCCESS" ||
			name == "NOTIFY_SOCKET" || strings.HasPrefix(name, "LISTEN_") || strings.HasPrefix(name, "WATCHDOG_")
	})
}

// Reload implements agent.Deployer. What is served is brought in line with the files, whichever these are.
func (d *Deployer) Reload(ctx context.Context, t agent.Target) error {
	output, err := d.reload(ctx, t)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseReload, Output: output, Err: err}
	}
	return nil
}

func (d *Deployer) reload(ctx context.Context, t agent.Target) (output string, err error) {
	i, err := d.instance(ctx, t.Instance)
	if err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	switch {
	case i.master:
		return "", d.reloadMaster(ctx, i)
	case t.Instance.Socket != "":
		cwd, err := d.proc.Cwd(i.PID)
		if err != nil {
			return "", err
		}
		return updateAll(ctx, socket(t.Instance.Socket), cwd, t)
	}
	return "", fmt.Errorf("haproxy %d runs without a master process, so that nothing makes it read its files again: start it with -Ws or -W, or name its administration socket (\"stats socket … level admin\") by instance.socket in the policy", i.PID)
}

// reloadMaster signals the master and waits until a new worker takes connections and no old one does any more.
func (d *Deployer) reloadMaster(ctx context.Context, i instance) error {
	before, err := d.workers(i)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, d.budget)
	defer cancel()
	for pause := firstPause; !d.hears(i, syscall.SIGUSR2); pause = min(2*pause, longestPause) {
		if !rest(wait, pause) {
			return errors.Join(ctx.Err(), fmt.Errorf("haproxy master %d does not listen to signals; it is starting, or hangs", i.PID))
		}
	}
	if err := d.proc.Signal(i.Process, syscall.SIGUSR2); err != nil {
		return fmt.Errorf("reload haproxy: %w", err)
	}
	watch := generation{proc: d.proc, before: before, seen: make(map[workerID]int)}
	reloaded := false
	for pause := firstPause; rest(wait, pause); pause = min(2*pause, longestPause) {
		now, err := d.workers(i)
		if err != nil {
			return err
		}
		fresh, stale := watch.compare(now, pause)
		if fresh && !stale {
			return nil
		}
		reloaded = reloaded || fresh
		if failedReload(wait, i.masterSocket()) {
			return fmt.Errorf("haproxy master %d could not start a new worker process and goes on with the old: its log says why", i.PID)
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case reloaded:
		return nil // An old worker is too busy to hear that it shall end; the probe sees who answers.
	}
	return fmt.Errorf("haproxy master %d started no new worker process within %s: it did not take its configuration; its log says why", i.PID, d.budget)
}

// hears says whether the master handles the signal now. While it starts, and after each reload, there is a moment in which
// its first workers serve already and a signal to it is lost: it blocks signals, and then drops what is pending.
func (d *Deployer) hears(i instance, sig syscall.Signal) bool {
	status, err := os.ReadFile(d.proc.Path(i.PID, "status"))
	if err != nil {
		return true // Signal says what is wrong.
	}
	mask := func(name string) uint64 {
		n, err := strconv.ParseUint(field(string(status), name), 16, 64)
		if err != nil {
			return 0
		}
		return n
	}
	bit := uint64(1) << (sig - 1)
	return mask("SigCgt")&bit != 0 && mask("SigBlk")&bit == 0
}

// generation tells new workers from old ones.
type generation struct {
	proc   process.FS
	before map[workerID]bool
	// seen is for how many milliseconds a new worker has been there.
	seen map[workerID]int
}

// compare says whether a new worker takes connections, and whether an old one still does. From version 3.1 on a worker is
// there before it has read its configuration, so that its mere existence proves nothing.
func (g *generation) compare(now map[workerID]bool, pause time.Duration) (fresh, stale bool) {
	for id := range now {
		listeners, err := g.proc.Listening(id.pid)
		listens := err == nil && len(listeners) > 0
		if g.before[id] {
			stale = stale || listens
			continue
		}
		g.seen[id] += int(pause.Milliseconds())
		fresh = fresh || listens || g.seen[id] >= int(settleTime.Milliseconds())
	}
	return fresh, stale
}

var failedPattern = regexp.MustCompile(`(?m)^\d+\s+master\s+\d+\s+\[failed: (\d+)\]`)

// failedReload asks the master, if it has a socket, whether it failed to reload since it last did.
func failedReload(ctx context.Context, s socket) bool {
	if s == "" {
		return false
	}
	answer, err := s.ask(ctx, "show proc")
	m := failedPattern.FindStringSubmatch(answer)
	if err != nil || m == nil {
		return false
	}
	n, err := strconv.Atoi(m[1])
	return err == nil && n > 0
}

// absolute returns path as a process in the folder cwd means it.
func absolute(cwd, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(cwd, path)
}

// rest waits for d and answers false if ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
