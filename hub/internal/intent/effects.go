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

// holding is what one server is to hold, as lines of certificate, deployer and target.
type holding map[string]struct{}

// comparison is the work on two states.
type comparison struct {
	*effects

	service       *Service
	before, after *gitstore.Snapshot
	tree          *manifest.Tree // of after
	// was and now are what servers are to hold, by server.
	was, now map[string]holding
	affected map[string]bool
}

// effectsOf compares two states of main that differ in the files of changes.
func (s *Service) effectsOf(before, after *gitstore.Snapshot, changes []gitrepo.FileChange) *effects {
	c := &comparison{
		effects: &effects{}, service: s, before: before, after: after, tree: treeOf(after), affected: map[string]bool{},
	}
	c.was, c.now = holdings(treeOf(before)), holdings(c.tree)
	certificates := map[string]bool{}
	for _, change := range changes {
		dir, file, _ := strings.Cut(change.Path, "/")
		name := strings.TrimSuffix(file, ".yaml")
		switch dir {
		case "certificates":
			certificates[name] = true
		case "servers":
			c.server(name, before.Servers[name], after.Servers[name])
		case "issuers":
			c.issuer(name, before.Issuers[name], after.Issuers[name])
		}
	}
	moved := c.moved()
	for name := range moved {
		certificates[name] = true
	}
	for _, name := range sortedKeys(certificates) {
		c.certificate(name, moved[name])
	}
	c.Servers = sortedKeys(c.affected)
	return c.effects
}

// holdings says what each server of a state is to hold.
func holdings(tree *manifest.Tree) map[string]holding {
	all := map[string]holding{}
	for name, certificate := range tree.Certificates {
		for _, p := range tree.Places(certificate) {
			if all[p.Server] == nil {
				all[p.Server] = holding{}
			}
			all[p.Server][name+" "+p.Deployer+" "+p.Target] = struct{}{}
		}
	}
	return all
}

// moved finds the servers whose deployments change, and the certificates that come, go or move on them.
func (c *comparison) moved() map[string]bool {
	names := map[string]bool{}
	differ := func(server string, a, b holding) {
		for line := range a {
			if _, there := b[line]; there {
				continue
			}
			name, _, _ := strings.Cut(line, " ")
			names[name] = true
			if c.changes(server) {
				c.affected[server] = true
			}
		}
	}
	for server, have := range c.now {
		differ(server, have, c.was[server])
	}
	for server, have := range c.was {
		differ(server, have, c.now[server])
	}
	return names
}

// changes says whether a server follows main: one that is held does not.
func (c *comparison) changes(server string) bool {
	s := c.after.Servers[server]
	return s == nil || s.Hold == nil
}

// certificate says what becomes of a certificate whose file or whose places changed.
func (c *comparison) certificate(name string, moved bool) {
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
	item.Action, item.Reason = c.action(name, moved)
	issued := item.Action == apiv1.PlanIssue || item.Action == apiv1.PlanReissue
	had, servers := 0, map[string]bool{}
	for _, p := range c.tree.Places(now) {
		if servers[p.Server] {
			continue
		}
		servers[p.Server] = true
		if c.was[p.Server].has(name) {
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

// has says whether a server holds a certificate at any target.
func (h holding) has(name string) bool {
	for line := range h {
		if strings.HasPrefix(line, name+" ") {
			return true
		}
	}
	return false
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
func (c *comparison) action(name string, moved bool) (action, reason string) {
	was, now, have := c.before.Certificates[name], c.after.Certificates[name], c.after.Issued[name]
	reason, due := c.service.cfg.Due(now, have, c.service.cfg.Now())
	switch {
	case due && have == nil:
		return apiv1.PlanIssue, "new"
	case due:
		return apiv1.PlanReissue, reason
	case moved && have != nil:
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
