package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/gitstore/manifest"
)

// TestLint says everything that is wrong with a tree, with its place, and nothing that is not.
func TestLint(t *testing.T) {
	t.Parallel()
	const private = "name: private-ca\ntype: privateca\n"
	site := func(name, server string) string {
		return "name: " + name + "\nnames: [" + name + ".test]\nissuer: private-ca\ndeployments:\n  - " + server + "\n    deployer: nginx\n    target: site\n"
	}
	for name, tc := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"good": {map[string]string{
			"issuers/private-ca.yaml": private, "servers/web-1.yaml": "name: web-1\nlabels: {role: edge}\n",
			"certificates/a.yaml": site("a", "server: web-1"),
		}, nil},
		"a selector of nobody": {map[string]string{
			"issuers/private-ca.yaml": private, "servers/web-1.yaml": "name: web-1\n", "certificates/a.yaml": site("a", "selector: role=edge"),
		}, nil},
		"a part of main": {map[string]string{"certificates/a.yaml": site("a", "server: web-1")}, nil},
		"no such issuer": {map[string]string{
			"issuers/le.yaml": "name: le\ntype: privateca\n", "certificates/a.yaml": site("a", "server: web-1"),
		}, []string{"certificates/a.yaml:3:1: issuer: no such issuer; there are: le"}},
		"no such server": {map[string]string{
			"servers/web-2.yaml": "name: web-2\n", "certificates/a.yaml": site("a", "server: web-1"),
		}, []string{"certificates/a.yaml:5:5: deployments[0].server: no such server: enrol it first (certferry server token makes its join token)"}},
		"no challenge": {map[string]string{
			"issuers/le.yaml":     "name: le\ntype: acmesh\nacme: {directory: 'https://ca.example/dir'}\n",
			"certificates/a.yaml": "name: a\nnames: [a.test]\nissuer: le\n",
		}, []string{"certificates/a.yaml:1:1: challenge: this issuer has to know how control of the names is proven"}},
		"one target by name and by labels": {map[string]string{
			"servers/web-1.yaml":  "name: web-1\nlabels: {role: edge}\n",
			"certificates/a.yaml": site("a", "server: web-1"), "certificates/b.yaml": site("b", "selector: role=edge"),
		}, []string{
			"certificates/a.yaml:7:5: deployments[0].target: on server web-1 the certificate b is at this target already",
			"certificates/b.yaml:7:5: deployments[0].target: on server web-1 the certificate a is at this target already",
		}},
		"one target on a server that is not here": {map[string]string{
			"certificates/a.yaml": site("a", "server: web-1"), "certificates/b.yaml": site("b", "server: web-1"),
		}, []string{
			"certificates/a.yaml:7:5: deployments[0].target: on server web-1 the certificate b is at this target already",
			"certificates/b.yaml:7:5: deployments[0].target: on server web-1 the certificate a is at this target already",
		}},
		"a broken server is one": {map[string]string{
			"servers/web-1.yaml": "name: web-1\naddress: 192.0.2.1\n", "certificates/a.yaml": site("a", "server: web-1"),
		}, []string{`servers/web-1.yaml:2: unknown key "address"`}},
		"a broken issuer is one": {map[string]string{
			"issuers/private-ca.yaml": "name: private-ca\ntype: vault\n", "certificates/a.yaml": site("a", "server: web-1"),
		}, []string{"issuers/private-ca.yaml:2:1: type: must be privateca or acmesh"}},
		"another name": {map[string]string{"certificates/b.yaml": "# a comment\n" + site("a", "server: web-1")}, []string{
			"certificates/b.yaml:2:1: name: differs from the file's",
		}},
		"an empty file": {map[string]string{"servers/web-1.yaml": ""}, []string{"servers/web-1.yaml: the file is empty"}},
		"two documents": {map[string]string{"servers/web-1.yaml": "name: web-1\n---\nname: web-2\n"}, []string{
			"servers/web-1.yaml: the file holds more than one document",
		}},
		"a key twice": {map[string]string{"servers/web-1.yaml": "name: web-1\nname: web-2\n"}, []string{
			`servers/web-1.yaml:2: mapping key "name" already defined at line 1`,
		}},
		"wrong types": {map[string]string{"certificates/a.yaml": "name: a\nnames: a.test\nissuer: [x]\nrenewal:\n  paused: maybe\n  daysBeforeExpiry: soon\ndeployments: {server: a}\n"}, []string{
			"certificates/a.yaml:2: there is text where a list should be",
			"certificates/a.yaml:3: there is a list where text should be",
			"certificates/a.yaml:5: there is text where true or false should be",
			"certificates/a.yaml:6: there is text where a whole number should be",
			"certificates/a.yaml:7: there is a set of keys where a list should be",
		}},
		"more wrong types": {map[string]string{
			"certificates/a.yaml": "name: a\nnames: [a.test]\nissuer: x\nchallenge: none\nwaves: all\n",
			"servers/web-1.yaml":  "name: web-1\nhold: {since: today}\n",
			"servers/web-2.yaml":  "name: web-2\nlabels: [edge]\n",
		}, []string{
			"certificates/a.yaml:4: there is text where a set of keys should be",
			"certificates/a.yaml:5: there is text where a list should be",
			"servers/web-1.yaml:2: there is text where a time such as 2026-11-23T12:00:00Z should be",
			"servers/web-2.yaml:2: there is a list where a set of keys should be",
		}},
		"strange files": {map[string]string{
			"certificates/A.yaml": "", "certificates/a.yml": "", "servers/a/b.yaml": "", "notes/a.yaml": "name: a\n", "issuers/.keep": "",
		}, []string{
			"certificates/A.yaml: does not belong here: files are called NAME.yaml, in lower-case letters, digits, dots, hyphens and underscores",
			"certificates/a.yml: does not belong here: files are called NAME.yaml, in lower-case letters, digits, dots, hyphens and underscores",
			"issuers/.keep: does not belong here: files are called NAME.yaml, in lower-case letters, digits, dots, hyphens and underscores",
			"notes/a.yaml: does not belong here",
			"servers/a/b.yaml: does not belong here: files are called NAME.yaml, in lower-case letters, digits, dots, hyphens and underscores",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string][]byte{}
			for path, text := range tc.files {
				files[path] = []byte(text)
			}
			var got []string
			for _, f := range manifest.Lint(files) {
				got = append(got, f.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCrowded tells of certificates that labels bring together.
func TestCrowded(t *testing.T) {
	t.Parallel()
	at := func(selector string) []manifest.Placement {
		return []manifest.Placement{{Selector: selector, Deployer: "nginx", Target: "site"}}
	}
	tree := &manifest.Tree{
		Certificates: map[string]*manifest.Certificate{
			"a": {Name: "a", Deployments: at("role=edge")}, "b": {Name: "b", Deployments: at("region=eu")},
		},
		Servers: map[string]*manifest.Server{
			"both": {Labels: map[string]string{"role": "edge", "region": "eu"}}, "one": {Labels: map[string]string{"role": "edge"}},
		},
	}
	got := tree.Crowded("both")
	if len(got) != 1 || !strings.Contains(got[0].Message, "a and b would be at one target, site of nginx") || got[0].Key != "labels" {
		t.Errorf("got %v", got)
	}
	if got := tree.Crowded("one"); got != nil {
		t.Errorf("got %v", got)
	}
}

// TestTreeOfAFleet answers in time for 2,000 servers and 500 certificates that share a few selectors.
func TestTreeOfAFleet(t *testing.T) {
	t.Parallel()
	tree := &manifest.Tree{
		Certificates: map[string]*manifest.Certificate{}, Servers: map[string]*manifest.Server{},
		Issuers: map[string]*manifest.Issuer{"ca": {Type: "privateca"}},
	}
	for i := range 2_000 {
		tree.Servers[fmt.Sprintf("web-%d", i)] = &manifest.Server{Labels: map[string]string{"group": fmt.Sprint(i % 100)}}
	}
	for i := range 500 {
		name := fmt.Sprintf("c%d", i)
		tree.Certificates[name] = &manifest.Certificate{Name: name, Issuer: "ca", Deployments: []manifest.Placement{
			{Selector: fmt.Sprintf("group=%d", i%100), Deployer: "nginx", Target: name},
		}}
	}
	for _, c := range tree.Certificates {
		if faults := append(tree.References(c), tree.Conflicts(c)...); len(faults) > 0 {
			t.Fatal(faults)
		}
		if n := len(tree.Places(c)); n != 20 {
			t.Fatalf("%d places", n)
		}
	}
}
