// This file compares two states of main: what is issued, what goes where.

package intent

import (
	"fmt"
	"maps"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
)

// effects is what a change of main leads to.
type effects struct {
	// Certificates are those whose issue or whose servers change, by name.
	Certificates []apiv1.PlanCertificate
	// Servers are the servers whose state changes, by name.
	Servers []string
	// Notes are further things to know, in sentences.
	Notes []string
}

// comparison is the work on two states.
type comparison struct {
	*effects

	service       *Service
	before, after *gitstore.Snapshot
	was, now      *manifest.Tree
	// moved are the certificates whose places change, affected the servers whose state does.
	moved, affected map[string]bool
}

// effectsOf compares two states of main that differ in the files of changes.
func (s *Service) effectsOf(before, after *gitstore.Snapshot, changes []gitrepo.FileChange) *effects {
	c := &comparison{
		effects: &effects{}, service: s, before: before, after: after, was: treeOf(before), now: treeOf(after),
		moved: map[string]bool{}, affected: map[string]bool{},
	}
	certificates, servers := map[string]bool{}, []string{}
	for _, change := range changes {
		dir, file, _ := strings.Cut(change.Path, "/")
		name := strings.TrimSuffix(file, ".yaml")
		switch dir {
		case "certificates":
			certificates[name] = true
			c.move(name)
		case "servers":
			servers = append(servers, name)
			c.server(name, before.Servers[name], after.Servers[name])
		case "issuers":
			c.issuer(name, before.Issuers[name], after.Issuers[name])
		}
	}
	c.relabel(servers, certificates)
	for name := range c.moved {
		certificates[name] = true
	}
	for _, name := range sortedKeys(certificates) {
		c.certificate(name)
	}
	c.Servers = sortedKeys(c.affected)
	return c.effects
}

// move finds the servers on which a certificate whose document changed comes, goes or moves.
func (c *comparison) move(name string) {
	was, now := placeSet(c.was, c.before.Certificates[name]), placeSet(c.now, c.after.Certificates[name])
	for _, one := range []struct{ a, b map[manifest.Place]bool }{{was, now}, {now, was}} {
		for p := range one.a {
			if !one.b[p] {
				c.touch(name, p.Server)
			}
		}
	}
}

func placeSet(tree *manifest.Tree, certificate *manifest.Certificate) map[manifest.Place]bool {
	set := map[manifest.Place]bool{}
	if certificate != nil {
		for _, p := range tree.Places(certificate) {
			set[p.Place] = true
		}
	}
	return set
}

// relabel finds the certificates that come or go with the labels of servers. Those in known are looked at already.
func (c *comparison) relabel(servers []string, known map[string]bool) {
	if len(servers) == 0 {
		return
	}
	selectors := map[string]manifest.Selector{}
	matches := func(text string, server *manifest.Server) bool {
		selector, parsed := selectors[text]
		if !parsed {
			// What does not parse, which main does not hold, matches nothing.
			selector, _ = manifest.ParseSelector(text)
			selectors[text] = selector
		}
		return server != nil && selector.Matches(server.Labels)
	}
	for name, certificate := range c.after.Certificates {
		if known[name] {
			continue
		}
		for _, d := range certificate.Deployments {
			for _, server := range servers {
				if d.Selector != "" && matches(d.Selector, c.before.Servers[server]) != matches(d.Selector, c.after.Servers[server]) {
					c.touch(name, server)
				}
			}
		}
	}
}

// touch notes that a certificate moves on a server.
func (c *comparison) touch(certificate, server string) {
	c.moved[certificate] = true
	if c.changes(server) {
		c.affected[server] = true
	}
}

// changes says whether a server follows main: one that is held does not.
func (c *comparison) changes(server string) bool {
	s := c.after.Servers[server]
	return s == nil || s.Hold == nil
}

