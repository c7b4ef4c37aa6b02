// This file tells where an nginx has its configuration: its arguments, and how its binary was built.

package nginx

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/certferry/certferry/agent/internal/process"
)

// layout is where an nginx has its files, and which one it is.
type layout struct{ prefix, config, version string }

// layoutOf finds the layout of a running nginx, which is asked how it was built where its arguments do not say all.
func (d *Deployer) layoutOf(ctx context.Context, p process.Process) (layout, error) {
	cwd, err := d.proc.Cwd(p.PID)
	if err != nil {
		return layout{}, err
	}
	var built layout
	if o := optionsOf(p); o.prefix == "" || o.config == "" {
		if built, err = d.ask(ctx, p); err != nil {
			return layout{}, err
		}
	}
	return built.with(optionsOf(p), cwd), nil
}

// ask runs a running nginx's own binary to say how it was built.
func (d *Deployer) ask(ctx context.Context, p process.Process) (layout, error) {
	about, err := d.run(ctx, "", []string{d.proc.Path(p.PID, "exe"), "-V"})
	if err != nil {
		return layout{}, fmt.Errorf("ask nginx %d how it was built: %w", p.PID, err)
	}
	return builtAs(about), nil
}

var (
	buildPattern   = regexp.MustCompile(`--([a-z-]+)=(\S+)`)
	versionPattern = regexp.MustCompile(`(?i)(?:nginx|tengine|angie) version: (?:nginx/)?(\S+)`)
)

// builtAs reads what "nginx -V" prints.
func builtAs(about string) layout {
	built := layout{prefix: "/usr/local/nginx", config: "conf/nginx.conf"}
	if m := versionPattern.FindStringSubmatch(about); m != nil {
		built.version = m[1]
	}
	seen := make(map[string]bool)
	for _, m := range buildPattern.FindAllStringSubmatch(about, -1) {
		if seen[m[1]] {
			continue
		}
		seen[m[1]] = true
		switch m[1] {
		case "prefix":
			built.prefix = m[2]
		case "conf-path":
			built.config = m[2]
		}
	}
	return built
}

// builtInto finds what "nginx -V" would print in the binary itself, for one that must not be run.
func builtInto(binary []byte) (layout, bool) {
	_, arguments, ok := bytes.Cut(binary, []byte("configure arguments:"))
	if !ok {
		return layout{}, false
	}
	about := line(arguments)
	for _, name := range []string{"Tengine version: ", "Angie version: ", "nginx version: "} {
		if _, version, ok := bytes.Cut(binary, []byte(name)); ok {
			about = name + line(version) + "\n" + about
			break
		}
	}
	return builtAs(about), true
}

// line is the text up to the end of the line or of the string.
func line(data []byte) string {
	data = data[:min(len(data), 16<<10)]
	if i := bytes.IndexAny(data, "\n\x00"); i >= 0 {
		data = data[:i]
	}
	return strings.ToValidUTF8(string(data), "")
}

// with is the layout that an nginx has by its arguments, which count from its folder. A prefix that nothing tells stays
// empty.
func (l layout) with(o options, cwd string) layout {
	if l.prefix = cmp.Or(o.prefix, l.prefix); l.prefix != "" {
		l.prefix = absolute(cwd, l.prefix)
	}
	l.config = absolute(l.prefix, cmp.Or(o.config, l.config))
	return l
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}
