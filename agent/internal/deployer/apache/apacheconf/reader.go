// This file follows a configuration: sections, variables, and the directives that count.

package apacheconf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

// builtIn are the modules that Debian compiles in; other builds have them as well, or load them by name.
var builtIn = []string{"core.c", "mod_so.c", "mod_watchdog.c", "http_core.c", "mod_log_config.c", "mod_logio.c", "mod_version.c", "mod_unixd.c"}

// reader is the state of one parse.
type reader struct {
	files    Files
	handlers map[string]handler
	version  string
	root     string
	defines  map[string]bool
	// variables are those of Define, by lower-case name: httpd keeps them so.
	variables   map[string]string
	environment map[string]string
	modules     map[string]bool
	macros      map[string]*macro

	listens []address
	servers []*server
	// server is the one that directives count for now, the first of servers outside any virtual host.
	server  *server
	managed map[string]bool // names that mod_md cares for

	// stack are the files and macros that are being read.
	stack                 []string
	depth, includes, size int
	stopped               bool
	faults, notes         []agent.Fault
	// incomplete are the variables of the directive at hand that are not known.
	incomplete []string
}

func newReader(files Files, o Options) *reader {
	r := &reader{
		files: files, handlers: handlers(), version: o.Version, root: o.ServerRoot,
		defines: make(map[string]bool), variables: make(map[string]string), environment: make(map[string]string),
		modules: make(map[string]bool), macros: make(map[string]*macro), managed: make(map[string]bool),
	}
	for _, name := range o.Defines {
		r.defines[name] = true
	}
	for _, entry := range o.Environment {
		if name, value, ok := strings.Cut(entry, "="); ok {
			r.environment[name] = value
		}
	}
	modules := o.Modules
	if len(modules) == 0 {
		modules = builtIn
	}
	for _, source := range modules {
		r.modules[source] = true
		if name, ok := strings.CutPrefix(strings.TrimSuffix(source, ".c"), "mod_"); ok {
			r.modules[name+"_module"] = true
		}
	}
	r.server = &server{}
	r.servers = []*server{r.server}
	return r
}

func (r *reader) fault(l line, format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, agent.Fault{File: l.file, Line: l.number, Message: clip(fmt.Sprintf(format, args...))})
	}
}

func (r *reader) note(l line, format string, args ...any) {
	if len(r.notes) < maxFaults {
		r.notes = append(r.notes, agent.Fault{File: l.file, Line: l.number, Message: clip(fmt.Sprintf(format, args...))})
	}
}

// clip keeps a message short: it may quote what stands in the file.
func clip(message string) string {
	const longest = 500
	if len(message) <= longest {
		return message
	}
	return strings.ToValidUTF8(message[:longest], "") + "…"
}

// spend counts what is read against the bounds of a parse.
func (r *reader) spend(l line, size int) bool {
	r.includes++
	r.size += size
	if !r.stopped && (r.includes > maxIncludes || r.size > maxSize) {
		r.stopped = true
		r.fault(l, "the configuration is too large: more than %d files or %d bytes, counted as often as they are included", maxIncludes, maxSize)
	}
	return !r.stopped
}

// enter and leave count the nesting.
func (r *reader) enter(l line) bool {
	if r.depth >= maxNesting {
		r.fault(l, "sections, includes and macros stand too deep in each other")
		return false
	}
	r.depth++
	return true
}

func (r *reader) leave() { r.depth-- }

// read follows t up to the end of section, or to the end of t where that is empty.
func (r *reader) read(t *text, section string) {
	opened := line{}
	if t.next > 0 {
		opened = t.lines[t.next-1]
	}
	for t.next < len(t.lines) && !r.stopped {
		l := t.lines[t.next]
		t.next++
		name, rest := cutWord(l.text)
		name = strings.ToLower(r.expand(name))
		tag, isTag := strings.CutPrefix(strings.TrimSuffix(name, ">"), "<")
		closing, closes := strings.CutPrefix(tag, "/")
		switch {
		case isTag && closes && closing == section:
			return
		case isTag && closes:
			r.fault(l, "</%s> closes a section that is not open", closing)
			if section != "" {
				return
			}
		case isTag:
			r.open(t, l, tag, inside(rest))
		default:
			r.directive(l, name, rest)
		}
	}
	if section != "" && !r.stopped {
		r.fault(opened, "section <%s> is not closed in its file", section)
	}
}

// skip passes over a section and all that stand in it.
func skip(t *text) {
	for depth := 1; t.next < len(t.lines) && depth > 0; t.next++ {
		switch first := t.lines[t.next].text; {
		case strings.HasPrefix(first, "</"):
			depth--
		case strings.HasPrefix(first, "<"):
			depth++
		}
	}
}

// open follows or passes over the section whose opening tag is l.
func (r *reader) open(t *text, l line, section, arg string) {
	if section == "macro" {
		r.defineMacro(t, l, arg)
		return
	}
	if !r.holds(l, section, r.expand(arg)) || !r.enter(l) {
		skip(t)
		return
	}
	defer r.leave()
	switch section {
	case "virtualhost":
		r.virtualHost(t, l, arg)
	case "mdomainset":
		r.manage(r.words(arg))
		r.read(t, section)
	default:
		// What stands in <Directory>, <Proxy> or <If> belongs to the server around it.
		r.read(t, section)
	}
}

