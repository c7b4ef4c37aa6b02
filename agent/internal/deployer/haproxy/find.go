// This file finds HAProxy instances: those that run, and configurations that nothing runs with.

package haproxy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/haproxy/haproxyconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
)

// software is the name of the deployer.
const software = "haproxy"

// places are where distributions, images and people have a configuration.
var places = []string{
	"/etc/haproxy/haproxy.cfg",
	"/usr/local/etc/haproxy/haproxy.cfg",
	"/etc/haproxy.cfg",
	"/opt/haproxy/etc/haproxy.cfg",
	"/opt/bitnami/haproxy/conf/haproxy.cfg",
	"/etc/hapee-lb/hapee-lb.cfg",
}

// Finder finds HAProxy instances.
type Finder struct {
	*Deployer

	root string
}

// NewFinder returns a finder for this machine.
func NewFinder(cfg Config) *Finder { return &Finder{Deployer: New(cfg), root: cfg.Root} }

// Find implements agent.Finder. The configuration of a process that belongs neither to root nor to the running user is
// read where it stands in a usual place only: anybody can call himself a haproxy.
func (f *Finder) Find(ctx context.Context) ([]agent.Instance, error) {
	running, err := f.settled(ctx, "")
	if err != nil {
		return nil, err
	}
	var found []agent.Instance
	var used []string
	for _, i := range running {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		described, configs, ok := f.running(ctx, i)
		if !ok {
			continue
		}
		if described.Root == "" {
			used = append(used, configs...)
		}
		found = append(found, described)
	}
	for _, path := range places {
		files := hostfs.New(f.root)
		if _, err := files.Stat(path); err != nil || slices.Contains(used, path) {
			continue
		}
		i := agent.Instance{Software: software, Config: path, Root: f.root}
		i.Sites, i.Faults = haproxyconf.Parse(files, haproxyconf.Options{Config: []string{path}, Dir: "/"})
		found = append(found, i)
	}
	return found, ctx.Err()
}

// running describes one that runs, with the files and folders of its configuration; false says that it only calls itself a
// haproxy.
func (f *Finder) running(ctx context.Context, i instance) (described agent.Instance, configs []string, ok bool) {
	described = agent.Instance{Software: software, PID: i.PID}
	fault := func(err error) {
		if err != nil {
			described.Faults = append(described.Faults, agent.Fault{File: f.proc.Path(i.PID, ""), Message: err.Error()})
		}
	}
	exe, _, exeErr := f.proc.Exe(i.PID)
	if exeErr == nil && !namePattern.MatchString(filepath.Base(exe)) {
		return described, nil, false
	}
	ownerErr := f.proc.Owned(i.PID)
	cwd, cwdErr := f.proc.Cwd(i.PID)
	root, foreign, rootErr := f.proc.Foreign(i.PID)
	env, envErr := f.proc.Environ(i.PID)
	for _, err := range []error{exeErr, cwdErr, rootErr, envErr} {
		fault(err)
	}
	o := optionsOf(i.Args)
	configs = o.configs(cwd)
	usual := !slices.ContainsFunc(configs, func(path string) bool { return !slices.Contains(places, path) })
	if foreign && usual && f.locked(i, configs) {
		root, foreign = "", false
	}
	described.Binary, described.Root = exe, root
	if len(configs) > 0 {
		described.Config = configs[0]
	}
	if ownerErr == nil && exeErr == nil && !foreign {
		version, err := f.version(ctx, i)
		fault(err)
		described.Version = version
	}
	if ownerErr != nil && !foreign && !usual {
		fault(fmt.Errorf("its configuration is not read: %w", ownerErr))
		return described, configs, true
	}
	sites, faults := haproxyconf.Parse(hostfs.New(root), haproxyconf.Options{Config: configs, Dir: o.folder(cwd), Env: env})
	described.Sites, described.Faults = sites, append(described.Faults, faults...)
	return described, configs, true
}

// locked says that i locked itself into an empty folder (chroot) after it had read its configuration: it is in our mount
// namespace, and its configuration stands here and not there.
func (f *Finder) locked(i instance, configs []string) bool {
	mine, err1 := os.Readlink(f.proc.Path(os.Getpid(), "ns/mnt"))
	its, err2 := os.Readlink(f.proc.Path(i.PID, "ns/mnt"))
	if err1 != nil || err2 != nil || mine != its || len(configs) == 0 {
		return false
	}
	_, there := hostfs.New(f.proc.Path(i.PID, "root")).Stat(configs[0])
	_, here := hostfs.New("").Stat(configs[0])
	return there != nil && here == nil
}

var versionPattern = regexp.MustCompile(`version ([0-9][0-9A-Za-z.]*)`)

// version asks a binary what it is.
func (f *Finder) version(ctx context.Context, i instance) (string, error) {
	about, err := f.run(ctx, "/", nil, []string{f.proc.Path(i.PID, "exe"), "-v"})
	if err != nil {
		return "", fmt.Errorf("ask haproxy %d for its version: %w", i.PID, err)
	}
	if m := versionPattern.FindStringSubmatch(about); m != nil {
		return strings.TrimSuffix(m[1], "."), nil
	}
	return "", nil
}
