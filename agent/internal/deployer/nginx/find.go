// This file finds nginx instances: those that run, and configurations that nothing runs.

package nginx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/nginx/nginxconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
	"github.com/certferry/certferry/agent/internal/process"
)

// software is the name of the deployer.
const software = "nginx"

// places are where distributions, panels and people have an nginx; config is a pattern.
var places = []struct{ config, prefix, binary string }{
	{"/etc/nginx/nginx.conf", "", "/usr/sbin/nginx"},
	{"/etc/angie/angie.conf", "", "/usr/sbin/angie"},
	{"/usr/local/nginx/conf/nginx.conf", "/usr/local/nginx", "/usr/local/nginx/sbin/nginx"}, // built from source, LNMP, OneinStack
	{"/usr/local/tengine/conf/nginx.conf", "/usr/local/tengine", "/usr/local/tengine/sbin/nginx"},
	{"/usr/local/openresty/nginx/conf/nginx.conf", "/usr/local/openresty/nginx", "/usr/local/openresty/nginx/sbin/nginx"},
	{"/www/server/nginx/conf/nginx.conf", "/www/server/nginx", "/www/server/nginx/sbin/nginx"}, // BaoTa, aaPanel
	{"/opt/1panel/apps/openresty/*/conf/nginx.conf", "", ""},                                   // 1Panel runs it in a container
	{"/opt/nginx/conf/nginx.conf", "/opt/nginx", "/opt/nginx/sbin/nginx"},
	{"/opt/bitnami/nginx/conf/nginx.conf", "/opt/bitnami/nginx", "/opt/bitnami/nginx/sbin/nginx"},
	{"/usr/local/hestia/nginx/conf/nginx.conf", "/usr/local/hestia/nginx", "/usr/local/hestia/nginx/sbin/hestia-nginx"},
	{"/var/opt/gitlab/nginx/conf/nginx.conf", "/var/opt/gitlab/nginx", "/opt/gitlab/embedded/sbin/nginx"},
}

// Finder finds nginx instances.
type Finder struct {
	*Deployer

	root string
}

// NewFinder returns a finder for this machine.
func NewFinder(cfg Config) *Finder { return &Finder{Deployer: New(cfg), root: cfg.Root} }

// Find implements agent.Finder. The configuration of a process that belongs neither to root nor to the running user
// is not read where its paths mean this machine's files: anybody can call himself an nginx.
func (f *Finder) Find(ctx context.Context) ([]agent.Instance, error) {
	running, err := f.settled(ctx)
	if err != nil {
		return nil, err
	}
	var found []agent.Instance
	var used []fs.FileInfo // the configurations in use
	for _, p := range running {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i, ok := f.running(ctx, p)
		if !ok {
			continue
		}
		if info, err := hostfs.New(i.Root).Stat(i.Config); err == nil {
			used = append(used, info)
		}
		found = append(found, i)
	}
	return append(found, f.configured(used)...), ctx.Err()
}

// settled lists the masters when no new worker bears the title of its master any more.
func (f *Finder) settled(ctx context.Context) ([]process.Process, error) {
	wait, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		found, err := f.candidates(agent.Selector{})
		if err != nil || !related(found) || !rest(wait, firstPause) {
			return found, err
		}
	}
}

// running describes an nginx that runs; false says that p only calls itself one.
func (f *Finder) running(ctx context.Context, p process.Process) (agent.Instance, bool) {
	i := agent.Instance{Software: software, PID: p.PID}
	fault := func(err error) {
		i.Faults = append(i.Faults, agent.Fault{File: f.proc.Path(p.PID, ""), Message: err.Error()})
	}
	ownerErr := f.proc.Owned(p.PID)
	exe, _, exeErr := f.proc.Exe(p.PID)
	if ownerErr != nil && exeErr == nil && !kin(filepath.Base(exe)) {
		return i, false
	}
	root, foreign, rootErr := f.proc.Foreign(p.PID)
	i.Root, i.Binary = root, exe
	if exeErr != nil {
		i.Binary = optionsOf(p).binary
	}
	// Without root, somebody else's process shows its arguments only, and is taken to see what we see.
	for _, err := range []error{exeErr, rootErr} {
		if err != nil {
			fault(err)
		}
	}
	trusted := ownerErr == nil && exeErr == nil && rootErr == nil && !foreign && kin(filepath.Base(exe))
	l, err := f.layout(ctx, p, i, trusted)
	if err != nil {
		fault(err)
	}
	i.Prefix, i.Config, i.Version = l.prefix, l.config, l.version
	switch {
	case ownerErr != nil && !foreign:
		fault(fmt.Errorf("its configuration is not read: %w", ownerErr))
	case l.config != "":
		read(&i)
	}
	return i, true
}

// layout finds the layout of a running nginx. One that is trusted is asked how it was built; the binary of another is
// only read, for it must not be run.
func (f *Finder) layout(ctx context.Context, p process.Process, i agent.Instance, trusted bool) (layout, error) {
	o := optionsOf(p)
	cwd, err := f.proc.Cwd(p.PID)
	if err != nil && o.prefix != "" && !filepath.IsAbs(o.prefix) {
		return layout{}, err
	}
	if trusted {
		built, err := f.ask(ctx, p)
		if err == nil {
			return built.with(o, cwd), nil
		}
	}
	if built, ok := readBuilt(hostfs.New(""), f.proc.Path(p.PID, "exe")); ok {
		return built.with(o, cwd), nil
	}
	if built, ok := readBuilt(hostfs.New(i.Root), i.Binary); ok {
		return built.with(o, cwd), nil
	}
	for _, at := range places {
		if at.binary == i.Binary {
			return layout{prefix: at.prefix, config: at.config}.with(o, cwd), nil
		}
	}
	if o.config == "" || !filepath.IsAbs(o.config) && o.prefix == "" {
		return layout{}, errors.New("where its configuration is cannot be told: neither its arguments nor its binary say it")
	}
	return layout{}.with(o, cwd), nil
}

func readBuilt(files *hostfs.FS, binary string) (layout, bool) {
	data, err := files.ReadFile(binary)
	if err != nil {
		return layout{}, false
	}
	return builtInto(data)
}

// read reads the configuration of an instance.
func read(i *agent.Instance) {
	sites, faults := nginxconf.Parse(hostfs.New(i.Root), i.Config)
	i.Sites = sites
	i.Faults = append(i.Faults, faults...)
}

// configured describes the configurations that nothing runs.
func (f *Finder) configured(used []fs.FileInfo) []agent.Instance {
	files := hostfs.New(f.root)
	var found []agent.Instance
	for _, at := range places {
		configs, _ := files.Glob(at.config) // What cannot be listed is not found.
		for _, config := range configs {
			info, err := files.Stat(config)
			if err != nil || slices.ContainsFunc(used, func(u fs.FileInfo) bool { return os.SameFile(u, info) }) {
				continue
			}
			used = append(used, info)
			found = append(found, f.idle(config, at.prefix, at.binary))
		}
	}
	return found
}

func (f *Finder) idle(config, prefix, binary string) agent.Instance {
	i := agent.Instance{Software: software, Config: config, Prefix: prefix, Root: f.root}
	if binary != "" {
		if built, ok := readBuilt(hostfs.New(f.root), binary); ok {
			i.Binary, i.Version = binary, built.version
			i.Prefix = built.prefix
		}
	}
	if i.Prefix == "" {
		i.Prefix = strings.TrimSuffix(filepath.Dir(config), "/conf")
	}
	read(&i)
	return i
}
