// Package apache is the deployer and the finder for Apache httpd 2.4.
//
// It works on the running parent process: that process's own binary tests the configuration with that process's own
// arguments and environment, even after an upgrade replaced the binary on disk. A reload is a SIGUSR1 (graceful) to
// that process, and is believed only when a new child is there and the parent still lives.
//
// "httpd -t" opens no key: it passes garbage, a key of another certificate, an RSA key of 1024 bits. A graceful restart
// then ends the whole server, all its virtual hosts with it, and nothing but its service manager can start it again.
// So before httpd is told anything, every pair that its whole configuration loads is parsed and compared here, and
// what httpd lists as its certificates is compared with what our own parser found: a pair that could not be looked at
// is a failed test. What cannot be checked (an encrypted key) fails as well.
//
// A shadow server that loads the pairs on a spare port would ask OpenSSL itself, but the agent would have to start a
// server as root, from its own cgroup, with modules and a passphrase program that somebody else chose, and it would
// still load only the pairs that the parser found. In the cases that were tried it told nothing that the comparison
// here does not, so there is none.
//
// The package never starts a server: one that the agent started would live in the agent's cgroup and die with it.
package apache

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
	"github.com/certferry/certferry/gitstore/bundle"
)

const (
	// reloadBudget is how long a new child may take: the parent first reads all certificates, some ten thousand in
	// ten seconds.
	reloadBudget = 20 * time.Second
	// leaveTime is how long the old children are waited for once there are new ones. One with a long download stays.
	leaveTime    = 2 * time.Second
	firstPause   = 10 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// Runner runs a program in a folder with more environment and returns the tail of its output; see deployer.RunEnv.
type Runner func(ctx context.Context, dir string, env, argv []string) (output string, err error)

// Config is what New and NewFinder need.
type Config struct {
	Run Runner
	// ReloadBudget is how long to wait for a new child process after a reload; 0 is 20 seconds.
	ReloadBudget time.Duration
	// Proc is the proc file system, "/proc" if empty.
	Proc string
	// Root is the folder below which the finder looks for configurations that nothing runs; "" is this machine's.
	Root string
}

// Deployer is the deployer "apache".
type Deployer struct {
	httpd

	budget time.Duration
}

// New returns a deployer for the httpd instances of this machine.
func New(cfg Config) *Deployer {
	d := &Deployer{httpd: httpd{run: cfg.Run, proc: process.FS(cfg.Proc)}, budget: cfg.ReloadBudget}
	if d.budget <= 0 {
		d.budget = reloadBudget
	}
	return d
}

// Files implements agent.Deployer.
func (d *Deployer) Files(t agent.Target, b *bundle.Bundle) ([]agent.File, error) {
	return agent.Outputs(t, b)
}

// Test implements agent.Deployer: the running parent's binary reads the configuration as it stands on disk, and every
// pair in it is looked at.
func (d *Deployer) Test(ctx context.Context, t agent.Target) error {
	p, err := d.parent(ctx, t.Instance)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Err: err}
	}
	output, err := d.ask(ctx, p, "-t", "-D", "DUMP_CERTS")
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseTest, Output: output, Err: fmt.Errorf("httpd refuses its configuration: %w", err)}
	}
	return d.gate(ctx, p, agent.PhaseTest, output)
}

// Reload implements agent.Deployer. It looks at every pair once more, signals the parent, waits for a child that was
// not there before, and then for those before to leave.
func (d *Deployer) Reload(ctx context.Context, t agent.Target) error {
	p, err := d.parent(ctx, t.Instance)
	if err != nil {
		return &agent.StepError{Phase: agent.PhaseReload, Err: err}
	}
	if err := d.gate(ctx, p, agent.PhaseReload, ""); err != nil {
		return err
	}
	if err := d.graceful(ctx, p); err != nil {
		return &agent.StepError{Phase: agent.PhaseReload, Err: err}
	}
	return nil
}

func (d *Deployer) graceful(ctx context.Context, p parent) error {
	before, err := d.children(p)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.proc.Signal(p.Process, syscall.SIGUSR1); err != nil {
		return err
	}
	reloaded, err := d.watch(ctx, p, before, d.budget, func(fresh, _ bool) bool { return fresh })
	if err != nil {
		return err
	}
	if !reloaded {
		return fmt.Errorf("httpd %d started no new child process within %s: it did not reload; its error log says why", p.PID, d.budget)
	}
	// An old child that stays still serves a connection; the probe sees who answers new ones.
	_, err = d.watch(ctx, p, before, leaveTime, func(_, stale bool) bool { return !stale })
	return err
}

// watch looks at the children of p until enough is true, for at most budget.
func (d *Deployer) watch(ctx context.Context, p parent, before map[childID]bool, budget time.Duration, enough func(fresh, stale bool) bool) (bool, error) {
	wait, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	for pause := firstPause; rest(wait, pause); pause = min(2*pause, longestPause) {
		now, err := d.children(p)
		if errors.Is(err, agent.ErrNotRunning) {
			return false, fmt.Errorf("httpd %d ended instead of reloading: the server is down. Its error log says why; start it by its service manager: %w", p.PID, agent.ErrNotRunning)
		}
		if err != nil {
			return false, err
		}
		if enough(compare(before, now)) {
			return true, nil
		}
	}
	return false, ctx.Err()
}

// compare says whether there are children that were not there before, and whether one of those before is still there.
func compare(before, now map[childID]bool) (fresh, stale bool) {
	for id := range now {
		if before[id] {
			stale = true
		} else {
			fresh = true
		}
	}
	return fresh, stale
}

// childID names a process for good.
type childID struct {
	pid   int
	start uint64
}

// children returns the processes that p forked and that serve; programs it started for its logs have other names.
func (d *Deployer) children(p parent) (map[childID]bool, error) {
	if again, err := d.proc.Process(p.PID); err != nil || again.Start != p.Start {
		return nil, fmt.Errorf("httpd %d ended meanwhile: %w", p.PID, agent.ErrNotRunning)
	}
	all, err := d.proc.Processes()
	if err != nil {
		return nil, err
	}
	ids := make(map[childID]bool)
	for _, c := range all {
		if c.PPID == p.PID && c.Name == p.Name {
			ids[childID{c.PID, c.Start}] = true
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
