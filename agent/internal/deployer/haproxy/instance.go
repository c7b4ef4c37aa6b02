// This file finds the one running HAProxy that a target means, and reads its arguments.

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

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
)

// instance is one running HAProxy: its master, or the one process there is.
type instance struct {
	process.Process

	master  bool
	workers []process.Process
}

// namePattern fits haproxy, and haproxy24 or haproxy-2.8 beside it.
var namePattern = regexp.MustCompile(`^haproxy[0-9.-]*$`)

type workerID struct {
	pid   int
	start uint64
}

// instances lists all that call themselves HAProxy, or by the name of the program binary.
func (d *Deployer) instances(binary string) ([]instance, error) {
	all, err := d.proc.Processes()
	if err != nil {
		return nil, err
	}
	byPID := make(map[int]process.Process)
	for _, p := range all {
		if namePattern.MatchString(p.Name) || binary != "" && p.Name == cut(filepath.Base(binary)) {
			byPID[p.PID] = p
		}
	}
	roots := make(map[int]*instance)
	var order []int
	for _, p := range all {
		if _, ok := byPID[p.PID]; !ok {
			continue
		}
		parent, child := byPID[p.PPID]
		if !child || parent.PID == p.PID {
			roots[p.PID] = &instance{Process: p, master: slices.ContainsFunc(p.Args, func(a string) bool { return a == "-W" || a == "-Ws" })}
			order = append(order, p.PID)
		}
	}
	for _, p := range byPID {
		if root := roots[p.PPID]; root != nil && p.PID != p.PPID {
			root.master = true
			root.workers = append(root.workers, p)
		}
	}
	list := make([]instance, len(order))
	for i, pid := range order {
		list[i] = *roots[pid]
	}
	return list, nil
}

// cut shortens a name as the kernel does.
func cut(name string) string { return name[:min(len(name), 15)] }

// workers are the processes below a master. The error wraps agent.ErrNotRunning if the master ended.
func (d *Deployer) workers(i instance) (map[workerID]bool, error) {
	if again, err := d.proc.Process(i.PID); err != nil || again.Start != i.Start {
		return nil, fmt.Errorf("haproxy master %d ended meanwhile: %w", i.PID, agent.ErrNotRunning)
	}
	all, err := d.proc.Processes()
	if err != nil {
		return nil, err
	}
	ids := make(map[workerID]bool)
	for _, p := range all {
		if p.PPID == i.PID && p.Name == i.Name {
			ids[workerID{p.PID, p.Start}] = true
		}
	}
	return ids, nil
}

// settled is instances, when none of them is just about to become another program: it has no arguments then.
func (d *Deployer) settled(ctx context.Context, binary string) ([]instance, error) {
	wait, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		all, err := d.instances(binary)
		starting := slices.ContainsFunc(all, func(i instance) bool { return len(i.Args) == 0 })
		if err != nil || !starting || !rest(wait, firstPause) {
			return all, err
		}
	}
}

// instance finds the one that t means.
func (d *Deployer) instance(ctx context.Context, t agent.Selector) (instance, error) {
	all, err := d.settled(ctx, t.Binary)
	if err != nil {
		return instance{}, err
	}
	var found []instance
	reasons := fmt.Errorf("no haproxy process fits the policy; start haproxy, or correct the target's instance section: %w", agent.ErrNotRunning)
	for _, i := range all {
		err := d.check(i, t.Binary)
		if err == nil {
			err = d.matches(ctx, i, t)
		}
		if err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		found = append(found, i)
	}
	if err := ctx.Err(); err != nil {
		return instance{}, err
	}
	switch len(found) {
	case 0:
		return instance{}, reasons
	case 1:
		return found[0], nil
	}
	pids := make([]int, len(found))
	for n, i := range found {
		pids[n] = i.PID
	}
	return instance{}, fmt.Errorf("%w: haproxy processes %v run; name one by instance.pidFile, instance.config or instance.socket in the policy", agent.ErrAmbiguous, pids)
}

// check says why i must not be worked on: it is somebody else's, no HAProxy, or lives where its paths mean other files.
func (d *Deployer) check(i instance, binary string) error {
	if err := d.proc.Owned(i.PID); err != nil {
		return fmt.Errorf("haproxy: %w: what it says of itself is not believed; run it with a master process (-Ws), which stays root's", err)
	}
	exe, _, err := d.proc.Exe(i.PID)
	if err != nil {
		return err
	}
	if binary != "" {
		if resolved, err := filepath.EvalSymlinks(binary); exe != binary && (err != nil || exe != resolved) {
			return fmt.Errorf("haproxy %d runs %s, not the policy's %s: %w", i.PID, exe, binary, agent.ErrNotRunning)
		}
	} else if !namePattern.MatchString(filepath.Base(exe)) {
		return fmt.Errorf("process %d calls itself haproxy but runs %s; name that by instance.binary in the policy if it is right", i.PID, exe)
	}
	_, foreign, err := d.proc.Foreign(i.PID)
	if err != nil {
		return err
	}
	if foreign {
		return fmt.Errorf("haproxy %d runs in a container or chroot, where paths mean other files; run an agent in there", i.PID)
	}
	return nil
}

