// This file checks documents of main against each other: what one of them names must exist, and no two certificates may
// go to one target.

package manifest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tree is what people wish, as a whole. Its maps must not change once it was asked something. It is for one goroutine.
type Tree struct {
	Certificates map[string]*Certificate
	Servers      map[string]*Server
	Issuers      map[string]*Issuer
	// Partial says that documents may be missing here which exist elsewhere: a folder of the tree that is empty says
	// nothing about what there is.
	Partial bool

	selected map[string][]string
	byTarget map[target][]wish
	taken    map[target]map[string][]string
}

// target is a place without its server.
type target struct{ deployer, name string }

// wish is a certificate with the deployment that asks for a target.
type wish struct {
	certificate string
	placement   *Placement
}

// Place is one target on one server.
type Place struct{ Server, Deployer, Target string }

// IndexedPlace is a Place and the number of the deployment that asks for it, from 0.
type IndexedPlace struct {
	Place

	Index int
}

// Places lists where the servers of the tree would hold c.
func (t *Tree) Places(c *Certificate) []IndexedPlace {
	var all []IndexedPlace
	for i, p := range c.Deployments {
		if p.Server != "" {
			all = append(all, IndexedPlace{Place{p.Server, p.Deployer, p.Target}, i})
			continue
		}
		for _, server := range t.selects(p.Selector) {
			all = append(all, IndexedPlace{Place{server, p.Deployer, p.Target}, i})
		}
	}
	return all
}

// selects lists the servers that a selector means, by name. Many certificates share a selector, hence the memory.
func (t *Tree) selects(selector string) []string {
	if servers, known := t.selected[selector]; known {
		return servers
	}
	var servers []string
	if s, err := ParseSelector(selector); err == nil {
		for name, server := range t.Servers {
			if s.Matches(server.Labels) {
				servers = append(servers, name)
			}
		}
	}
	slices.Sort(servers)
	if t.selected == nil {
		t.selected = map[string][]string{}
	}
	t.selected[selector] = servers
	return servers
}

// wishes lists who asks for a target on any server, by the certificates' names.
func (t *Tree) wishes(at target) []wish {
	if t.byTarget == nil {
		t.byTarget = map[target][]wish{}
		for _, name := range slices.Sorted(maps.Keys(t.Certificates)) {
			deployments := t.Certificates[name].Deployments
			for i := range deployments {
				key := target{deployments[i].Deployer, deployments[i].Target}
				t.byTarget[key] = append(t.byTarget[key], wish{name, &deployments[i]})
			}
			// A tree of files has the seconds in the files of the first ones only.
			if second := t.Certificates[name].Second(); second != nil && t.Certificates[second.Name] == nil {
				for i := range second.Deployments {
					key := target{second.Deployments[i].Deployer, second.Deployments[i].Target}
					t.byTarget[key] = append(t.byTarget[key], wish{second.Name, &second.Deployments[i]})
				}
			}
		}
	}
	return t.byTarget[at]
}

// takers lists the certificates at a place, by name. Targets that nobody asked about cost nothing.
func (t *Tree) takers(p Place) []string {
	at := target{p.Deployer, p.Target}
	servers, known := t.taken[at]
	if !known {
		servers = map[string][]string{}
		for _, w := range t.wishes(at) {
			holders := []string{w.placement.Server}
			if w.placement.Server == "" {
				holders = t.selects(w.placement.Selector)
			}
			for _, server := range holders {
				if have := servers[server]; len(have) == 0 || have[len(have)-1] != w.certificate {
					servers[server] = append(have, w.certificate)
				}
			}
		}
		if t.taken == nil {
			t.taken = map[target]map[string][]string{}
		}
		t.taken[at] = servers
	}
	return servers[p.Server]
}

// References says which documents c names that are not in the tree, and what c lacks for its issuer. No message
// repeats what c says.
func (t *Tree) References(c *Certificate) []Fault {
	var all []Fault
	issuer, ok := t.Issuers[c.Issuer]
	switch {
	case ok && issuer.Type == "acmesh" && c.Challenge == nil && len(c.Challenges) == 0:
		all = append(all, Fault{Key: "challenge", Message: "this issuer has to know how control of the names is proven"})
	case !ok && (!t.Partial || len(t.Issuers) > 0):
		known := strings.Join(slices.Sorted(maps.Keys(t.Issuers)), ", ")
		if known == "" {
			known = "none"
		}
		all = append(all, Fault{Key: "issuer", Message: "no such issuer; there are: " + known})
	}
	if _, ok := t.Issuers[c.FallbackIssuer]; !ok && c.FallbackIssuer != "" && (!t.Partial || len(t.Issuers) > 0) {
		all = append(all, Fault{Key: "fallbackIssuer", Message: "no such issuer"})
	}
	for i, p := range c.Deployments {
		if p.Server == "" || ValidName(p.Server) != nil || t.Partial && len(t.Servers) == 0 {
			continue // a selector may wait for servers that come later
		}
		if _, ok := t.Servers[p.Server]; !ok {
			all = append(all, Fault{
				Key:     fmt.Sprintf("deployments[%d].server", i),
				Message: "no such server: enrol it first (certferry server token makes its join token)",
			})
		}
	}
	return all
}

