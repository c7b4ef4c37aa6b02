// Package nginxconf reads configurations of nginx and its kin (OpenResty, Tengine, Angie) for the certificates in
// them. It reads the files themselves: "nginx -T" prints nothing at all as soon as one certificate is bad. What it
// reads may be broken or hostile: everything is bounded, and what makes no sense is a fault, never an error.
package nginxconf

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

// Files are the files as the nginx instance sees them; paths and patterns are absolute.
type Files interface {
	ReadFile(path string) ([]byte, error)
	Glob(pattern string) ([]string, error)
}

// The bounds. nginx itself refuses a longer word.
const (
	maxWord     = 4096
	maxWords    = 10_000   // of one directive
	maxNesting  = 100      // of blocks
	maxIncludes = 50       // of files in files
	maxFiles    = 100_000  // read, the same one counted each time
	maxBytes    = 64 << 20 // read
	maxEntries  = 100_000  // of all maps
	maxSites    = 50_000   // returned
	maxFaults   = 1000     // returned
	maxBroken   = 10       // syntax errors of one file
	maxSteps    = 300_000  // values of variables
	maxPorts    = 1000     // of one listen directive
)

// Parse reads the configuration that begins with the file config, an absolute path. Names "_" and "" are left out:
// they are nginx's words for a server without a name. A name with a leading dot becomes two, and $hostname what
// /etc/hostname says. A certificate that nginx is told of but does not serve has no listeners.
func Parse(files Files, config string) (sites []agent.Site, faults []agent.Fault) {
	p := &parser{
		files: files, base: path.Dir(config), texts: make(map[string]text), globs: make(map[string]text),
		seen: make(map[agent.Fault]bool), maps: make(map[string]*mapping),
		patterns: make(map[string]*regexp.Regexp),
	}
	main := &scope{}
	p.file(config, position{file: config}, main, 0, 0)
	main.leave(p)
	p.makeSites()
	return p.sites, p.faults
}

// parser holds what is read while it is read.
type parser struct {
	files Files
	// base is the folder of the first file: relative paths begin there, in every file.
	base  string
	texts map[string]text
	globs map[string]text
	// open are the files that include the one that is read.
	open                        []string
	read, bytes, entries, steps int

	servers []*scope
	holders []*scope // the scopes that name certificates
	maps    map[string]*mapping
	// patterns are compiled regular expressions; nil for one that only nginx's library understands.
	patterns map[string]*regexp.Regexp

	sites  []agent.Site
	faults []agent.Fault
	seen   map[agent.Fault]bool
}

// text is a file or the files that match a pattern, read once: a snippet may be included a thousand times.
type text struct {
	data  []byte
	paths []string
	err   error
}

// position is a place in a configuration.
type position struct {
	file string
	line int
}

func (p *parser) fault(at position, format string, args ...any) {
	f := agent.Fault{File: at.file, Line: at.line, Message: fmt.Sprintf(format, args...)}
	switch {
	case p.seen[f] || len(p.faults) > maxFaults:
		return
	case len(p.faults) == maxFaults:
		f = agent.Fault{File: at.file, Message: "there are more faults than are told"}
	}
	p.seen[f] = true
	p.faults = append(p.faults, f)
}

// full makes a path absolute as nginx does. A path with ".." is left as it is: its meaning depends on links.
func (p *parser) full(name string) string {
	if !strings.HasPrefix(name, "/") {
		name = p.base + "/" + name
	}
	if slices.Contains(strings.Split(name, "/"), "..") {
		return name
	}
	return path.Clean(name)
}

func (p *parser) readFile(name string) ([]byte, error) {
	t, ok := p.texts[name]
	if !ok {
		t.data, t.err = p.files.ReadFile(name)
		p.texts[name] = t
	}
	return t.data, t.err
}

func (p *parser) glob(pattern string) ([]string, error) {
	t, ok := p.globs[pattern]
	if !ok {
		t.paths, t.err = p.files.Glob(pattern)
		p.globs[pattern] = t
	}
	return t.paths, t.err
}

