package intent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/idna"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// certificateOf turns what the API was given into the document, DNS names as A-labels in lower case.
func certificateOf(spec apiv1.CertificateSpec) *manifest.Certificate {
	c := &manifest.Certificate{
		APIVersion: manifest.APIVersion, Kind: manifest.KindCertificate,
		Name: spec.Name, KeyType: spec.KeyType, Issuer: spec.Issuer,
		Renewal: manifest.Renewal{DaysBeforeExpiry: spec.DaysBeforeExpiry},
	}
	if spec.KeepKey {
		c.Renewal.Key = "keep"
	}
	for _, name := range spec.Names {
		c.Names = append(c.Names, asciiName(name))
	}
	if ch := spec.Challenge; ch != nil {
		c.Challenge = &manifest.Challenge{
			Type: ch.Type, Method: ch.Method, Webroot: ch.Webroot, Hook: ch.Hook, Credential: ch.Credential,
		}
	}
	for _, p := range spec.Deployments {
		c.Deployments = append(c.Deployments, manifest.Placement(p))
	}
	return c
}

// asciiName writes an international name as A-labels (RFC 5891). A name that has none comes back as it is, for the
// check that follows to refuse.
func asciiName(name string) string {
	host, wildcard := strings.CutPrefix(name, "*.")
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		return name
	}
	if wildcard {
		return "*." + ascii
	}
	return ascii
}

// check says everything that is wrong with a new certificate on main as it stands in snapshot. No message repeats
// what was submitted.
func check(c *manifest.Certificate, snapshot *gitstore.Snapshot) error {
	var f faults
	f.add("body.name", manifest.ValidName(c.Name))
	f.names(c.Names)
	f.issuer(c, snapshot)
	for i, p := range c.Deployments {
		f.placement(fmt.Sprintf("body.deployments[%d]", i), p, snapshot)
	}
	if len(f) == 0 {
		// What remains is about the document as a whole; its texts name keys and never values.
		f.whole(c.Validate())
	}
	if len(f) == 0 {
		f.targets(c, snapshot)
	}
	if len(f) == 0 {
		return nil
	}
	return &hub.Error{Class: hub.ErrInvalid, Message: "the certificate has faults: mend them and send it again", Faults: f}
}

type faults []hub.Fault

func (f *faults) add(location string, err error) {
	if err != nil {
		*f = append(*f, hub.Fault{Location: location, Message: err.Error()})
	}
}

func (f *faults) whole(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			f.whole(e)
		}
		return
	}
	f.add("body", errors.New(strings.TrimPrefix(err.Error(), "check certificate: ")))
}

func (f *faults) names(names []string) {
	if len(names) == 0 {
		f.add("body.names", errors.New("give at least one DNS name"))
	}
	for i, name := range names {
		location := fmt.Sprintf("body.names[%d]", i)
		f.add(location, manifest.ValidDNSName(name))
		if slices.Contains(names[:i], name) {
			f.add(location, errors.New("stands there twice"))
		}
	}
}

func (f *faults) issuer(c *manifest.Certificate, snapshot *gitstore.Snapshot) {
	issuer, ok := snapshot.Issuers[c.Issuer]
	switch {
	case !ok:
		known := strings.Join(sortedKeys(snapshot.Issuers), ", ")
		if known == "" {
			known = "none"
		}
		f.add("body.issuer", errors.New("no such issuer; there are: "+known))
	case issuer.Type == "acmesh" && c.Challenge == nil:
		f.add("body.challenge", errors.New("this issuer has to know how control of the names is proven"))
	}
}

func (f *faults) placement(location string, p manifest.Placement, snapshot *gitstore.Snapshot) {
	if p.Server == "" {
		return // a selector may wait for servers that come later
	}
	if _, ok := snapshot.Servers[p.Server]; !ok && manifest.ValidName(p.Server) == nil {
		f.add(location+".server", errors.New("no such server: enrol it first (certferry server token makes its join token)"))
	}
}

// targets refuses to put two certificates at one target of one server.
func (f *faults) targets(c *manifest.Certificate, snapshot *gitstore.Snapshot) {
	taken := map[place]string{}
	for _, name := range sortedKeys(snapshot.Certificates) {
		for _, p := range places(snapshot.Certificates[name], snapshot) {
			taken[p.place] = name
		}
	}
	for _, p := range places(c, snapshot) {
		if other, ok := taken[p.place]; ok {
			f.add(fmt.Sprintf("body.deployments[%d].target", p.index),
				fmt.Errorf("on server %s the certificate %s is at this target already", p.server, other))
		}
	}
}

// place is one target on one server.
type place struct{ server, deployer, target string }

type indexedPlace struct {
	place

	index int
}

// places lists where the servers that are known today would hold c.
func places(c *manifest.Certificate, snapshot *gitstore.Snapshot) []indexedPlace {
	var all []indexedPlace
	for i, p := range c.Deployments {
		if p.Server != "" {
			all = append(all, indexedPlace{place{p.Server, p.Deployer, p.Target}, i})
			continue
		}
		selector, err := manifest.ParseSelector(p.Selector)
		if err != nil {
			continue
		}
		for _, name := range sortedKeys(snapshot.Servers) {
			if selector.Matches(snapshot.Servers[name].Labels) {
				all = append(all, indexedPlace{place{name, p.Deployer, p.Target}, i})
			}
		}
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
