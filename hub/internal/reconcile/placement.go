package reconcile

import (
	"slices"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
)

// placements answers which certificates belong on a server without looking at every certificate for every server.
type placements struct {
	// issued are the certificates in use, by name.
	issued   map[string]*manifest.IssuedCertificate
	named    map[string][]slot
	selected []selected
}

type selected struct {
	selector manifest.Selector
	slots    []slot
}

// newPlacements indexes the certificates that were issued: one that was not has nothing to be deployed.
func newPlacements(snapshot *gitstore.Snapshot) *placements {
	p := &placements{issued: snapshot.Issued, named: map[string][]slot{}}
	bySelector := map[string][]slot{}
	for _, name := range sortedKeys(snapshot.Certificates) {
		if snapshot.Issued[name] == nil {
			continue
		}
		for _, d := range snapshot.Certificates[name].Deployments {
			s := slot{certificate: name, deployer: d.Deployer, target: d.Target}
			if d.Server != "" {
				p.named[d.Server] = append(p.named[d.Server], s)
			} else {
				bySelector[d.Selector] = append(bySelector[d.Selector], s)
			}
		}
	}
	for _, text := range sortedKeys(bySelector) {
		// What is on main was validated when it was decoded.
		if selector, err := manifest.ParseSelector(text); err == nil {
			p.selected = append(p.selected, selected{selector, bySelector[text]})
		}
	}
	return p
}

// on returns the slots of a server, in no order. A certificate whose key is on another server is left out.
func (p *placements) on(server string, labels map[string]string) []slot {
	slots := slices.Clone(p.named[server])
	for i := range p.selected {
		if p.selected[i].selector.Matches(labels) {
			slots = append(slots, p.selected[i].slots...)
		}
	}
	return slices.DeleteFunc(slots, func(s slot) bool {
		keeper := p.issued[s.certificate].KeyServer
		return keeper != "" && keeper != server
	})
}