// Conflicts says which targets of c another certificate of the tree is at already.
func (t *Tree) Conflicts(c *Certificate) []Fault {
	all := t.conflicts(c, "target")
	if second := c.Second(); second != nil {
		all = append(all, t.conflicts(second, "secondTarget")...)
	}
	return all
}

func (t *Tree) conflicts(c *Certificate, key string) []Fault {
	var all []Fault
	for _, p := range t.Places(c) {
		for _, other := range t.takers(p.Place) {
			if other != c.Name {
				all = append(all, Fault{
					Key:     fmt.Sprintf("deployments[%d].%s", p.Index, key),
					Message: fmt.Sprintf("on server %s the certificate %s is at this target already", p.Server, other),
				})
				break
			}
		}
	}
	return all
}

// Crowded says which certificates meet at one target of a server, as new labels may bring about.
func (t *Tree) Crowded(server string) []Fault {
	t.wishes(target{}) // fills the index
	there := t.Servers[server]
	var all []Fault
	for _, at := range slices.SortedFunc(maps.Keys(t.byTarget), func(a, b target) int {
		return strings.Compare(a.deployer+" "+a.name, b.deployer+" "+b.name)
	}) {
		var names []string
		for _, w := range t.byTarget[at] {
			if w.placement.on(server, there) && (len(names) == 0 || names[len(names)-1] != w.certificate) {
				names = append(names, w.certificate)
			}
		}
		if len(names) > 1 {
			all = append(all, Fault{Key: "labels", Message: fmt.Sprintf(
				"with these labels the certificates %s would be at one target, %s of %s", strings.Join(names, " and "), at.name, at.deployer)})
		}
	}
	return all
}

// on says whether a deployment is for a server of that name.
func (p *Placement) on(name string, server *Server) bool {
	if p.Server != "" {
		return p.Server == name
	}
	selector, err := ParseSelector(p.Selector)
	return err == nil && server != nil && selector.Matches(server.Labels)
}

// FileFault is a fault in a file of main.
type FileFault struct {
	Path string
	Fault
}

// String is how compilers put it: path, line, column, reason.
func (f FileFault) String() string {
	switch {
	case f.Line == 0:
		return f.Path + ": " + f.Fault.String()
	case f.Column == 0:
		return fmt.Sprintf("%s:%d: %s", f.Path, f.Line, f.Fault)
	default:
		return fmt.Sprintf("%s:%d:%d: %s", f.Path, f.Line, f.Column, f.Fault)
	}
}

// Lint checks the files of certificates/, servers/ and issuers/, by path, each alone and all together, as far as they
// tell: what the hub alone knows is not asked. The faults are sorted by path and line.
func Lint(files map[string][]byte) []FileFault {
	l := &linter{files: files, tree: &Tree{
		Certificates: map[string]*Certificate{}, Servers: map[string]*Server{}, Issuers: map[string]*Issuer{}, Partial: true,
	}}
	paths := slices.Sorted(maps.Keys(files))
	for _, path := range paths {
		l.decode(path)
	}
	for _, path := range paths {
		l.together(path)
	}
	slices.SortStableFunc(l.faults, func(a, b FileFault) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return l.faults
}

// linter is the work on some files.
type linter struct {
	files  map[string][]byte
	tree   *Tree
	faults []FileFault
}

func (l *linter) add(path string, faults ...Fault) {
	for _, f := range faults {
		if f.Line == 0 && f.Key != "" {
			f.Line, f.Column = find(l.files[path], f.Key)
		}
		l.faults = append(l.faults, FileFault{path, f})
	}
}

// decode reads one file into the tree.
func (l *linter) decode(path string) {
	dir, file, _ := strings.Cut(path, "/")
	name, isYAML := strings.CutSuffix(file, ".yaml")
	if !isYAML || ValidName(name) != nil {
		l.add(path, Fault{Message: "does not belong here: files are called NAME.yaml, in lower-case letters, digits, dots, hyphens and underscores"})
		return
	}
	var err error
	switch dir {
	case "certificates":
		err = keep(l.tree.Certificates, name, l.files[path], DecodeCertificate, func(c *Certificate) string { return c.Name })
	case "servers":
		err = keep(l.tree.Servers, name, l.files[path], DecodeServer, func(s *Server) string { return s.Name })
	case "issuers":
		err = keep(l.tree.Issuers, name, l.files[path], DecodeIssuer, func(i *Issuer) string { return i.Name })
	default:
		err = errors.New("does not belong here")
	}
	l.add(path, Faults(err)...)
}

// keep decodes a document. One with faults stands for itself empty, so that what others say of it is not wrong too.
func keep[T any](to map[string]*T, name string, data []byte, decode func([]byte) (*T, error), nameOf func(*T) string) error {
	v, err := decode(data)
	if err != nil {
		to[name] = new(T)
		return err
	}
	to[name] = v
	if nameOf(v) != name {
		line, column := find(data, "name")
		return &faultError{key: "name", line: line, column: column, err: errors.New("differs from the file's")}
	}
	return nil
}

// together checks one file beside the others.
func (l *linter) together(path string) {
	dir, file, _ := strings.Cut(path, "/")
	name := strings.TrimSuffix(file, ".yaml")
	if c := l.tree.Certificates[name]; dir == "certificates" && c != nil && c.Name == name {
		l.add(path, l.tree.References(c)...)
		l.add(path, l.tree.Conflicts(c)...)
	}
}