// certificate says what becomes of a certificate whose file or whose places changed.
func (c *comparison) certificate(name string) {
	was, now := c.before.Certificates[name], c.after.Certificates[name]
	if now == nil {
		if was != nil {
			c.Certificates = append(c.Certificates, apiv1.PlanCertificate{
				Name: name, Action: apiv1.PlanRemove, Issuer: was.Issuer,
				Reason: "no longer renewed or deployed; servers keep the files that they have",
			})
		}
		return
	}
	item := apiv1.PlanCertificate{Name: name, Issuer: now.Issuer}
	item.Action, item.Reason = c.action(name)
	issued := item.Action == apiv1.PlanIssue || item.Action == apiv1.PlanReissue
	had, holders, servers := 0, map[string]bool{}, map[string]bool{}
	for p := range placeSet(c.was, was) {
		holders[p.Server] = true
	}
	for p := range placeSet(c.now, now) {
		if servers[p.Server] {
			continue
		}
		servers[p.Server] = true
		if holders[p.Server] {
			had++
		}
		if issued && c.changes(p.Server) {
			c.affected[p.Server] = true
		}
	}
	item.Servers = len(servers)
	if issued {
		item.Review = c.service.reviewOf(now)
	}
	if item.Action == apiv1.PlanReissue {
		// Servers that do not have the certificate yet are not held back.
		if sizes := c.service.wavesOf(now).Sizes(had); len(sizes) > 1 {
			item.Waves = sizes
		}
	}
	c.Certificates = append(c.Certificates, item)
}

// reviewOf is who must agree before an issue goes to servers; empty for nobody.
func (s *Service) reviewOf(c *manifest.Certificate) string {
	if review := manifest.StricterReview(s.cfg.Review, c.Review); review != manifest.ReviewNone {
		return review
	}
	return ""
}

func (s *Service) wavesOf(c *manifest.Certificate) manifest.Waves {
	if len(c.Waves) > 0 {
		return c.Waves
	}
	return s.cfg.Waves
}

// action says what a change of a certificate's document asks for, and why. Whether it is issued is decided by what
// decides it later.
func (c *comparison) action(name string) (action, reason string) {
	was, now, have := c.before.Certificates[name], c.after.Certificates[name], c.after.Issued[name]
	reason, due := c.service.cfg.Due(now, have, c.service.cfg.Now())
	switch {
	case due && have == nil:
		return apiv1.PlanIssue, "new"
	case due:
		return apiv1.PlanReissue, reason
	case c.moved[name] && have != nil:
		return apiv1.PlanDeploy, "its servers or targets change"
	case now.Renewal.Paused && (was == nil || !was.Renewal.Paused):
		return apiv1.PlanChange, "its renewal is paused"
	case was != nil && was.Renewal.Paused && !now.Renewal.Paused:
		return apiv1.PlanChange, "its renewal goes on"
	default:
		return apiv1.PlanChange, "no new issue is needed"
	}
}

func (c *comparison) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

func (c *comparison) server(name string, was, now *manifest.Server) {
	switch {
	case now == nil:
		c.note("server %s: removed from intent; it gets no certificates any more", name)
		return
	case was == nil:
		c.note("server %s: new in intent; it gets certificates once it is enrolled and approved", name)
	case !maps.Equal(was.Labels, now.Labels):
		c.note("server %s: its labels change", name)
	}
	before := ""
	if was != nil && was.Hold != nil {
		before = was.Hold.Commit
	}
	switch {
	case now.Hold != nil && now.Hold.Commit != before:
		c.note("server %s: held at %s", name, now.Hold.Commit[:min(7, len(now.Hold.Commit))])
		c.affected[name] = true
	case now.Hold == nil && before != "":
		c.note("server %s: resumed", name)
		c.affected[name] = true
	}
}

func (c *comparison) issuer(name string, was, now *manifest.Issuer) {
	switch {
	case now == nil:
		c.note("issuer %s: removed", name)
	case was == nil:
		c.note("issuer %s: new", name)
	default:
		c.note("issuer %s: changed, for renewals from now on", name)
	}
}

// lines tells a person.
func (e *effects) lines() []string {
	var out []string
	for _, c := range e.Certificates {
		out = append(out, "certificate "+c.Name+": "+sentence(c))
	}
	out = append(out, e.Notes...)
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

// sentence says what becomes of a certificate.
func sentence(c apiv1.PlanCertificate) string {
	where := fmt.Sprintf("%d servers", c.Servers)
	if c.Servers == 1 {
		where = "1 server"
	}
	var text string
	switch c.Action {
	case apiv1.PlanIssue:
		text = fmt.Sprintf("will be issued (%s) by %s, goes to %s", c.Reason, c.Issuer, where)
	case apiv1.PlanReissue:
		text = fmt.Sprintf("will be issued again (%s) by %s, goes to %s", c.Reason, c.Issuer, where)
	case apiv1.PlanDeploy:
		return fmt.Sprintf("%s; it goes to %s as it is", c.Reason, where)
	default:
		return c.Reason
	}
	if len(c.Waves) > 0 {
		text += fmt.Sprintf(" in %d waves", len(c.Waves))
	}
	if c.Review != "" {
		text += ", after review"
	}
	return text
}
