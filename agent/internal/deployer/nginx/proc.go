// This file tells nginx's processes by their titles. What a process says of itself may be a lie: only one that wholly
// belongs to root or to the running user is believed, for the agent is about to run its binary.

package nginx

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/process"
)

// Titles that nginx gives its processes.
const (
	masterTitle  = "nginx: master process "
	workerTitle  = "nginx: worker process"
	leavingTitle = "nginx: worker process is shutting down"
)

func isMaster(p process.Process) bool { return strings.HasPrefix(p.Title(), masterTitle) }

func isWorker(p process.Process) bool {
	return strings.HasPrefix(p.Title(), workerTitle) && !strings.HasPrefix(p.Title(), leavingTitle)
}

// checkMaster says why p must not be worked on: it is somebody else's, no nginx, or lives in a container, where
// its paths mean other files.
func (d *Deployer) checkMaster(p process.Process, binary string) error {
	if err := d.proc.Owned(p.PID); err != nil {
		return fmt.Errorf("a process calls itself an nginx master: %w", err)
	}
	exe, _, err := d.proc.Exe(p.PID)
	if err != nil {
		return err
	}
	if binary != "" {
		if resolved, err := filepath.EvalSymlinks(binary); exe != binary && (err != nil || exe != resolved) {
			return fmt.Errorf("nginx master %d runs %s, not the policy's %s: %w", p.PID, exe, binary, agent.ErrNotRunning)
		}
	} else if !kin(filepath.Base(exe)) {
		return fmt.Errorf("process %d calls itself an nginx master but runs %s; name that by instance.binary in the policy if it is right", p.PID, exe)
	}
	_, foreign, err := d.proc.Foreign(p.PID)
	if err != nil {
		return err
	}
	if foreign {
		return fmt.Errorf("nginx master %d runs in a container or chroot, where paths mean other files; run an agent in there", p.PID)
	}
	return nil
}

// kin are the binaries that are nginx under another name.
func kin(base string) bool {
	return strings.Contains(base, "nginx") || slices.Contains([]string{"openresty", "tengine", "angie"}, base)
}

// options are the arguments that a master was started with, as its title repeats them.
type options struct {
	// binary is how it was called: a path, or a name that a shell found.
	binary                            string
	prefix, config, errorLog, globals string
}

// optionsOf reads the title "nginx: master process <arguments joined by spaces>". nginx takes no argument that is
// not an option or an option's value, so what follows an option up to the next one is its value, spaces and all.
func optionsOf(p process.Process) options {
	values := make(map[byte]string)
	var open byte
	words := strings.Split(strings.TrimPrefix(p.Title(), masterTitle), " ")
	for _, word := range words[1:] {
		flags, isOption := strings.CutPrefix(word, "-")
		if !isOption {
			if open != 0 {
				values[open] = strings.TrimSpace(values[open] + " " + word)
			}
			continue
		}
		open = 0
		for i := range len(flags) {
			if strings.IndexByte("pcegs", flags[i]) >= 0 {
				open = flags[i]
				values[open] = flags[i+1:]
				break
			}
		}
	}
	return options{binary: words[0], prefix: values['p'], config: values['c'], errorLog: values['e'], globals: values['g']}
}

// arguments are o as nginx takes them.
func (o options) arguments() []string {
	var argv []string
	for _, pair := range [][2]string{{"-p", o.prefix}, {"-c", o.config}, {"-e", o.errorLog}, {"-g", o.globals}} {
		if pair[1] != "" {
			argv = append(argv, pair[0], pair[1])
		}
	}
	return argv
}
