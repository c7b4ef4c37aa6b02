// This file finds httpd instances: those that run, and configurations that nothing runs.

package apache

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
	"github.com/certferry/certferry/agent/internal/hostfs"
	"github.com/certferry/certferry/agent/internal/process"
)

// software is the name of the deployer.
const software = "apache"

// place is where a distribution or panel has its httpd.
type place struct{ binary, root, config string }

// places are where an httpd is looked for that does not run. Those of one binary that runs tell how it was built
// where it must not be asked.
var places = []place{
	{"/usr/sbin/apache2", "/etc/apache2", "apache2.conf"},                     // Debian, Ubuntu
	{"/usr/sbin/httpd", "/etc/httpd", "conf/httpd.conf"},                      // Red Hat and kin, DirectAdmin
	{"/usr/sbin/httpd", "/etc/apache2", "conf/httpd.conf"},                    // cPanel
	{"/usr/sbin/httpd", "/etc/apache2", "httpd.conf"},                         // SUSE
	{"/usr/sbin/httpd", "/var/www", "/etc/apache2/httpd.conf"},                // Alpine
	{"/usr/bin/httpd", "/etc/httpd", "conf/httpd.conf"},                       // Arch
	{"/usr/local/apache2/bin/httpd", "/usr/local/apache2", "conf/httpd.conf"}, // built from source, the Docker image
	{"/usr/local/apache/bin/httpd", "/usr/local/apache", "conf/httpd.conf"},   // older panels
	{"/www/server/apache/bin/httpd", "/www/server/apache", "conf/httpd.conf"}, // BaoTa, aaPanel
	{"/opt/bitnami/apache/bin/httpd", "/opt/bitnami/apache", "conf/httpd.conf"},
	{"/opt/lampp/bin/httpd", "/opt/lampp", "etc/httpd.conf"}, // XAMPP
	{"/usr/local/sbin/httpd", "/usr/local", "etc/apache24/httpd.conf"},
}

func (p place) layout() layout { return layout{root: p.root, config: absolute(p.root, p.config)} }

// Finder finds httpd instances.
type Finder struct {
	httpd

	root string
}

// NewFinder returns a finder for this machine.
func NewFinder(cfg Config) *Finder {
	return &Finder{httpd: httpd{run: cfg.Run, proc: process.FS(cfg.Proc)}, root: cfg.Root}
}

// Find implements agent.Finder.
func (f *Finder) Find(ctx context.Context) ([]agent.Instance, error) {
	running, err := f.parents("")
	if err != nil {
		return nil, err
	}
	var found []agent.Instance
	here := make(map[string]bool) // the configurations of this machine that are in use
	for _, p := range running {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i := f.running(ctx, p)
		found = append(found, i)
		if i.Root == "" {
			here[i.Config] = true
		}
	}
	for _, p := range places {
		l := p.layout()
		if here[l.config] {
			continue
		}
		if i, ok := f.configured(p); ok {
			here[l.config] = true
			found = append(found, i)
		}
	}
	return found, nil
}

// running describes an httpd that runs.
func (f *Finder) running(ctx context.Context, p parent) agent.Instance {
	i := agent.Instance{Software: software, PID: p.PID, Binary: p.exe}
	fault := func(err error) {
		i.Faults = append(i.Faults, agent.Fault{File: p.exe, Message: err.Error()})
	}
	root, foreign, err := f.proc.Foreign(p.PID)
	if err != nil {
		fault(err) // Without root, somebody else's process is taken to see what we see.
	}
	i.Root = root
	l, err := f.layout(ctx, p, foreign)
	if err != nil {
		fault(err)
	}
	env, err := f.proc.Environ(p.PID)
	if err != nil {
		fault(err)
	}
	return described(i, l, l.parse(hostfs.New(root), p.options, env))
}

// layout asks a binary how it was built. That of a container is not run here, and neither is one that belongs to
// somebody else: where such a binary usually has its files is taken instead.
func (f *Finder) layout(ctx context.Context, p parent, foreign bool) (layout, error) {
	reason := f.check(p, "")
	cwd, err := f.proc.Cwd(p.PID)
	if err != nil {
		cwd = "/"
	}
	if !foreign && reason == nil {
		l, err := f.layoutOf(ctx, p, cwd)
		if err == nil {
			return l, nil
		}
		reason = err
	}
	l := usual(p.exe).with(p.options, cwd)
	if foreign || p.options.root != "" && p.options.config != "" {
		return l, nil
	}
	return l, reason
}

// usual is the layout of a binary that cannot be asked.
func usual(exe string) layout {
	for _, p := range places {
		if p.binary == exe {
			return layout{root: p.root, config: p.config}
		}
	}
	root := filepath.Dir(filepath.Dir(exe))
	return layout{root: root, config: "conf/httpd.conf"}
}

// configured describes a configuration that nothing runs.
func (f *Finder) configured(p place) (agent.Instance, bool) {
	files := hostfs.New(f.root)
	l := p.layout()
	i := agent.Instance{Software: software, Root: f.root}
	if _, err := files.Stat(l.config); errors.Is(err, fs.ErrNotExist) {
		return i, false
	}
	if _, err := files.Stat(p.binary); err == nil {
		i.Binary = p.binary
	}
	return described(i, l, l.parse(files, options{}, envvars(files, l.root))), true
}

func described(i agent.Instance, l layout, c *apacheconf.Configuration) agent.Instance {
	i.Version, i.Prefix, i.Config = l.version, l.root, l.config
	i.Sites = c.Sites
	i.Faults = append(append(i.Faults, c.Faults...), c.Notes...)
	return i
}

// envvars reads the file of that name beside Debian's configuration: a shell script that exports what the
// configuration asks for. Plain assignments are enough; $SUFFIX, which names one of several instances, is empty.
func envvars(files apacheconf.Files, root string) []string {
	data, err := files.ReadFile(filepath.Join(root, "envvars"))
	if err != nil {
		return nil
	}
	var env []string
	for line := range strings.Lines(string(data)) {
		assignment, ok := strings.CutPrefix(strings.TrimSpace(line), "export ")
		name, value, isAssignment := strings.Cut(assignment, "=")
		if !ok || !isAssignment || strings.ContainsAny(name, " \t") {
			continue
		}
		value = strings.Trim(strings.ReplaceAll(value, "$SUFFIX", ""), `"'`)
		env = append(env, name+"="+value)
	}
	return env
}
