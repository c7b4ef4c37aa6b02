// Package apacheconf finds the certificates that the configuration of an Apache httpd 2.4 uses.
//
// It reads the configuration as httpd does, in one pass: includes, conditions, variables and macros take effect where
// they stand, and a virtual host takes over what the server level says. Directives that have nothing to do with
// certificates are passed over, known or not. The parser does no I/O of its own and runs no program.
package apacheconf

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/certferry/certferry/agent"
)

// Bounds of one parse. A server with ten thousand virtual hosts stays far below them.
const (
	// maxIncludes is how many files and uses of macros are read in all.
	maxIncludes = 50_000
	// maxSize is how many bytes are read in all, expanded macros included.
	maxSize = 64 << 20
	// maxLine is the longest line, variables and macro parameters expanded.
	maxLine = 1 << 20
	// maxNesting is how deep sections, includes and macros may stand in each other.
	maxNesting = 128
	// maxFaults is how many faults are told.
	maxFaults = 1000
	// includeDepth is httpd's own bound (AP_MAX_INCLUDE_DEPTH).
	includeDepth = 20
)

// Files reads an instance's files as it sees them.
type Files interface {
	ReadFile(path string) ([]byte, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	// Glob returns the paths that match a pattern of package path/filepath, sorted.
	Glob(pattern string) ([]string, error)
}

// Options are what decides, beside the files, what a configuration means.
type Options struct {
	// Config is the absolute path of the main file.
	Config string
	// ServerRoot is the folder at which relative paths begin, until the directive of that name says otherwise.
	ServerRoot string
	// Version is httpd's, such as 2.4.62; where it is empty, what stands in an IfVersion counts.
	Version string
	// Modules are those compiled in, as "httpd -l" lists them (mod_so.c); empty means those of Debian's build.
	Modules []string
	// Defines are the names of options -D.
	Defines []string
	// Environment is that of the process, NAME=value.
	Environment []string
	// Before and After are the directives of options -C and -c.
	Before, After []string
}

// Configuration is what Parse found.
type Configuration struct {
	// Sites are the certificates that are loaded, in the order of their virtual hosts, the server level first.
	Sites []agent.Site
	// Faults are what could not be followed or makes no sense: a certificate may be missing from Sites.
	Faults []agent.Fault
	// Notes are what an administrator should know; they hide no certificate that is loaded from a file.
	Notes []agent.Fault
	// Certificates are all files that a directive SSLCertificateFile names, used or not, as httpd's own
	// "-t -D DUMP_CERTS" lists them.
	Certificates []string
}

// Parse reads the configuration that begins with o.Config. It never fails: what is wrong is a fault.
func Parse(files Files, o Options) *Configuration {
	r := newReader(files, o)
	r.read(&text{lines: commandLine("option -C", o.Before)}, "")
	r.load(line{file: o.Config}, r.absolute(o.Config), false)
	r.read(&text{lines: commandLine("option -c", o.After)}, "")
	return r.finish()
}

func commandLine(origin string, directives []string) []line {
	var all []line
	for _, d := range directives {
		all = append(all, line{text: strings.TrimSpace(d), file: origin})
	}
	return all
}

// absolute resolves a path as ap_server_root_relative does.
func (r *reader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.root, path)
}
