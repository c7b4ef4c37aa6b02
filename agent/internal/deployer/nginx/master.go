// This file finds the one running master process that a target means.

package nginx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
)

// settleTime is how long a master's new child may bear its parent's title: it does so until it sets its own.
const settleTime = 500 * time.Millisecond

// master finds the one running master that t means.
func (d *Deployer) master(ctx context.Context, t agent.Selector) (process.Process, error) {
	wait, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		found, reasons := d.masters(ctx, t)
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) == 0:
			return process.Process{}, reasons
		case !related(found) || !rest(wait, firstPause):
			pids := make([]int, len(found))
			for i, p := range found {
				pids[i] = p.PID
			}
			return process.Process{}, fmt.Errorf("%w: nginx master processes %v run; name one by instance.pidFile or instance.config in the policy", agent.ErrAmbiguous, pids)
		}
	}
}

// related says that one of the processes is a child of another.
func related(found []process.Process) bool {
	return slices.ContainsFunc(found, func(child process.Process) bool {
		return slices.ContainsFunc(found, func(p process.Process) bool { return p.PID == child.PPID })
	})
}

// masters returns all running masters that t can mean; the error says why there is none.
func (d *Deployer) masters(ctx context.Context, t agent.Selector) ([]process.Process, error) {
	candidates, err := d.candidates(t)
	if err != nil {
		return nil, err
	}
	var found []process.Process
	reasons := fmt.Errorf("no nginx master process fits the policy; start nginx, or correct the target's instance section: %w", agent.ErrNotRunning)
	for _, p := range candidates {
		if err := d.checkMaster(p, t.Binary); err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		same, err := d.matches(ctx, p, t)
		if err != nil {
			reasons = errors.Join(reasons, err)
		} else if same {
			found = append(found, p)
		}
	}
	return found, reasons
}

func (d *Deployer) candidates(t agent.Selector) ([]process.Process, error) {
	if t.PIDFile == "" {
		all, err := d.proc.Processes()
		return slices.DeleteFunc(all, func(p process.Process) bool { return !isMaster(p) }), err
	}
	pid, err := readPID(t.PIDFile)
	if err != nil {
		return nil, fmt.Errorf("read nginx's pid file: %w", errors.Join(err, agent.ErrNotRunning))
	}
	p, err := d.proc.Process(pid)
	if err != nil || !isMaster(p) {
		return nil, fmt.Errorf("pid file %s names process %d, which is no nginx master: %w", t.PIDFile, pid, agent.ErrNotRunning)
	}
	return []process.Process{p}, nil
}

// matches compares the prefix and the configuration that p uses with those that the policy names.
func (d *Deployer) matches(ctx context.Context, p process.Process, t agent.Selector) (bool, error) {
	if t.Prefix == "" && t.Config == "" {
		return true, nil
	}
	l, err := d.layoutOf(ctx, p)
	if err != nil {
		return false, err
	}
	return (t.Prefix == "" || t.Prefix == l.prefix) && (t.Config == "" || t.Config == l.config), nil
}

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:min(len(data), 32)])))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s does not hold a process id", path)
	}
	return pid, nil
}
