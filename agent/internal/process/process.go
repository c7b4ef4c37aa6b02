// Package process reads what /proc says of running processes, and signals them. What a process says of itself (its
// name, its arguments) may be a lie: ask Owned before it is believed. Without root, only the caller's own processes
// show everything.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/certferry/certferry/agent"
)

const (
	// argsLimit bounds the arguments that are kept of a process; what is beyond is cut off.
	argsLimit = 128 << 10
	// environLimit bounds the environment of a process: a larger one is an error.
	environLimit = 1 << 20
)

// FS is the folder of the proc file system; empty means "/proc".
type FS string

// Process is what /proc says of one process.
type Process struct {
	PID, PPID int
	// Start is when it started, in clock ticks since boot: with the PID it names a process for good.
	Start uint64
	// Name is the program's name, cut to 15 bytes by the kernel.
	Name string
	// Args are its arguments, the program first; a server that sets a title has that alone. Kernel threads have none.
	Args []string
}

// Title is the arguments as one line: how servers that set a title of their own show it.
func (p Process) Title() string { return strings.TrimSpace(strings.Join(p.Args, " ")) }

// Path is the path of a process's entry in the proc file system, such as "exe".
func (fsys FS) Path(pid int, name string) string {
	return filepath.Join(fsys.dir(), strconv.Itoa(pid), name)
}

func (fsys FS) dir() string {
	if fsys == "" {
		return "/proc"
	}
	return string(fsys)
}

// Processes lists all processes; those that end meanwhile are left out.
func (fsys FS) Processes() ([]Process, error) {
	entries, err := os.ReadDir(fsys.dir())
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, err := fsys.Process(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// Process reads one process. One that ended, also one whose parent has not heard of it yet, does not exist
// (fs.ErrNotExist).
func (fsys FS) Process(pid int) (Process, error) {
	stat, err := os.ReadFile(fsys.Path(pid, "stat"))
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	// The second field is the program's name in parentheses and may itself hold any character.
	before, rest := stat[:max(0, bytes.LastIndexByte(stat, ')'))], stat[bytes.LastIndexByte(stat, ')')+1:]
	_, name, ok := bytes.Cut(before, []byte("("))
	fields := strings.Fields(string(rest))
	if !ok || len(fields) < 20 {
		return Process{}, fmt.Errorf("read process %d: unknown form of stat", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return Process{}, fmt.Errorf("read process %d: %w", pid, fs.ErrNotExist)
	}
	ppid, err1 := strconv.Atoi(fields[1])
	start, err2 := strconv.ParseUint(fields[19], 10, 64)
	args, err3 := read(fsys.Path(pid, "cmdline"), argsLimit)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return Process{PID: pid, PPID: ppid, Start: start, Name: string(name), Args: split(args)}, nil
}

// Exe is the path of the program that a process runs, and whether that file was deleted or replaced since. The
// running code itself can be read and run at Path(pid, "exe").
func (fsys FS) Exe(pid int) (path string, deleted bool, err error) {
	exe, err := os.Readlink(fsys.Path(pid, "exe"))
	if err != nil {
		return "", false, fmt.Errorf("find the binary of process %d: %w", pid, err)
	}
	path, deleted = strings.CutSuffix(exe, " (deleted)")
	return path, deleted, nil
}

// Cwd is the folder that a process's relative paths begin at.
func (fsys FS) Cwd(pid int) (string, error) {
	cwd, err := os.Readlink(fsys.Path(pid, "cwd"))
	if err != nil {
		return "", fmt.Errorf("find the folder of process %d: %w", pid, err)
	}
	return cwd, nil
}

// Environ is the environment that a process was started with, as NAME=value. It may hold secrets: never log it.
func (fsys FS) Environ(pid int) ([]string, error) {
	data, err := read(fsys.Path(pid, "environ"), environLimit+1)
	if err != nil {
		return nil, fmt.Errorf("read the environment of process %d: %w", pid, err)
	}
	if len(data) > environLimit {
		return nil, fmt.Errorf("read the environment of process %d: larger than %d bytes", pid, environLimit)
	}
	return split(data), nil
}

// Owned wants all four user ids of a process to be root's or the running user's: a set-user-id program that
// anybody started under a title of his choice still has his real user id.
func (fsys FS) Owned(pid int) error {
	status, err := os.ReadFile(fsys.Path(pid, "status"))
	if err != nil {
		return fmt.Errorf("find the owner of process %d: %w", pid, err)
	}
	self := strconv.Itoa(os.Geteuid())
	for line := range strings.Lines(string(status)) {
		ids, ok := strings.CutPrefix(line, "Uid:")
		if !ok {
			continue
		}
		fields := strings.Fields(ids)
		if len(fields) == 4 && !slices.ContainsFunc(fields, func(id string) bool { return id != "0" && id != self }) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not belong to root", pid)
}

// Foreign says whether a process lives in a container or below another root folder, where its paths mean other files;
// root is then the folder below which they lie, for hostfs.New. A mount namespace alone does not make it foreign:
// services have one for a private /tmp.
func (fsys FS) Foreign(pid int) (root string, foreign bool, err error) {
	dir, err := os.Readlink(fsys.Path(pid, "root"))
	if err != nil {
		return "", false, fmt.Errorf("find the root folder of process %d: %w", pid, err)
	}
	mine, err1 := os.Readlink(filepath.Join(fsys.dir(), "self", "ns", "mnt"))
	its, err2 := os.Readlink(fsys.Path(pid, "ns/mnt"))
	if err := errors.Join(err1, err2); err != nil {
		return "", false, fmt.Errorf("compare mount namespaces with process %d: %w", pid, err)
	}
	if dir == "/" {
		if mine == its {
			return "", false, nil
		}
		ours, err1 := fsys.mountsOf("self")
		theirs, err2 := fsys.mountsOf(strconv.Itoa(pid))
		// What cannot be compared is taken to be another world.
		if errors.Join(err1, err2) == nil && sameFiles(ours, theirs) {
			return "", false, nil
		}
	}
	return fsys.Path(pid, "root"), true, nil
}

// Signal signals exactly the process that p describes: the handle is taken first, then the process behind it is
// looked at again, so that a process id that went to somebody else is never signalled. The error wraps
// agent.ErrNotRunning where p ended.
func (fsys FS) Signal(p Process, sig os.Signal) error {
	handle, err := os.FindProcess(p.PID)
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	defer func() { _ = handle.Release() }()
	again, err := fsys.Process(p.PID)
	if err == nil && again.Start == p.Start {
		err = handle.Signal(sig)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal process %d: %w", p.PID, err)
		}
	} else {
		err = os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("signal process %d: it ended meanwhile: %w", p.PID, agent.ErrNotRunning)
	}
	return nil
}

func read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a file of /proc
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limit))
}

// split splits what the kernel separates by null bytes. A title that is shorter than the arguments it was written
// over is followed by any number of them.
func split(data []byte) []string {
	data = bytes.TrimRight(data, "\x00")
	if len(data) == 0 {
		return nil
	}
	return strings.Split(string(data), "\x00")
}
