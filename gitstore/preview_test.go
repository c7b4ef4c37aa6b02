package gitstore

import (
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// TestWith lays edits over a snapshot and leaves the snapshot as it was.
func TestWith(t *testing.T) {
	t.Parallel()
	before := &Snapshot{
		Certificates: map[string]*manifest.Certificate{"old": {Name: "old"}}, Servers: map[string]*manifest.Server{},
		Issuers: map[string]*manifest.Issuer{},
	}
	after, faults := before.With([]gitrepo.Edit{
		{Path: "certificates/old.yaml", Delete: true},
		{Path: "certificates/new.yaml", Data: []byte("name: new\nnames: [new.test]\nissuer: ca\n")},
		{Path: "servers/web-1.yaml", Data: []byte("name: web-1\n")},
		{Path: "issuers/ca.yaml", Data: []byte("name: ca\ntype: privateca\n")},
		{Path: "README.md", Data: []byte("anything")},
		{Path: "servers/bad.yaml", Data: []byte("name: bad\nlabels: [a]\naddress: x\n")},
		{Path: "servers/other.yaml", Data: []byte("name: web-2\n")},
		{Path: "issued/ab/x/chain.pem", Data: []byte("x")},
		{Path: "notes.txt", Data: []byte("x")},
	})
	if len(after.Certificates) != 1 || after.Certificates["new"] == nil || after.Servers["web-1"] == nil || after.Issuers["ca"] == nil {
		t.Errorf("got %+v", after)
	}
	if len(before.Certificates) != 1 || before.Certificates["old"] == nil || len(before.Servers)+len(before.Issuers) > 0 {
		t.Errorf("the snapshot changed: %+v", before)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.String())
	}
	want := []string{
		`servers/bad.yaml:2: `, `servers/bad.yaml:3: unknown key "address"`, "servers/other.yaml: the name inside differs",
		"issued/ab/x/chain.pem: only the hub writes this file", "notes.txt: only the hub writes this file",
	}
	all := strings.Join(got, "\n")
	for _, line := range want {
		if !strings.Contains(all, line) {
			t.Errorf("no fault %q in\n%s", line, all)
		}
	}
	for path, want := range map[string]bool{"README.md": true, "servers/a.yaml": true, "issued/a": false, "README": false, "docs/README.md": false} {
		if IsIntent(path) != want {
			t.Errorf("IsIntent(%q) is %v", path, !want)
		}
	}
}
