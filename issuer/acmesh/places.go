// This file prepares the places where http-01 and tls-alpn-01 are answered, so that orders side by side do not spoil each
// other's.

package acmesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/certferry/certferry/issuer"
)

// prepareWebroots makes the folders of tokens (RFC 8555 §8.3). acme.sh would remove those that it made, with the tokens of all orders
// that use the same webroot; what was there before it leaves alone.
func (i *Issuer) prepareWebroots(req *issuer.Request) error {
	as, err := i.cfg.credential()
	if err != nil {
		return &issuer.Error{Class: issuer.Local, Phase: issuer.PhasePrepare, Detail: "run acme.sh as its own user", Err: err}
	}
	for _, name := range req.Names {
		c := req.ChallengeOf(name)
		if c.Type != issuer.HTTP01 || c.Method != "webroot" {
			continue
		}
		if err := prepareWebroot(c.Webroot, as); err != nil {
			return &issuer.Error{
				Class: issuer.Local, Phase: issuer.PhasePrepare, Name: name,
				Detail: "make " + filepath.Join(c.Webroot, challengeDir) + " for the CA's challenge", Err: err,
			}
		}
	}
	return nil
}

// challengeDir is where tokens are, below a webroot.
const challengeDir = ".well-known/acme-challenge"

// prepareWebroot makes the folder of tokens. Others may write in a webroot, and this may be root: no link leads out of it.
func prepareWebroot(webroot string, as *syscall.Credential) error {
	root, err := os.OpenRoot(webroot)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for _, path := range []string{filepath.Dir(challengeDir), challengeDir} {
		if err := makeOpenDir(root, path, as); err != nil {
			return err
		}
	}
	return nil
}

// makeOpenDir makes a folder that a web server may read, where there is none. Owner and mode are those of the folder that
// was opened, whatever stands under its name by then.
func makeOpenDir(root *os.Root, path string, as *syscall.Credential) error {
	if err := root.Mkdir(path, 0o755); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	dir, err := root.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if as != nil {
		if err := dir.Chown(int(as.Uid), int(as.Gid)); err != nil {
			return err
		}
	}
	return dir.Chmod(0o755) // whatever the umask
}

// ports are those that acme.sh itself listens on for challenges.
var ports slots[int]

// holdPorts waits until no other order listens where this one has to, and answers how to give the ports back.
func (i *Issuer) holdPorts(ctx context.Context, req *issuer.Request) (release func(), err error) {
	var held []func()
	release = func() {
		for _, giveBack := range held {
			giveBack()
		}
	}
	for _, port := range i.portsOf(req) {
		giveBack, err := ports.hold(ctx, port)
		if err != nil {
			release()
			return nil, &issuer.Error{
				Class: issuer.Retryable, Phase: issuer.PhasePrepare,
				Detail: fmt.Sprintf("other orders answered on port %d all the time", port), Err: err,
			}
		}
		held = append(held, giveBack)
	}
	return release, nil
}

// portsOf are the ports that an order listens on, in rising order: two orders never wait for each other.
func (i *Issuer) portsOf(req *issuer.Request) []int {
	var standalone, alpn bool
	for _, name := range req.Names {
		switch c := req.ChallengeOf(name); {
		case c.Type == issuer.TLSALPN01:
			alpn = true
		case c.Type == issuer.HTTP01 && c.Method == "standalone":
			standalone = true
		}
	}
	var all []int
	if standalone {
		all = append(all, i.cfg.StandalonePort)
	}
	if alpn && (!standalone || i.cfg.TLSPort != i.cfg.StandalonePort) {
		all = append(all, i.cfg.TLSPort)
	}
	if len(all) == 2 && all[0] > all[1] {
		all[0], all[1] = all[1], all[0]
	}
	return all
}

// systemDirs are no webroots: an operator names a webroot, and the hub may be root.
var systemDirs = []string{
	"/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys",
	"/usr/bin", "/usr/include", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/sbin", "/usr/src",
	"/usr/local/bin", "/usr/local/etc", "/usr/local/lib", "/usr/local/libexec", "/usr/local/sbin",
	"/var/backups", "/var/cache", "/var/db", "/var/log", "/var/mail", "/var/spool",
}

// parentDirs are none either, and hold some.
var parentDirs = []string{"/", "/home", "/opt", "/usr", "/usr/local", "/usr/share", "/var", "/var/lib"}

// CheckWebroot says why no order puts tokens below a folder, by an *issuer.Error of class permanent; nil where one may.
func (i *Issuer) CheckWebroot(path string) error { return i.cfg.checkWebroot(path) }

// checkWebroot refuses a folder that is none, and those where nobody's web server reads.
func (c *Config) checkWebroot(path string) error {
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(resolved); err == nil && !info.IsDir() {
			err = fs.ErrInvalid
		}
	}
	if err != nil {
		return permanent("the webroot is not a folder on the hub")
	}
	if len(c.Webroots) > 0 {
		if !slices.ContainsFunc(c.Webroots, func(dir string) bool { return within(resolved, dir) }) {
			return permanent("the webroot is not below a folder of acme_webroots in the hub's configuration")
		}
		return nil
	}
	closed := slices.Concat([]string{c.StateDir, c.WorkDir}, c.Closed, systemDirs)
	if slices.Contains(parentDirs, resolved) || slices.ContainsFunc(closed, func(dir string) bool { return within(resolved, dir) || within(path, dir) }) {
		return permanent("the webroot is a folder of the system or of the hub; name the one that the web server serves")
	}
	return nil
}

// within says that path is dir or lies below it.
func within(path, dir string) bool {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
