// This file knows httpd's command line, and how a binary was built.

package apache

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/apache/apacheconf"
)

// options are the arguments that an httpd was started with.
type options struct {
	root, config           string
	defines, before, after []string
	// command says that the process was started to do something else than to serve, such as to test.
	command bool
	// arguments are those that decide what the configuration means, as httpd takes them.
	arguments []string
}

// readOptions reads arguments as httpd's apr_getopt does: letters may be joined, and a value may follow its letter
// with or without a blank.
func readOptions(args []string) options {
	var o options
	for i := 0; i < len(args); i++ {
		letters, isOption := strings.CutPrefix(args[i], "-")
		if !isOption {
			break
		}
		for letters != "" {
			letter := letters[:1]
			letters = letters[1:]
			if !strings.Contains("DCcEefdk", letter) {
				o.flag(letter)
				continue
			}
			value := letters
			if value == "" && i+1 < len(args) {
				i++
				value = args[i]
			}
			o.value(letter, value)
			break
		}
	}
	return o
}

func (o *options) flag(letter string) {
	switch letter {
	case "t", "v", "V", "l", "L", "h", "S", "M":
		o.command = true
	case "T":
		o.arguments = append(o.arguments, "-T")
	}
}

func (o *options) value(letter, value string) {
	switch letter {
	case "D":
		o.defines = append(o.defines, value)
		o.command = o.command || strings.HasPrefix(value, "DUMP_")
	case "C":
		o.before = append(o.before, value)
	case "c":
		o.after = append(o.after, value)
	case "d":
		o.root = value
	case "f":
		o.config = value
	case "k":
		o.command = o.command || value != "start"
		return
	default:
		return // Where errors of the start are told.
	}
	o.arguments = append(o.arguments, "-"+letter, value)
}

// layout is where an instance has its files, and how its binary was built.
type layout struct {
	version      string
	root, config string
	modules      []string
}

var (
	versionPattern = regexp.MustCompile(`Apache/([0-9.]+)`)
	builtPattern   = regexp.MustCompile(`-D (HTTPD_ROOT|SERVER_CONFIG_FILE)="([^"]*)"`)
	modulePattern  = regexp.MustCompile(`(?m)^  (\S+\.c)$`)
)

// layoutOf asks p's binary how it was built.
func (h httpd) layoutOf(ctx context.Context, p parent, cwd string) (layout, error) {
	exe := h.proc.Path(p.PID, "exe")
	// It may end with an error after it said everything: it wants to name its MPM and reads its configuration for that.
	about, err := h.run(ctx, "", nil, []string{exe, "-V"})
	built := make(map[string]string)
	for _, m := range builtPattern.FindAllStringSubmatch(about, -1) {
		built[m[1]] = m[2]
	}
	if built["HTTPD_ROOT"] == "" || built["SERVER_CONFIG_FILE"] == "" {
		return layout{}, fmt.Errorf("ask httpd %d how it was built: it does not say: %w", p.PID, cmp.Or(err, errSilent))
	}
	list, err := h.run(ctx, "", nil, []string{exe, "-l"})
	if err != nil {
		return layout{}, fmt.Errorf("ask httpd %d for its modules: %w", p.PID, err)
	}
	l := layout{root: built["HTTPD_ROOT"], config: built["SERVER_CONFIG_FILE"]}
	if m := versionPattern.FindStringSubmatch(about); m != nil {
		l.version = m[1]
	}
	for _, m := range modulePattern.FindAllStringSubmatch(list, -1) {
		l.modules = append(l.modules, m[1])
	}
	return l.with(p.options, cwd), nil
}

// with applies the options -d and -f.
func (l layout) with(o options, cwd string) layout {
	l.root = absolute(cwd, cmp.Or(o.root, l.root))
	l.config = absolute(l.root, cmp.Or(o.config, l.config))
	return l
}

// fits says whether an instance with this layout is one that s means.
func (l layout) fits(s agent.Selector) bool {
	return (s.Prefix == "" || filepath.Clean(s.Prefix) == l.root) && (s.Config == "" || filepath.Clean(s.Config) == l.config)
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

// parse reads the configuration of an httpd with layout l that was started with o.
func (l layout) parse(files apacheconf.Files, o options, env []string) *apacheconf.Configuration {
	return apacheconf.Parse(files, apacheconf.Options{
		Config: l.config, ServerRoot: l.root, Version: l.version, Modules: l.modules,
		Defines: o.defines, Environment: env, Before: o.before, After: o.after,
	})
}
