// This file starts and stops the demo's processes and keeps the end of what they say.

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a process of the demo.
type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	lines []string
	fresh chan struct{} // closed and replaced at each line
}

// spawn starts a program. Its environment is this one's and env.
func (d *demo) spawn(name string, env []string, program string, args ...string) (*child, error) {
	c := &child{name: name, done: make(chan struct{}), fresh: make(chan struct{})}
	c.cmd = exec.Command(program, args...) //nolint:gosec,noctx // the demo's own programs; stop ends them
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Dir = d.dir
	// A group of its own: Ctrl-C reaches the demo alone, which then stops the others in order.
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout, c.cmd.Stderr = w, w
	err = c.cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go c.read(r)
	d.children = append(d.children, c)
	return c, nil
}

func (c *child) read(r io.ReadCloser) {
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		c.mu.Lock()
		c.lines = append(c.lines, scanner.Text())
		if len(c.lines) > 200 {
			c.lines = c.lines[1:]
		}
		close(c.fresh)
		c.fresh = make(chan struct{})
		c.mu.Unlock()
	}
	_ = r.Close()
	_ = c.cmd.Wait()
	close(c.done)
}

// line waits for a line that starts with prefix and returns the rest of it.
func (c *child) line(ctx context.Context, prefix string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c.mu.Lock()
		fresh := c.fresh
		for _, line := range c.lines {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				c.mu.Unlock()
				return rest, nil
			}
		}
		c.mu.Unlock()
		select {
		case <-fresh:
		case <-c.done:
			return "", fmt.Errorf("%s ended by itself", c.name)
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %s to say %q: %w", c.name, prefix, ctx.Err())
		}
	}
}

func (c *child) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines[max(0, len(c.lines)-12):], "\n")
}

// stop ends the process, and kills it when it does not end.
func (c *child) stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		<-c.done
		return fmt.Errorf("stop %s: it had to be killed", c.name)
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // what it may have left of its group
	return nil
}

// do runs a program to its end, with input on its standard input.
func (d *demo) do(ctx context.Context, input, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the demo's own programs
	cmd.Dir = d.dir
	cmd.Stdin = strings.NewReader(input)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[:min(len(cmd.Args), 4)], " "), err, out.String())
	}
	return nil
}

// freePort finds a port on loopback for a program that takes no listener.
func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil || !ok {
		return 0, errors.Join(errors.New("find free port"), err)
	}
	return addr.Port, nil
}
