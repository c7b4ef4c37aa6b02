// This file says what main would be with some files changed, without changing it.

package gitstore

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// With returns snap as it would be after edits by people, and what is wrong with them. An edit with a fault is left out.
// The rules for each file are those of Store.Receive; proposals cannot be merged in this way.
func (snap *Snapshot) With(edits []gitrepo.Edit) (*Snapshot, []Fault) {
	after := *snap
	after.Certificates, after.Servers, after.Issuers = snap.withoutSeconds(), maps.Clone(snap.Servers), maps.Clone(snap.Issuers)
	var faults []Fault
	for _, e := range edits {
		if dir, _, _ := strings.Cut(e.Path, "/"); !intentDirs[dir] && e.Path != readme {
			faults = append(faults, Fault{Path: e.Path, Err: errHubOnly})
			continue
		}
		err := checkEdit(e)
		if err == nil {
			err = layOver(&after, e)
		}
		for _, f := range manifest.Faults(bare(err)) {
			faults = append(faults, Fault{Path: e.Path, Line: f.Line, Err: errors.New(f.String())})
		}
	}
	after.Faults = nil // those of snap are known already
	after.addSeconds()
	for _, f := range after.Faults {
		if slices.ContainsFunc(edits, func(e gitrepo.Edit) bool { return e.Path == f.Path }) {
			faults = append(faults, f)
		}
	}
	after.Faults = snap.Faults
	return &after, faults
}

// IsIntent says whether a file of main is one that people may change.
func IsIntent(path string) bool {
	dir, _, _ := strings.Cut(path, "/")
	return path == readme || intentDirs[dir]
}
