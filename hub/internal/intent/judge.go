// This file judges changed files of main: the hub's own policy, for what people push and for what they plan.

package intent

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// judgeFiles checks what the changed files mean together with all others.
func (s *Service) judgeFiles(in *gitrepo.Incoming, before, after *gitstore.Snapshot, changes []gitrepo.FileChange) []gitstore.Fault {
	j := s.newJudgement(before, after)
	for _, c := range changes {
		var data []byte
		if !c.New.IsZero() {
			var err error
			if data, err = in.Blob(c.New); err != nil {
				j.add(c.Path, nil, "", err)
				continue
			}
		}
		j.file(c.Path, data)
	}
	return j.faults
}

// judgement checks changed files against main as it would be.
type judgement struct {
	service       *Service
	before, after *gitstore.Snapshot
	tree          *manifest.Tree
	faults        []gitstore.Fault
}

func (s *Service) newJudgement(before, after *gitstore.Snapshot) *judgement {
	return &judgement{service: s, before: before, after: after, tree: treeOf(after)}
}

// add notes a fault at a key of a file.
func (j *judgement) add(path string, data []byte, key string, err error) {
	f := gitstore.Fault{Path: path, Err: err}
	if key != "" {
		f.Line, f.Err = manifest.LineOf(data, key), fmt.Errorf("%s: %w", key, err)
	}
	j.faults = append(j.faults, f)
}

// all notes what was found in a file.
func (j *judgement) all(path string, data []byte, found []manifest.Fault) {
	for _, f := range found {
		j.add(path, data, f.Key, errors.New(f.Message))
	}
}

// file checks one file; nil data stands for one that is removed.
func (j *judgement) file(path string, data []byte) {
	dir, file, _ := strings.Cut(path, "/")
	name := strings.TrimSuffix(file, ".yaml")
	switch {
	case dir == "certificates" && data != nil:
		j.certificate(path, name, data)
	case dir == "servers" && data != nil:
		j.server(path, name, data)
	case dir == "servers":
		j.unused(path, name, func(c *manifest.Certificate) bool {
			return slices.ContainsFunc(c.Deployments, func(p manifest.Placement) bool { return p.Server == name })
		})
	case dir == "issuers" && data != nil:
		j.issuer(path, name, data)
	case dir == "issuers":
		j.unused(path, name, func(c *manifest.Certificate) bool { return c.Issuer == name })
	}
}

// certificate checks a certificate as the API does, against all others.
func (j *judgement) certificate(path, name string, data []byte) {
	c := j.after.Certificates[name]
	found := j.tree.References(c)
	if len(found) == 0 {
		found = j.tree.Conflicts(c)
	}
	j.all(path, data, found)
}

// server checks labels, which must not bring two certificates to one target, and a hold, which must name a commit of
// the server's own branch.
func (j *judgement) server(path, name string, data []byte) {
	j.all(path, data, j.tree.Crowded(name))
	hold := j.after.Servers[name].Hold
	if was := j.before.Servers[name]; hold == nil || was != nil && was.Hold != nil && was.Hold.Commit == hold.Commit {
		return
	}
	if _, err := j.service.earlierState(j.after.Servers[name], hold.Commit); err != nil {
		text := "there is no such commit on the server's branch"
		if known := new(hub.Error); errors.As(err, &known) {
			text = known.Message
		}
		j.add(path, data, "hold.commit", errors.New(text))
	}
}

// issuer checks that the hub can use an issuer, and that the certificates which name it can.
func (j *judgement) issuer(path, name string, data []byte) {
	if err := j.service.cfg.CheckIssuer(j.after.Issuers[name]); err != nil {
		j.add(path, data, "", err)
		return
	}
	for _, certificate := range sortedKeys(j.after.Certificates) {
		c := j.after.Certificates[certificate]
		if c.Issuer == name && j.after.Issuers[name].Type == "acmesh" && c.Challenge == nil {
			j.add(path, data, "type", fmt.Errorf("the certificate %s says nothing of a challenge, which this issuer needs: change it in the same push", certificate))
			return
		}
	}
}

// unused refuses to remove what certificates need.
func (j *judgement) unused(path, name string, needs func(*manifest.Certificate) bool) {
	for _, certificate := range sortedKeys(j.after.Certificates) {
		if needs(j.after.Certificates[certificate]) {
			j.add(path, nil, "", fmt.Errorf("the certificate %s still needs %s: change it in the same push", certificate, name))
			return
		}
	}
}
