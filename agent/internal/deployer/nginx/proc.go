// This file reads /proc. What a process says of itself (its title, its name) may be a lie: only a process that
// wholly belongs to root or to the running user is believed, for the agent is about to run its binary.

package nginx

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

// Titles that nginx gives its processes.
const (
	masterTitle  = "nginx: master process "
	workerTitle  = "nginx: worker process"
	leavingTitle = "nginx: worker process is shutting down"
)

type procfs string

// process is what /proc says of one process.
type process struct {
	pid, ppid int
	// start is when it started, in clock ticks since boot: with the pid it names a process for good.
	start uint64
	title string
}

func (p process) isMaster() bool { return strings.HasPrefix(p.title, masterTitle) }

func (p process) isWorker() bool {
	return strings.HasPrefix(p.title, workerTitle) && !strings.HasPrefix(p.title, leavingTitle)
}

func (fsys procfs) path(pid int, name string) string {
	return filepath.Join(string(fsys), strconv.Itoa(pid), name)
}

// processes lists all processes; those that end meanwhile are left out.
func (fsys procfs) processes() ([]process, error) {
	entries, err := os.ReadDir(string(fsys))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := fsys.process(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

func (fsys procfs) process(pid int) (process, error) {
	stat, err := os.ReadFile(fsys.path(pid, "stat"))
	if err != nil {
		return process{}, err
	}
	// The second field is the program's name in parentheses and may itself hold any character.
	_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 20 {
		return process{}, fmt.Errorf("read process %d: unknown form of stat", pid)
	}
	if fields[0] == "Z" {
		return process{}, fmt.Errorf("read process %d: %w", pid, fs.ErrNotExist)
	}
	ppid, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	title, err3 := os.ReadFile(fsys.path(pid, "cmdline"))
	if err := errors.Join(err1, err2, err3); err != nil {
		return process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	title = bytes.ReplaceAll(title, []byte{0}, []byte{' '})
	return process{pid: pid, ppid: ppid, start: start, title: strings.TrimSpace(string(title))}, nil
}

// checkMaster says why p must not be worked on: it is somebody else's, no nginx, or lives in a container, where
// its paths mean other files.
func (fsys procfs) checkMaster(p process, binary string) error {
	if err := fsys.checkOwner(p.pid); err != nil {
		return err
	}
	exe, err := os.Readlink(fsys.path(p.pid, "exe"))
	if err != nil {
		return fmt.Errorf("find the binary of process %d: %w", p.pid, err)
	}
	exe = strings.TrimSuffix(exe, " (deleted)")
	if binary != "" {
		if resolved, err := filepath.EvalSymlinks(binary); exe != binary && (err != nil || exe != resolved) {
			return fmt.Errorf("nginx master %d runs %s, not the policy's %s: %w", p.pid, exe, binary, agent.ErrNotRunning)
		}
	} else if !kin(filepath.Base(exe)) {
		return fmt.Errorf("process %d calls itself an nginx master but runs %s; name that by instance.binary in the policy if it is right", p.pid, exe)
	}
	root, err := os.Readlink(fsys.path(p.pid, "root"))
	if err != nil {
		return fmt.Errorf("find the root folder of process %d: %w", p.pid, err)
	}
	mine, err1 := os.Readlink(filepath.Join(string(fsys), "self", "ns", "mnt"))
	its, err2 := os.Readlink(fsys.path(p.pid, "ns/mnt"))
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("compare mount namespaces with process %d: %w", p.pid, err)
	}
	if root != "/" || mine != its {
		return fmt.Errorf("nginx master %d runs in a container or chroot, where paths mean other files; run an agent in there", p.pid)
	}
	return nil
}

// kin are the binaries that are nginx under another name.
func kin(base string) bool {
	return strings.Contains(base, "nginx") || slices.Contains([]string{"openresty", "tengine", "angie"}, base)
}

// checkOwner wants all four user ids of a process to be root's or the running user's: a set-user-id program that
// anybody started under a title of his choice still has his real user id.
func (fsys procfs) checkOwner(pid int) error {
	status, err := os.ReadFile(fsys.path(pid, "status"))
	if err != nil {
		return fmt.Errorf("find the owner of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(status)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		fields := strings.Fields(ids)
		self := strconv.Itoa(os.Geteuid())
		if len(fields) == 4 && !slices.ContainsFunc(fields, func(id string) bool { return id != "0" && id != self }) {
			return nil
		}
	}
	return fmt.Errorf("process %d calls itself an nginx master but does not belong to root", pid)
}

// options are the arguments that a master was started with, as its title repeats them.
type options struct{ prefix, config, errorLog, globals string }

// options reads the title "nginx: master process <arguments joined by spaces>". nginx takes no argument that is
// not an option or an option's value, so what follows an option up to the next one is its value, spaces and all.
func (p process) options() options {
	values := make(map[byte]string)
	var open byte
	words := strings.Split(strings.TrimPrefix(p.title, masterTitle), " ")
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
	return options{prefix: values['p'], config: values['c'], errorLog: values['e'], globals: values['g']}
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
