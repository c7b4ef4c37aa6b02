// Package haproxyconf reads which certificates a HAProxy configuration uses, and where. It starts nothing and changes
// nothing; what it reads was written by others, so that everything is bounded and what it does not understand is a fault.
package haproxyconf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certferry/certferry/agent"
)

// The bounds of one configuration.
const (
	maxFiles = 2000
	maxSites = 50_000
	// maxUses bounds how often certificates are looked at: many binds may share a long list.
	maxUses   = 200_000
	maxFaults = 1000
)

// Files is how configuration files are read; hostfs.FS is one. Paths are absolute.
type Files interface {
	ReadFile(path string) ([]byte, error)
	ReadDir(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
}

// Options are what a HAProxy was started with.
type Options struct {
	// Config are its -f arguments in order: absolute paths of files, or of folders with *.cfg files.
	Config []string
	// Dir is the folder that its relative paths begin at.
	Dir string
	// Env is its environment, as NAME=value.
	Env []string
}

// Parse returns each use of a certificate. The names of a site are those of its crt-list; without, HAProxy takes them
// from the certificate.
func Parse(files Files, o Options) ([]agent.Site, []agent.Fault) {
	p := &parser{
		files: files, dir: o.Dir, workDir: o.Dir, env: make(map[string]string), original: make(map[string]string),
		extra:  map[string]bool{"bundle": true, "key": true},
		stores: make(map[string]*storeEntry), sites: make(map[siteKey]*agent.Site), faulty: make(map[agent.Fault]bool),
		pairs: make(map[string][]pair), lists: make(map[string][]listEntry),
	}
	for _, pair := range o.Env {
		if name, value, ok := strings.Cut(pair, "="); ok {
			p.env[name], p.original[name] = value, value
		}
	}
	if len(o.Config) > 0 {
		p.mainFile = o.Config[0]
	}
	for _, path := range o.Config {
		for _, file := range p.configFiles(path) {
			p.parseFile(file)
		}
	}
	return p.result()
}

type parser struct {
	files Files
	// dir is the folder of relative paths now, workDir that of the process: "default-path" changes the first.
	dir, workDir, defaultPath    string
	env, original                map[string]string
	crtBase, keyBase, unixPrefix string
	// extra are the kinds of files that are looked for beside a certificate; bareExt says that ".crt" gives way to ".key".
	extra   map[string]bool
	bareExt bool

	mainFile   string
	file       string
	line       int
	opened     int
	uses       int
	section    section
	conditions []condition
	stores     map[string]*storeEntry
	pairs      map[string][]pair
	lists      map[string][]listEntry

	// order are the keys of sites, as they were found.
	order  []siteKey
	sites  map[siteKey]*agent.Site
	faults []agent.Fault
	faulty map[agent.Fault]bool
}

// section is the part of a configuration that a line stands in.
type section struct {
	kind, name string
	// defaults are the parameters of "default-bind".
	defaults []word
	// crtBase and keyBase are those of a crt-store.
	crtBase, keyBase string
	// pending are listeners of a proxy of which it is not yet known whether it is disabled.
	pending  []pending
	disabled bool
}

type pending struct {
	site      *agent.Site
	listeners []agent.Listener
}

// sections are the words that begin one.
var sections = map[string]bool{
	"global": true, "defaults": true, "frontend": true, "backend": true, "listen": true, "peers": true, "userlist": true,
	"mailers": true, "resolvers": true, "cache": true, "program": true, "http-errors": true, "ring": true,
	"log-forward": true, "log-profile": true, "crt-store": true, "fcgi-app": true, "traces": true, "acme": true,
	"namespace_list": true, "spoe-agent": true,
}

func (p *parser) fault(format string, args ...any) {
	p.faultAt(p.file, p.line, fmt.Sprintf(format, args...))
}

func (p *parser) faultAt(file string, line int, message string) {
	f := agent.Fault{File: file, Line: line, Message: message}
	if p.faulty[f] || len(p.faults) >= maxFaults {
		return
	}
	p.faulty[f] = true
	p.faults = append(p.faults, f)
}

func (p *parser) result() ([]agent.Site, []agent.Fault) {
	for _, name := range slices.Sorted(maps.Keys(p.stores)) {
		if e := p.stores[name]; !e.used {
			e.used = true // It is known by two names.
			p.addSite(agent.Site{Certificate: e.certificate, Key: e.key, File: e.file, Line: e.line}, nil)
		}
	}
	p.endSection()
	sites := make([]agent.Site, 0, len(p.order))
	for _, key := range p.order {
		sites = append(sites, *p.sites[key])
	}
	return sites, p.faults
}

// read reads one file of the configuration.
func (p *parser) read(path string) (string, bool) {
	if p.opened++; p.opened > maxFiles {
		p.fault("more than %d files; %s is not read", maxFiles, path)
		return "", false
	}
	data, err := p.files.ReadFile(path)
	if err != nil {
		p.fault("%v", err)
		return "", false
	}
	return string(data), true
}

// configFiles are the files that a -f argument means.
func (p *parser) configFiles(path string) []string {
	p.file, p.line = path, 0
	info, err := p.files.Stat(path)
	if err != nil {
		p.fault("%v", err)
		return nil
	}
	if !info.IsDir() {
		return []string{path}
	}
	entries, err := p.files.ReadDir(path)
	if err != nil {
		p.fault("%v", err)
		return nil
	}
	var list []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".cfg") && !strings.HasPrefix(name, ".") {
			list = append(list, filepath.Join(path, name))
		}
	}
	slices.Sort(list)
	return list
}

