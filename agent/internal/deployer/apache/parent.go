// This file finds running httpd parent processes, and the one among them that a target means.

package apache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
)

// settleTime is how long several parents are waited for to become one: a process that httpd just started has
// httpd's name until it takes its own, and httpd itself starts in a process that ends.
const settleTime = 500 * time.Millisecond

// httpd is what the deployer and the finder share: a look at running processes, and a way to ask their binary.
type httpd struct {
	run  Runner
	proc process.FS
}

// parent is a running httpd parent process.
type parent struct {
	process.Process

	exe     string
	options options
	// layout is where its build has its files.
	layout layout
}

// names are what httpd's binary is called.
func isHTTPD(base string) bool {
	return base == "httpd" || base == "apache2" || strings.HasPrefix(base, "httpd.") || strings.HasPrefix(base, "apache2-") || strings.HasPrefix(base, "httpd-")
}

// parents lists the httpd processes whose own parent is none of the same binary. A program that httpd ran to test or
// to stop another one is left out.
func (h httpd) parents(binary string) ([]parent, error) {
	all, err := h.proc.Processes()
	if err != nil {
		return nil, err
	}
	exes := make(map[int]string)
	for _, p := range all {
		exe, _, err := h.proc.Exe(p.PID)
		if err != nil && isHTTPD(p.Name) && len(p.Args) > 0 {
			exe = p.Args[0] // Without root, the binary of somebody else's process is not told.
		}
		if exe != "" && (isHTTPD(filepath.Base(exe)) || sameBinary(exe, binary)) {
			exes[p.PID] = exe
		}
	}
	var found []parent
	for _, p := range all {
		exe, is := exes[p.PID]
		if !is || exes[p.PPID] == exe || len(p.Args) == 0 {
			continue
		}
		if o := readOptions(p.Args[1:]); !o.command {
			found = append(found, parent{Process: p, exe: exe, options: o})
		}
	}
	return found, nil
}

// sameBinary says whether the path that the policy names is exe, perhaps by a symbolic link.
func sameBinary(exe, binary string) bool {
	if binary == "" || exe == binary {
		return binary != ""
	}
	resolved, err := filepath.EvalSymlinks(binary)
	return err == nil && exe == resolved
}

// parent finds the one running httpd that s means.
func (h httpd) parent(ctx context.Context, s agent.Selector) (parent, error) {
	wait, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		if err := ctx.Err(); err != nil {
			return parent{}, err
		}
		found, reasons := h.matching(ctx, s)
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) == 0:
			return parent{}, reasons
		case !rest(wait, firstPause):
			var pids []int
			for _, p := range found {
				pids = append(pids, p.PID)
			}
			return parent{}, fmt.Errorf("%w: httpd parent processes %v run; name one by instance.pidFile or instance.config in the policy", agent.ErrAmbiguous, pids)
		}
	}
}

// matching returns all running parents that s can mean; the error says why there is none.
func (h httpd) matching(ctx context.Context, s agent.Selector) ([]parent, error) {
	all, err := h.parents(s.Binary)
	if err != nil {
		return nil, err
	}
	if s.PIDFile != "" {
		pid, err := readPID(s.PIDFile)
		if err != nil {
			return nil, fmt.Errorf("read httpd's pid file: %w", errors.Join(err, agent.ErrNotRunning))
		}
		all = slices.DeleteFunc(all, func(p parent) bool { return p.PID != pid })
		if len(all) == 0 {
			return nil, fmt.Errorf("pid file %s names process %d, which is no httpd parent: %w", s.PIDFile, pid, agent.ErrNotRunning)
		}
	}
	var found []parent
	reasons := fmt.Errorf("no httpd parent process fits the policy; start httpd, or correct the target's instance section: %w", agent.ErrNotRunning)
	for _, p := range all {
		if err := h.check(p, s.Binary); err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		cwd, err := h.proc.Cwd(p.PID)
		if err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		if o := p.options; o.root != "" && o.config != "" && !(layout{}).with(o, cwd).fits(s) {
			continue // There is no need to ask its binary.
		}
		if p.layout, err = h.layoutOf(ctx, p, cwd); err != nil {
			reasons = errors.Join(reasons, err)
		} else if p.layout.fits(s) {
			found = append(found, p)
		}
	}
	return found, reasons
}

// check says why p must not be worked on: it is somebody else's, another binary, or lives in a container, where its
// paths mean other files.
func (h httpd) check(p parent, binary string) error {
	if err := h.proc.Owned(p.PID); err != nil {
		return err
	}
	if _, _, err := h.proc.Exe(p.PID); err != nil {
		return err
	}
	if binary != "" && !sameBinary(p.exe, binary) {
		return fmt.Errorf("httpd %d runs %s, not the policy's %s: %w", p.PID, p.exe, binary, agent.ErrNotRunning)
	}
	_, foreign, err := h.proc.Foreign(p.PID)
	if err != nil {
		return err
	}
	if foreign {
		return fmt.Errorf("httpd %d runs in a container or chroot, where paths mean other files; run an agent in there", p.PID)
	}
	return nil
}

// ask runs p's own binary with its arguments, in its folder and environment.
func (h httpd) ask(ctx context.Context, p parent, args ...string) (string, error) {
	dir, err := h.proc.Cwd(p.PID)
	if err != nil {
		return "", err
	}
	env, err := h.proc.Environ(p.PID)
	if err != nil {
		return "", err
	}
	argv := slices.Concat([]string{h.proc.Path(p.PID, "exe")}, p.options.arguments, args)
	return h.run(ctx, dir, env, argv)
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
