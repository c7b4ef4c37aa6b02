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
		Name: spec.Name, KeyType: spec.KeyType, SecondKeyType: spec.SecondKeyType, KeyCustody: spec.KeyCustody, Issuer: spec.Issuer, FallbackIssuer: spec.FallbackIssuer,
		Profile: spec.Profile, PreferredChain: spec.PreferredChain,
		Renewal: manifest.Renewal{DaysBeforeExpiry: spec.DaysBeforeExpiry},
	}
	if spec.KeepKey {
		c.Renewal.Key = "keep"
	}
	c.Review = spec.Review
	for _, text := range spec.Waves {
		wave, err := manifest.ParseWave(text)
		if err != nil {
			wave = manifest.Wave{} // for the check that follows to refuse
		}
		c.Waves = append(c.Waves, wave)
	}
	for _, name := range spec.Names {
		c.Names = append(c.Names, asciiName(name))
	}
	if spec.Challenge != nil {
		ch := manifest.Challenge(*spec.Challenge)
		c.Challenge = &ch
	}
	for _, named := range spec.Challenges {
		wish := manifest.NamedChallenge{Challenge: manifest.Challenge(named.Challenge)}
		for _, name := range named.Names {
			wish.Names = append(wish.Names, asciiName(name))
		}
		c.Challenges = append(c.Challenges, wish)
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

// check says everything that is wrong with a new certificate on main as it stands in tree. No message repeats what was
// submitted.
func check(c *manifest.Certificate, tree *manifest.Tree) error {
	var f faults
	f.add("body.name", manifest.ValidName(c.Name))
	f.names(c.Names)
	f.all(tree.References(c))
	if len(f) == 0 {
		// What remains is about the document as a whole; its texts name keys and never values.
		f.whole(c.Validate())
	}
	if len(f) == 0 {
		f.all(tree.Conflicts(c))
	}
	if len(f) == 0 {
		return nil
	}
	return &hub.Error{Class: hub.ErrInvalid, Message: "the certificate has faults: mend them and send it again", Faults: f}
}

// treeOf is what people wish in snapshot, as a whole.
func treeOf(snapshot *gitstore.Snapshot) *manifest.Tree {
	return &manifest.Tree{Certificates: snapshot.Certificates, Servers: snapshot.Servers, Issuers: snapshot.Issuers}
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

func (f *faults) all(found []manifest.Fault) {
	for _, fault := range found {
		*f = append(*f, hub.Fault{Location: "body." + fault.Key, Message: fault.Message})
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