// matches says why i is not the one that t means.
func (d *Deployer) matches(ctx context.Context, i instance, t agent.Selector) error {
	if t.Config != "" {
		cwd, err := d.proc.Cwd(i.PID)
		if err != nil {
			return err
		}
		if configs := optionsOf(i.Args).configs(cwd); !slices.Contains(configs, t.Config) {
			return fmt.Errorf("haproxy %d reads %v, not the policy's %s: %w", i.PID, configs, t.Config, agent.ErrNotRunning)
		}
	}
	if t.PIDFile != "" {
		pid, err := readPID(t.PIDFile)
		if err != nil {
			return fmt.Errorf("read haproxy's pid file: %w", errors.Join(err, agent.ErrNotRunning))
		}
		if !i.has(pid) {
			return fmt.Errorf("pid file %s names process %d, which is not haproxy %d: %w", t.PIDFile, pid, i.PID, agent.ErrNotRunning)
		}
	}
	if t.Socket != "" {
		pid, err := socket(t.Socket).pid(ctx)
		if err != nil {
			return err
		}
		if !i.has(pid) {
			return fmt.Errorf("socket %s belongs to process %d, not to haproxy %d: %w", t.Socket, pid, i.PID, agent.ErrNotRunning)
		}
	}
	return nil
}

// has says whether pid is i or one of its workers.
func (i instance) has(pid int) bool {
	return pid == i.PID || slices.ContainsFunc(i.workers, func(p process.Process) bool { return p.PID == pid })
}

func readPID(path string) (int, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the administrator names the file
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(data[:min(len(data), 64)])), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s does not hold a process id", path)
	}
	return pid, nil
}

// options are the arguments of a HAProxy that matter here.
type options struct {
	// files are its -f arguments and dir its -C argument.
	files []string
	dir   string
	// masterSocket is the address of its -S argument.
	masterSocket string
	// tested are the arguments for a test of the configuration.
	tested []string
}

var pidPattern = regexp.MustCompile(`^[0-9]+$`)

// optionsOf reads arguments as HAProxy does: the value of an option is the next argument; what follows "--" are files.
func optionsOf(args []string) options {
	var o options
	value := func(n int) string {
		if n+1 < len(args) {
			return args[n+1]
		}
		return ""
	}
	for n := 1; n < len(args); n++ {
		switch arg := args[n]; arg {
		case "--":
			o.files = append(o.files, args[n+1:]...)
			o.tested = append(o.tested, args[n:]...)
			return o
		case "-f", "-C", "-L", "-m", "-n", "-N":
			if arg == "-f" {
				o.files = append(o.files, value(n))
			}
			if arg == "-C" {
				o.dir = value(n)
			}
			o.tested = append(o.tested, arg, value(n))
			n++
		case "-S":
			o.masterSocket, _, _ = strings.Cut(value(n), ",")
			n++
		case "-p", "-x":
			n++
		case "-sf", "-st":
			for n+1 < len(args) && pidPattern.MatchString(args[n+1]) {
				n++
			}
		case "-W", "-Ws", "-D", "-Ds", "-q", "-V", "-db":
			// These say how to run, not what with.
		default:
			o.tested = append(o.tested, arg)
		}
	}
	return o
}

// testArguments are args without those that start, stop or replace a process.
func testArguments(args []string) []string { return optionsOf(args).tested }

// folder is where relative paths begin.
func (o options) folder(cwd string) string {
	if o.dir != "" {
		return absolute(cwd, o.dir)
	}
	return cwd
}

// configs are the files and folders that make up the configuration.
func (o options) configs(cwd string) []string {
	all := make([]string, len(o.files))
	for i, f := range o.files {
		all[i] = absolute(o.folder(cwd), f)
	}
	return all
}

// masterSocket is the master's own socket, empty if it has none that is a file.
func (i instance) masterSocket() socket {
	path := strings.TrimPrefix(optionsOf(i.Args).masterSocket, "unix@")
	if !filepath.IsAbs(path) {
		return ""
	}
	return socket(path)
}