// include reads the files that an include directive at the position at names into a block.
func (p *parser) include(name string, at position, in block, nesting, depth int) {
	name = p.full(name)
	if !strings.ContainsAny(name, "*?[") {
		p.file(name, at, in, nesting, depth+1)
		return
	}
	paths, err := p.glob(name)
	if err != nil {
		p.fault(at, "the included files cannot be found: %v", err)
	}
	for _, name := range paths {
		p.file(name, at, in, nesting, depth+1)
	}
}

// file reads one file into a block; at is where it is included.
func (p *parser) file(name string, at position, in block, nesting, depth int) {
	switch {
	case slices.Contains(p.open, name):
		p.fault(at, "%s includes itself", name)
		return
	case depth > maxIncludes:
		p.fault(at, "files include each other more than %d deep", maxIncludes)
		return
	}
	data, err := p.readFile(name)
	if err != nil {
		if depth == 0 {
			at.line = 0
		}
		p.fault(at, "the file cannot be read: %v", err)
		return
	}
	if p.read++; p.read > maxFiles {
		p.fault(position{file: p.open[0]}, "more than %d files are included; the rest is not read", maxFiles)
		return
	}
	if p.bytes += len(data); p.bytes > maxBytes {
		p.fault(position{file: name}, "the configuration is larger than %d MiB; the rest is not read", maxBytes>>20)
		return
	}
	p.open = append(p.open, name)
	defer func() { p.open = p.open[:len(p.open)-1] }()
	r := &reader{parser: p, lexer: newLexer(data), file: name, depth: depth}
	for !r.ended {
		// A closing brace that opens nothing is a fault; what follows is read all the same.
		if r.block(in, nesting) {
			r.broken(r.line, `"}" closes no block`)
		}
	}
}

// block takes the directives of one kind of block.
type block interface {
	// directive takes a directive that ends with a semicolon.
	directive(p *parser, words []string, at position)
	// enter takes a directive that opens a block, and returns what takes the block's content.
	enter(p *parser, words []string, at position) block
	// leave is told the end of the block.
	leave(p *parser)
}

// reader reads one file.
type reader struct {
	*lexer
	parser *parser
	file   string
	depth  int
	errors int
	ended  bool
}

// broken notes a syntax error. A file with many of them is no configuration.
func (r *reader) broken(line int, message string) {
	if r.errors++; r.errors == maxBroken {
		message = "too many syntax errors; the rest of the file is not read"
		r.ended = true
	}
	if r.errors <= maxBroken {
		r.parser.fault(position{r.file, line}, "%s", message)
	}
}

// block reads directives up to the closing brace; false says that the file ended before.
func (r *reader) block(in block, nesting int) (closed bool) {
	for !r.ended {
		s := r.next()
		for _, e := range s.errors {
			r.broken(e.line, e.message)
		}
		at := position{r.file, s.line}
		switch s.end {
		case endOfFile:
			r.ended = true
		case '}':
			return true
		case '{':
			r.enter(in, s.words, at, nesting)
		default:
			if s.words[0] == "include" && len(s.words) == 2 {
				r.parser.include(s.words[1], at, in, nesting, r.depth)
			} else {
				in.directive(r.parser, s.words, at)
			}
		}
	}
	return false
}

func (r *reader) enter(in block, words []string, at position, nesting int) {
	if nesting >= maxNesting {
		r.parser.fault(at, "blocks are nested more than %d deep; the rest of the file is not read", maxNesting)
		r.ended = true
		return
	}
	inner := in.enter(r.parser, words, at)
	var closed bool
	if strings.HasSuffix(words[0], "_by_lua_block") {
		closed = r.skipLua()
	} else {
		closed = r.block(inner, nesting+1)
	}
	inner.leave(r.parser)
	if !closed && r.pos >= len(r.data) {
		r.broken(at.line, "the block is not closed in this file")
	}
}