func (r *reader) virtualHost(t *text, l line, arg string) {
	if r.server != r.servers[0] {
		r.fault(l, "a virtual host stands in another one")
		skip(t)
		return
	}
	host := &server{line: l}
	r.incomplete = nil
	for _, word := range r.words(r.expand(arg)) {
		a, err := parseAddress(word)
		if err != nil {
			r.note(l, "read the address of a virtual host: %v", err)
			continue
		}
		host.addresses = append(host.addresses, a)
	}
	if len(r.incomplete) > 0 {
		r.note(l, "variable %s is not known, so that an address of this virtual host is not", strings.Join(slices.Compact(r.incomplete), ", "))
	}
	r.servers = append(r.servers, host)
	r.server = host
	r.read(t, "virtualhost")
	r.server = r.servers[0]
}

// words cuts s into words and puts variables in.
func (r *reader) words(s string) []string {
	var all []string
	for rest := strings.TrimLeftFunc(s, isSpace); rest != ""; {
		var word string
		word, rest = cutWord(rest)
		all = append(all, r.expand(word))
	}
	return all
}

// expand puts in the variables ${NAME}: those of Define, then those of the environment. What is not known stays as
// it is, and is noted in r.incomplete.
func (r *reader) expand(s string) string {
	if !strings.Contains(s, "${") {
		return s
	}
	var out strings.Builder
	for {
		start := strings.Index(s, "${")
		if start < 0 {
			break
		}
		length := strings.IndexByte(s[start:], '}')
		if length < 0 {
			break
		}
		name := s[start+2 : start+length]
		value, known := r.variables[strings.ToLower(name)]
		if !known {
			value, known = r.environment[name]
		}
		if !known {
			r.incomplete = append(r.incomplete, name)
			out.WriteString(s[:start+2])
			s = s[start+2:]
			continue
		}
		out.WriteString(s[:start])
		out.WriteString(value)
		s = s[start+length+1:]
		if out.Len() > maxLine {
			r.incomplete = append(r.incomplete, name)
			return ""
		}
	}
	out.WriteString(s)
	return out.String()
}

// directive takes what counts of one directive.
func (r *reader) directive(l line, name, rest string) {
	handle, ok := r.handlers[name]
	if !ok {
		return
	}
	r.incomplete = nil
	args := r.words(rest)
	missing := slices.Compact(r.incomplete)
	switch {
	case len(missing) > 0 && handle.vital:
		r.fault(l, "variable %s is not known, so that the value of this directive is not", strings.Join(missing, ", "))
	case len(missing) > 0:
		r.note(l, "variable %s is not known, so that the value of this directive is not", strings.Join(missing, ", "))
	case len(args) < handle.least:
		r.fault(l, "the directive has too few values")
	default:
		handle.do(r, l, args)
	}
}

// handler is what is done with a directive.
type handler struct {
	// vital directives decide which certificates are loaded.
	vital bool
	// least is how many values it must have.
	least int
	do    func(r *reader, l line, args []string)
}

// handlers are the directives that count, by lower-case name.
func handlers() map[string]handler {
	return map[string]handler{
		"include":         {vital: true, least: 1, do: func(r *reader, l line, args []string) { r.include(l, args[0], false) }},
		"includeoptional": {vital: true, least: 1, do: func(r *reader, l line, args []string) { r.include(l, args[0], true) }},
		"use":             {vital: true, least: 1, do: (*reader).useMacro},
		"undefmacro":      {vital: true, least: 1, do: func(r *reader, _ line, args []string) { delete(r.macros, strings.ToLower(args[0])) }},
		"define":          {vital: true, least: 1, do: (*reader).define},
		"undefine":        {vital: true, least: 1, do: (*reader).undefine},
		"loadmodule":      {least: 1, do: (*reader).loadModule},
		"serverroot":      {vital: true, least: 1, do: func(r *reader, _ line, args []string) { r.root = r.absolute(args[0]) }},
		"listen":          {least: 1, do: (*reader).listen},

		"servername":  {least: 1, do: func(r *reader, _ line, args []string) { r.server.name = args[0] }},
		"serveralias": {least: 1, do: func(r *reader, _ line, args []string) { r.server.aliases = append(r.server.aliases, args...) }},
		"sslengine":   {vital: true, least: 1, do: func(r *reader, _ line, args []string) { r.server.engine = strings.ToLower(args[0]) }},

		"sslcertificatefile":             {vital: true, least: 1, do: (*reader).certificate},
		"sslcertificatekeyfile":          {vital: true, least: 1, do: (*reader).key},
		"sslcertificatechainfile":        {vital: true, least: 1, do: (*reader).chain},
		"sslproxymachinecertificatefile": {vital: true, least: 1, do: (*reader).client},
		"sslproxymachinecertificatepath": {vital: true, least: 1, do: (*reader).clientFolder},
		"mdomain":                        {least: 1, do: func(r *reader, _ line, args []string) { r.manage(args) }},
		"mdmember":                       {least: 1, do: func(r *reader, _ line, args []string) { r.manage(args) }},
	}
}

func (r *reader) define(_ line, args []string) {
	r.defines[args[0]] = true
	if len(args) > 1 {
		r.variables[strings.ToLower(args[0])] = args[1]
	}
}

func (r *reader) undefine(_ line, args []string) {
	delete(r.defines, args[0])
	delete(r.variables, strings.ToLower(args[0]))
}

// loadModule makes a module known by its symbol and by the name of its source file.
func (r *reader) loadModule(_ line, args []string) {
	symbol := args[0]
	r.modules[symbol] = true
	if name, ok := strings.CutSuffix(symbol, "_module"); ok {
		source := "mod_" + name
		if mpm, ok := strings.CutPrefix(name, "mpm_"); ok {
			source = mpm
		}
		r.modules[source+".c"] = true
	}
}

// manage notes names that mod_md gets certificates for.
func (r *reader) manage(names []string) {
	for _, name := range names {
		r.managed[serverName(name)] = true
	}
}