func (p *parser) parseFile(path string) {
	p.file, p.line = path, 0
	text, ok := p.read(path)
	if !ok {
		return
	}
	p.setDefaultPath()
	for line := range strings.Lines(text) {
		p.line++
		words, err := p.words(line)
		if err != nil {
			p.fault("%v", err)
			continue
		}
		if p.full() {
			return
		}
		if len(words) > 0 && !p.conditional(words) && p.active() {
			p.statement(words)
		}
	}
	if len(p.conditions) > 0 {
		p.fault(".if without .endif")
		p.conditions = nil
	}
}

func (p *parser) statement(words []word) {
	keyword := words[0].text
	if sections[keyword] {
		p.endSection()
		p.section = section{kind: keyword, crtBase: p.crtBase, keyBase: p.keyBase}
		if len(words) > 1 {
			p.section.name = words[1].text
		}
		return
	}
	switch p.section.kind {
	case "global":
		p.global(words)
	case "crt-store":
		p.store(words)
	case "frontend", "backend", "listen", "peers", "log-forward", "ring", "defaults", "fcgi-app":
		p.proxy(words)
	}
}

// endSection gives the sites of a section their listeners, unless the section is disabled.
func (p *parser) endSection() {
	for _, w := range p.section.pending {
		if p.section.disabled {
			break
		}
		for _, l := range w.listeners {
			if !slices.Contains(w.site.Listeners, l) {
				w.site.Listeners = append(w.site.Listeners, l)
			}
		}
	}
	p.section = section{}
}

func (p *parser) proxy(words []word) {
	switch words[0].text {
	case "bind":
		p.bind(words)
	case "default-bind":
		p.section.defaults = words[1:]
	case "disabled":
		p.section.disabled = true
	case "enabled":
		p.section.disabled = false
	case "server", "server-template", "default-server", "peer":
		p.server(words)
	}
}

func (p *parser) global(words []word) {
	argument := func(i int) string {
		if i < len(words) {
			return words[i].text
		}
		return ""
	}
	switch words[0].text {
	case "setenv":
		p.env[argument(1)] = argument(2)
	case "presetenv":
		if _, set := p.env[argument(1)]; !set {
			p.env[argument(1)] = argument(2)
		}
	case "unsetenv":
		for _, w := range words[1:] {
			delete(p.env, w.text)
		}
	case "resetenv":
		p.resetenv(words[1:])
	case "crt-base":
		p.crtBase = p.usable("crt-base", words, 1)
	case "key-base":
		p.keyBase = p.usable("key-base", words, 1)
	case "default-path":
		p.defaultPath = strings.TrimSpace(argument(1) + " " + argument(2))
		p.setDefaultPath()
	case "unix-bind":
		for i := range words {
			if words[i].text == "prefix" {
				p.unixPrefix = argument(i + 1)
			}
		}
	case "ssl-load-extra-del-ext":
		p.bareExt = true
	case "ssl-load-extra-files":
		p.extra = make(map[string]bool)
		for _, w := range words[1:] {
			p.extra[w.text] = true
		}
		if p.extra["all"] {
			p.extra["bundle"], p.extra["key"] = true, true
		}
	}
}

// resetenv keeps those variables that are named, with the values that the process was started with.
func (p *parser) resetenv(names []word) {
	kept := make(map[string]string)
	for _, w := range names {
		if value, ok := p.original[w.text]; ok {
			kept[w.text] = value
		}
	}
	p.env = kept
}

// setDefaultPath says where relative paths of the file that is being read begin.
func (p *parser) setDefaultPath() {
	kind, folder, _ := strings.Cut(p.defaultPath, " ")
	switch kind {
	case "config":
		p.dir = filepath.Dir(p.file)
	case "parent":
		p.dir = filepath.Dir(filepath.Dir(p.file))
	case "origin":
		p.dir = absolute(p.workDir, folder)
	default:
		p.dir = p.workDir
	}
}

// usable returns the word at i, or a fault and nothing if it is missing or holds a variable that is not set.
func (p *parser) usable(what string, words []word, i int) string {
	switch {
	case i >= len(words) || words[i].text == "" && len(words[i].unset) == 0:
		p.fault("%s names nothing", what)
	case len(words[i].unset) > 0:
		p.fault("%s %q: the variable %s is not set", what, words[i].text, strings.Join(words[i].unset, ", "))
	default:
		return words[i].text
	}
	return ""
}

func absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

var errQuote = errors.New("a quote is not closed")
