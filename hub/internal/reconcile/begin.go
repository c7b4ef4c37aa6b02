package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// newcomer is an issue that main has and no server yet.
type newcomer struct {
	issued *manifest.IssuedCertificate
	// older counts the servers by the leaf that they have instead; members are all servers of the certificate.
	older   map[string]int
	members int
	// known says that a server has it.
	known bool
}

// begin starts a rollout for each new issue that should not go to all servers at once, whichever way it came to main,
// and removes what is left of those that it replaces. It runs before anything is published, and says whether main
// changed.
func (r *Reconciler) begin(ctx context.Context, snapshot *gitstore.Snapshot, servers []hub.Server, placed *placements) (changed bool, err error) {
	found := r.newcomers(snapshot, servers, placed)
	var edits []gitrepo.Edit
	var names []string
	for _, name := range sortedKeys(found) {
		document, err := r.document(snapshot, name, found[name])
		if err != nil {
			return false, fmt.Errorf("begin rollout of %s: %w", name, err)
		}
		if document == nil {
			continue
		}
		data, err := document.Encode()
		if err != nil {
			return false, fmt.Errorf("begin rollout of %s: %w", name, err)
		}
		edits, names = append(edits, gitrepo.Edit{Path: manifest.RolloutPath(name), Data: data}), append(names, name)
	}
	for _, name := range sortedKeys(snapshot.Rollouts) {
		issued := snapshot.Issued[name]
		if (issued == nil || issued.LeafSHA256 != snapshot.Rollouts[name].LeafSHA256) && !slices.Contains(names, name) {
			edits, names = append(edits, gitrepo.Edit{Path: manifest.RolloutPath(name), Delete: true}), append(names, name)
		}
	}
	if len(edits) == 0 {
		return false, nil
	}
	subject := "begin rollout of " + few(names)
	return true, r.applyRollout(ctx, snapshot, names[0], gitstore.Change{Subject: subject, Edits: edits}, nil)
}

// newcomers finds the issues that are newer than what servers have, and that no server has yet.
func (r *Reconciler) newcomers(snapshot *gitstore.Snapshot, servers []hub.Server, placed *placements) map[string]*newcomer {
	found := map[string]*newcomer{}
	for i := range servers {
		row := &servers[i]
		names := r.takesPart(snapshot, row, placed)
		if len(names) == 0 {
			continue
		}
		tip, err := r.cfg.Store.ServerTip(row.Name)
		if err != nil {
			tip = nil // it has nothing yet, or what is wrong shows when it is published
		}
		for _, name := range names {
			n := found[name]
			if n == nil {
				n = &newcomer{issued: snapshot.Issued[name], older: map[string]int{}}
				found[name] = n
			}
			n.add(name, tip)
		}
	}
	for name, n := range found {
		ro := snapshot.Rollouts[name]
		if n.known || len(n.older) == 0 || ro != nil && ro.LeafSHA256 == n.issued.LeafSHA256 {
			delete(found, name)
		}
	}
	return found
}

// add counts a server of the certificate.
func (n *newcomer) add(name string, tip *gitstore.Tip) {
	n.members++
	if tip == nil {
		return
	}
	i := slices.IndexFunc(tip.Manifest.Deployments, func(d manifest.Deployment) bool { return d.Certificate == name })
	if i < 0 {
		return
	}
	switch d := &tip.Manifest.Deployments[i]; {
	case d.LeafSHA256 == n.issued.LeafSHA256:
		n.known = true
	case d.NotBefore.After(n.issued.NotBefore) || d.NotBefore.Equal(n.issued.NotBefore) && d.NotAfter.After(n.issued.NotAfter):
		// Main went back: that is meant, and goes to all at once.
	default:
		n.older[d.LeafSHA256]++
	}
}

// document is the rollout to begin, nil where there is nothing to be careful about: one server, one wave, or an old
// issue that is about to end.
func (r *Reconciler) document(snapshot *gitstore.Snapshot, name string, n *newcomer) (*manifest.Rollout, error) {
	waves := r.wavesOf(snapshot.Certificates[name])
	if len(waves.Sizes(n.members)) < 2 {
		return nil, nil //nolint:nilnil // no rollout is the answer
	}
	from, old, err := r.mostHave(name, n.older)
	now := r.cfg.Now().UTC().Truncate(time.Second)
	if err != nil || old == nil || old.NotAfter.Sub(now) < urgent {
		return nil, err
	}
	return &manifest.Rollout{
		Name: name, From: from, FromLeafSHA256: old.LeafSHA256, LeafSHA256: n.issued.LeafSHA256,
		Waves: waves, Wave: 1, State: manifest.RolloutRunning, StartedAt: now, WaveStartedAt: now,
	}, nil
}

// mostHave finds the issue that most servers have, and a commit of main that holds it; nil where main does not know it
// any more.
func (r *Reconciler) mostHave(name string, older map[string]int) (commit string, issued *manifest.IssuedCertificate, err error) {
	leaf := ""
	for _, candidate := range sortedKeys(older) {
		if leaf == "" || older[candidate] > older[leaf] {
			leaf = candidate
		}
	}
	commit, issued, err = r.cfg.Store.IssueWith(name, leaf)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	return commit, issued, err
}
