// This file runs programs. They come from the administrator's policy or are a running server's own binary, and
// they run as root: no shell, no inherited environment, bounded in time and output.

package deployer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// runTimeout bounds a program: a configuration test of ten thousand certificates takes ten seconds.
	runTimeout = 30 * time.Second
	// lingerTime is how long output is read after the program ended: what it left in the background may hold
	// the pipe open for ever.
	lingerTime = time.Second
	// tailSize is how much of the output's end is kept.
	tailSize = 8 << 10
)

// environment is all that a program gets to see of it.
var environment = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/"}

// Run runs argv in the folder dir, "" being the root folder, and returns the tail of what it printed. The program
// must be the absolute path of a file that only root and the running user can change. At the end of ctx, or after
// 30 seconds, the program and all that it started are killed.
func Run(ctx context.Context, dir string, argv []string) (output string, err error) {
	return RunEnv(ctx, dir, nil, argv)
}

// RunEnv is Run with more environment, as NAME=value: what a running server was started with, and its configuration
// may ask for.
func RunEnv(ctx context.Context, dir string, env, argv []string) (output string, err error) {
	if len(argv) == 0 {
		return "", errors.New("run program: none named")
	}
	if err := checkProgram(argv[0]); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()

	var tail tailWriter
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // argv comes from the administrator's policy, see the package doc
	cmd.Dir = dir
	if dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = slices.Concat(environment, env)
	cmd.Stdout, cmd.Stderr = &tail, &tail
	cmd.WaitDelay = lingerTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

	err = cmd.Run()
	switch {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("run %s: stopped before it ended: %w", argv[0], ctx.Err())
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // It ended well; something that it started still holds its output.
	case err != nil:
		err = fmt.Errorf("run %s: %w", argv[0], err)
	}
	return tail.String(), err
}

// checkProgram refuses a program that somebody else could put words into.
func checkProgram(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("run %q: a program is named by its absolute path", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("run program: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("run %s: not a program", path)
	case !ok || int(st.Uid) != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("run %s: it belongs to somebody other than root", path)
	case info.Mode()&0o002 != 0 || info.Mode()&0o020 != 0 && st.Gid != 0 && int(st.Gid) != os.Getegid():
		return fmt.Errorf("run %s: others may write it (mode %04o): %w", path, info.Mode().Perm(), fs.ErrPermission)
	}
	return nil
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct {
	buf []byte
	cut bool
}

// Write implements io.Writer.
func (w *tailWriter) Write(p []byte) (int, error) {
	n := len(p)
	w.buf = append(w.buf, p...)
	if extra := len(w.buf) - tailSize; extra > 0 {
		w.buf = append(w.buf[:0], w.buf[extra:]...)
		w.cut = true
	}
	return n, nil
}

// String returns the output fit for a log line or a report: valid UTF-8 without control characters.
func (w *tailWriter) String() string {
	b := w.buf
	for w.cut && len(b) > 0 && !utf8.RuneStart(b[0]) {
		b = b[1:]
	}
	s := strings.Map(func(r rune) rune {
		if r != '\n' && (unicode.IsControl(r) || r == utf8.RuneError) {
			return ' '
		}
		return r
	}, string(b))
	s = strings.TrimSpace(s)
	if w.cut {
		s = "…" + s
	}
	return s
}
