// This file says what a change of main would lead to, before it is made.

package intent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// effects is what a change of main leads to.
type effects struct {
	// Issue are certificates that will be issued, with the reason; Drop are those that nobody wishes any more.
	Issue map[string]string
	Drop  []string
	// Keep are certificates that change without a new issue.
	Keep map[string]string
	// Servers are the servers whose state changes.
	Servers []string
	// Other are further things to know, in sentences.
	Other []string
}

// effectsOf compares two states of main.
func effectsOf(before, after *gitstore.Snapshot, changes []gitrepo.FileChange) *effects {
	e := &effects{Issue: map[string]string{}, Keep: map[string]string{}}
	for _, c := range changes {
		dir, file, _ := strings.Cut(c.Path, "/")
		name := strings.TrimSuffix(file, ".yaml")
		switch dir {
		case "certificates":
			e.certificate(name, before, after)
		case "servers":
			e.server(name, before.Servers[name], after.Servers[name])
		case "issuers":
			e.issuer(name, before.Issuers[name], after.Issuers[name])
		}
	}
	e.placed(before, after)
	return e
}

func (e *effects) certificate(name string, before, after *gitstore.Snapshot) {
	was, now := before.Certificates[name], after.Certificates[name]
	switch {
	case now == nil:
		e.Drop = append(e.Drop, name)
	case was == nil || after.Issued[name] == nil:
		e.Issue[name] = "new"
	case !slices.Equal(sortedNames(was.Names), sortedNames(now.Names)):
		e.Issue[name] = "its names change"
	case was.KeyType != now.KeyType:
		e.Issue[name] = "its key type changes"
	case was.Issuer != now.Issuer:
		e.Issue[name] = "its issuer changes"
	case was.Renewal.Paused != now.Renewal.Paused:
		e.Keep[name] = map[bool]string{true: "its renewal is paused", false: "its renewal goes on"}[now.Renewal.Paused]
	default:
		e.Keep[name] = "no new issue is needed"
	}
}

func sortedNames(names []string) []string { return slices.Sorted(slices.Values(names)) }

func (e *effects) server(name string, was, now *manifest.Server) {
	switch {
	case now == nil:
		e.Other = append(e.Other, "server "+name+": removed from intent; it gets no certificates any more")
	case was == nil:
		e.Other = append(e.Other, "server "+name+": new in intent; it gets certificates once it is enrolled and approved")
	case was.Hold == nil && now.Hold != nil:
		e.Other = append(e.Other, "server "+name+": held at "+now.Hold.Commit[:min(7, len(now.Hold.Commit))])
	case was.Hold != nil && now.Hold == nil:
		e.Other = append(e.Other, "server "+name+": resumed")
	}
}

func (e *effects) issuer(name string, was, now *manifest.Issuer) {
	switch {
	case now == nil:
		e.Other = append(e.Other, "issuer "+name+": removed")
	case was == nil:
		e.Other = append(e.Other, "issuer "+name+": new")
	default:
		e.Other = append(e.Other, "issuer "+name+": changed, for renewals from now on")
	}
}

// placed finds the servers whose deployments change, or that get a new issue.
func (e *effects) placed(before, after *gitstore.Snapshot) {
	was, now := placesByServer(before), placesByServer(after)
	affected := map[string]bool{}
	for server, places := range now {
		if places != was[server] {
			affected[server] = true
		}
	}
	for server := range was {
		if _, ok := now[server]; !ok {
			affected[server] = true
		}
	}
	for name := range e.Issue {
		for _, p := range places(after.Certificates[name], after) {
			affected[p.server] = true
		}
	}
	e.Servers = sortedKeys(affected)
}

// placesByServer lists what each server is to hold, as one text.
func placesByServer(snapshot *gitstore.Snapshot) map[string]string {
	all := map[string]string{}
	for _, name := range sortedKeys(snapshot.Certificates) {
		for _, p := range places(snapshot.Certificates[name], snapshot) {
			all[p.server] += name + " " + p.deployer + " " + p.target + "\n"
		}
	}
	for name, server := range snapshot.Servers {
		if server.Hold != nil {
			all[name] = "held at " + server.Hold.Commit
		}
	}
	return all
}

// lines tells a person.
func (e *effects) lines() []string {
	var out []string
	for _, name := range sortedKeys(e.Issue) {
		out = append(out, fmt.Sprintf("certificate %s: will be issued (%s)", name, e.Issue[name]))
	}
	for _, name := range sortedKeys(e.Keep) {
		out = append(out, fmt.Sprintf("certificate %s: %s", name, e.Keep[name]))
	}
	for _, name := range e.Drop {
		out = append(out, "certificate "+name+": no longer renewed or deployed; servers keep the files that they have")
	}
	out = append(out, e.Other...)
	switch n := len(e.Servers); {
	case n == 0:
		out = append(out, "no server changes")
	case n <= 5:
		out = append(out, "servers that change: "+strings.Join(e.Servers, ", "))
	default:
		out = append(out, fmt.Sprintf("servers that change: %s and %d more", strings.Join(e.Servers[:5], ", "), n-5))
	}
	return out
}
