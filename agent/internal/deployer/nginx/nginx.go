// Package nginx is the deployer for nginx and its kin (OpenResty, Tengine, Angie).
//
// It works on the running master process: that process's own binary tests the configuration with that process's
// own arguments, even after an upgrade replaced the binary on disk. A reload is a SIGHUP to that process, and is
// believed only when a new worker process is there: nginx answers every signal with success and reports a failed
// reload in its error log alone. The package never starts a server: one that the agent started would live in the
// agent's cgroup and die with it.
package nginx

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/nginx/nginxconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
	"github.com/certferry/certferry/agent/internal/process"
	"github.com/certferry/certferry/gitstore/bundle"
)

const (
	// reloadBudget is how long a new worker process may take. nginx tries for 2.5 seconds to bind a busy port;
	// a configuration of a thousand certificates needs about one second.
	reloadBudget = 8 * time.Second
	// certificateBudget is added for each certificate where the budget did not suffice.
	certificateBudget = 5 * time.Millisecond
	firstPause        = 10 * time.Millisecond
	longestPause      = 100 * time.Millisecond
)

// Runner runs a program and returns the tail of its output; see deployer.Run.
type Runner func(ctx context.Context, dir string, argv []string) (output string, err error)

// Config is what New needs.
type Config struct {
	Run Runner
	// ReloadBudget is how long to wait for a new worker process after a reload; 0 is 8 seconds.
	ReloadBudget time.Duration
	// Proc is the proc file system, "/proc" if empty.
	Proc string
	// Root is the folder below which a Finder looks for configurations that nothing runs; this machine's root folder
	// if empty.
	Root string
}

// Deployer is the deployer "nginx".
type Deployer struct {
	run    Runner
	budget time.Duration
	proc   process.FS
}

// New returns a deployer for the nginx instances of this machine.
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

// Test implements agent.Deployer: the running master's binary reads the configuration as it stands on disk.
func (d *Deployer) Test(ctx context.Context, t agent.Target) error {
	m, err := d.master(ctx, t.Instance)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Err: err}
	}
	cwd, err := d.proc.Cwd(m.PID)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Err: err}
	}
	exe := d.proc.Path(m.PID, "exe")
	output, err := d.run(ctx, cwd, append([]string{exe, "-t", "-q"}, optionsOf(m).arguments()...))
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Output: output, Err: fmt.Errorf("nginx refuses its configuration: %w", err)}
	}
	return nil
}

// Reload implements agent.Deployer: it signals the master, waits for a worker process that was not there before,
// and then for those before to stop taking connections.
func (d *Deployer) Reload(ctx context.Context, t agent.Target) error {
	if err := d.reload(ctx, t.Instance); err != nil {
		return &agent.StepError{Phase: agent.PhaseReload, Err: err}
	}
	return nil
}

func (d *Deployer) reload(ctx context.Context, t agent.Selector) error {
	m, err := d.master(ctx, t)
	if err != nil {
		return err
	}
	before, err := d.workers(m)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.proc.Signal(m, syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload nginx: %w", err)
	}

	reloaded, err := d.await(ctx, m, before, d.budget)
	if err == nil && !reloaded {
		reloaded, err = d.await(ctx, m, before, d.patience(ctx, m))
	}
	if err == nil && !reloaded {
		err = fmt.Errorf("nginx master %d started no new worker process within %s: it did not take its configuration; its error log says why", m.PID, d.budget)
	}
	return err
}

// await waits for a worker process that was not there before, and then for those before to stop taking connections.
// One of these that is too busy to hear that it shall end is no failure: the probe sees who answers.
func (d *Deployer) await(ctx context.Context, m process.Process, before map[workerID]bool, budget time.Duration) (reloaded bool, err error) {
	wait, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	for pause := firstPause; rest(wait, pause); pause = min(2*pause, longestPause) {
		now, err := d.workers(m)
		if err != nil {
			return false, err
		}
		fresh, stale := compare(before, now)
		reloaded = reloaded || fresh
		if fresh && !stale {
			return true, nil
		}
	}
	return reloaded, ctx.Err()
}

// patience is how much longer a reload may take, by the certificates that nginx has to load.
func (d *Deployer) patience(ctx context.Context, m process.Process) time.Duration {
	l, err := d.layoutOf(ctx, m)
	if err != nil {
		return 0
	}
	sites, _ := nginxconf.Parse(hostfs.New(""), l.config)
	return time.Duration(len(sites)) * certificateBudget
}

// compare says whether there are workers that were not there before, and whether one of those before still takes
// connections: nginx lets them do so for a tenth of a second after the new ones are there.
func compare(before, now map[workerID]bool) (fresh, stale bool) {
	for id := range now {
		if before[id] {
			stale = true
		} else {
			fresh = true
		}
	}
	return fresh, stale
}

var errGone = fmt.Errorf("nginx master ended meanwhile: %w", agent.ErrNotRunning)

type workerID struct {
	pid   int
	start uint64
}

// workers returns the worker processes of m that are not about to end.
func (d *Deployer) workers(m process.Process) (map[workerID]bool, error) {
	if again, err := d.proc.Process(m.PID); err != nil || again.Start != m.Start {
		return nil, errGone
	}
	all, err := d.proc.Processes()
	if err != nil {
		return nil, err
	}
	ids := make(map[workerID]bool)
	for _, p := range all {
		if p.PPID == m.PID && isWorker(p) {
			ids[workerID{p.PID, p.Start}] = true
		}
	}
	return ids, nil
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
