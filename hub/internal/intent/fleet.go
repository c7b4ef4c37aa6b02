package intent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// fleetPause starts the reason of renewals that a rollback of the fleet paused, so that one act can resume them all.
const fleetPause = "fleet rolled back"

// fleet is the object of acts on all certificates at once.
const fleet = "fleet"

// RollbackFleet takes all certificates back to what was issued for them as of a commit of main, in one commit, and
// pauses their renewals. Those that cannot go back are skipped, or, without skip, refuse the whole. With dryRun nothing
// is changed.
func (s *Service) RollbackFleet(
	ctx context.Context, actor hub.Principal, requestID string, req apiv1.FleetRollbackRequest,
) (apiv1.FleetRollback, error) {
	reason, err := reasonOf(req.Reason)
	if err != nil {
		return apiv1.FleetRollback{}, err
	}
	a := act{actor, requestID, "rollback-fleet", fleet, "Scope"}
	var out apiv1.FleetRollback
	build := func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		to, err := s.mainCommit(req.Commit)
		if err != nil {
			return gitstore.Change{}, err
		}
		out = apiv1.FleetRollback{Commit: to.String(), Changed: []apiv1.FleetChange{}, Skipped: []apiv1.FleetChange{}}
		edits, err := s.fleetEdits(snapshot, to, strings.TrimSuffix(fleetPause+" by "+a.name()+": "+reason, ": "), &out)
		switch {
		case err != nil:
			return gitstore.Change{}, err
		case len(out.Skipped) > 0 && !req.Skip && !req.DryRun:
			return gitstore.Change{}, conflict(skippedText(out.Skipped))
		case len(out.Changed) == 0 && !req.DryRun:
			return gitstore.Change{}, conflict("every certificate holds what it held then: there is nothing to roll back")
		case req.DryRun:
			return gitstore.Change{}, errUnchanged
		}
		return gitstore.Change{
			Subject: fmt.Sprintf("roll back fleet to %s: %d certificates", to.Short(), len(out.Changed)), Body: reason, Edits: edits,
		}, nil
	}
	if err := s.change(ctx, a, build); err != nil && !errors.Is(err, errUnchanged) {
		return apiv1.FleetRollback{}, err
	}
	return out, nil
}

func skippedText(skipped []apiv1.FleetChange) string {
	var b strings.Builder
	b.WriteString("not every certificate can go back; give --skip to leave these as they are: ")
	for i, c := range skipped {
		if i == 10 {
			fmt.Fprintf(&b, " and %d more", len(skipped)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(c.Certificate + ": " + c.Detail)
	}
	return b.String()
}

// fleetEdits makes the edits for all certificates, and fills in what becomes of each.
func (s *Service) fleetEdits(snapshot *gitstore.Snapshot, to gitrepo.Hash, paused string, out *apiv1.FleetRollback) ([]gitrepo.Edit, error) {
	var all []gitrepo.Edit
	edited := map[string]bool{}
	for _, name := range sortedKeys(snapshot.Issued) {
		have := snapshot.Issued[name]
		then, err := s.issuedAt(name, to)
		entry := apiv1.FleetChange{Certificate: name}
		switch {
		case snapshot.Certificates[name] == nil:
			continue // nobody wishes it any more
		case errors.Is(err, fs.ErrNotExist):
			entry.Detail = "not issued yet at that commit"
			out.Skipped = append(out.Skipped, entry)
			continue
		case err != nil:
			return nil, err
		case then.LeafSHA256 == have.LeafSHA256:
			continue
		case !s.cfg.Now().Before(then.NotAfter):
			entry.Detail = "what it held then expired on " + shortDate(then.NotAfter)
			out.Skipped = append(out.Skipped, entry)
			continue
		}
		edits, err := s.goBack(snapshot, name, to, then, paused)
		if err != nil {
			return nil, err
		}
		for _, e := range edits {
			// A certificate and its second are paused in one file.
			if !edited[e.Path] {
				edited[e.Path] = true
				all = append(all, e)
			}
		}
		entry.Detail = fmt.Sprintf("leaf %s… until %s instead of %s… until %s",
			then.LeafSHA256[:6], shortDate(then.NotAfter), have.LeafSHA256[:6], shortDate(have.NotAfter))
		out.Changed = append(out.Changed, entry)
	}
	return all, nil
}

// mainCommit finds a commit of main by its first digits.
func (s *Service) mainCommit(prefix string) (gitrepo.Hash, error) {
	log, err := s.cfg.Store.Branch("main", 0)
	if err != nil {
		return gitrepo.Hash{}, fmt.Errorf("read main: %w", err)
	}
	hashes := make([]gitrepo.Hash, len(log))
	for i, c := range log {
		hashes[i] = c.Hash
	}
	return findCommit(hashes, prefix, "certferry commit ls lists the commits of main")
}

// ResumeFleet ends the pauses that a rollback of the fleet made, and says how many.
func (s *Service) ResumeFleet(ctx context.Context, actor hub.Principal, requestID string) (resumed int, err error) {
	a := act{actor, requestID, "resume-fleet", fleet, "Scope"}
	err = s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		var edits []gitrepo.Edit
		for _, name := range sortedKeys(snapshot.Certificates) {
			wish := snapshot.Certificates[name]
			if !wish.Renewal.Paused || !strings.HasPrefix(wish.Renewal.PausedReason, fleetPause) {
				continue
			}
			if _, second := snapshot.Seconds[name]; second {
				continue // it stands in the file of the first
			}
			edit, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
				c.Renewal.Paused, c.Renewal.PausedReason = false, ""
			})
			if err != nil {
				return gitstore.Change{}, err
			}
			edits = append(edits, edit)
		}
		if resumed = len(edits); resumed == 0 {
			return gitstore.Change{}, conflict("no certificate is paused by a rollback of the fleet")
		}
		return gitstore.Change{Subject: fmt.Sprintf("resume fleet: %d certificates", resumed), Edits: edits}, nil
	})
	return resumed, err
}

// HoldServer keeps a server at what it has now until it is resumed.
func (s *Service) HoldServer(ctx context.Context, actor hub.Principal, requestID, name, reason string) error {
	history, err := s.cfg.Store.ServerHistory(name, 1)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && len(history) == 0:
		return conflict("nothing was deployed to this server yet: there is nothing to hold it at")
	case err != nil:
		return fmt.Errorf("read history of server %s: %w", name, err)
	}
	return s.RollbackServer(ctx, actor, requestID, name, history[0].Hash.String(), reason)
}
