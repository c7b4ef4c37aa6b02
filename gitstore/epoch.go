// This file bounds the history of servers. A branch whose history is old enough starts anew: a commit without parents
// holds the same files, and names the commit that it follows in its trailer Prev-Commit. The history before, the
// earlier epoch, stays until its newest commit is old enough too; the commit at refs/certferry/epochs holds on to it,
// one parent for each server, so that no hash of a commit changes for as long as it may be asked for.

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

const (
	// TrailerPrevCommit names the commit that the first one of an epoch follows.
	TrailerPrevCommit = "Prev-Commit"
	// epochsRef is the reference that holds on to earlier epochs.
	epochsRef = "refs/certferry/epochs"
	// keptGenerations is how many commits of a server's branch stay, however old they are.
	keptGenerations = 3
)

// PruneOptions say what Prune does.
type PruneOptions struct {
	// Keep is how long a commit of a server's branch is kept at least. It stays up to twice as long.
	Keep time.Duration
	// MinShare is the share of all bytes that must be garbage for packs to be written again, 0 for any.
	MinShare float64
	// DryRun only counts; garbage is then what there is before any epoch begins or ends.
	DryRun bool
}

// PruneReport says what Prune did.
type PruneReport struct {
	// Begun is how many servers' branches start anew, Ended how many earlier epochs are let go.
	Begun int
	Ended int
	// Held is how many earlier epochs stay because a server is held at a commit in them.
	Held int
	gitrepo.Pruned
}

// Prune bounds the history of servers and drops from the packs what nothing leads to any more. The history of main,
// which says who wished what, is kept. Neither the newest three commits of a server nor one that a server is held at
// are cut off. Publications go on meanwhile, but for moments.
func (s *Store) Prune(ctx context.Context, opt PruneOptions) (PruneReport, error) {
	if opt.Keep < 0 {
		return PruneReport{}, fmt.Errorf("prune: %w: the time to keep is negative", ErrInvalid)
	}
	plan, err := s.planEpochs(ctx, opt.Keep)
	if err != nil {
		return PruneReport{}, fmt.Errorf("prune: %w", err)
	}
	report := PruneReport{Begun: len(plan.begin), Ended: plan.ended, Held: plan.held}
	if !opt.DryRun {
		if err := s.moveEpochs(ctx, plan, &report); err != nil {
			return PruneReport{}, fmt.Errorf("prune: %w", err)
		}
	}
	report.Pruned, err = s.repo.Prune(ctx, gitrepo.PruneOptions{MinShare: opt.MinShare, DryRun: opt.DryRun})
	return report, err
}

// epochPlan is what is to begin and what is to stay.
type epochPlan struct {
	store *Store
	old   func(*gitrepo.Commit) bool
	holds map[string]string
	kept  map[gitrepo.Hash]bool

	at    gitrepo.Hash            // of epochsRef, zero if there is none
	begin map[string]gitrepo.Hash // reference to the tip that was looked at
	stay  map[string]gitrepo.Hash // reference to the tip of its earlier epoch
	seen  int                     // earlier epochs that a branch follows
	ended int
	held  int
}

// planEpochs looks at each server's branch.
func (s *Store) planEpochs(ctx context.Context, keep time.Duration) (*epochPlan, error) {
	now := s.cfg.Now()
	plan := &epochPlan{store: s, begin: map[string]gitrepo.Hash{}, stay: map[string]gitrepo.Hash{}}
	plan.old = func(c *gitrepo.Commit) bool { return now.Sub(c.Committer.When) > keep }
	var err error
	if plan.holds, err = s.holds(); err != nil {
		return nil, err
	}
	plan.at, _ = s.repo.Ref(epochsRef)
	if plan.kept, err = s.keptEpochs(); err != nil {
		return nil, err
	}
	for ref, tip := range s.repo.Refs() {
		server, ok := strings.CutPrefix(ref, manifest.ServerBranch(""))
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := plan.branch(ref, server, tip); err != nil {
			return nil, fmt.Errorf("history of server %s: %w", server, err)
		}
	}
	plan.ended += len(plan.kept) - plan.seen // of servers that are gone
	return plan, nil
}

// branch decides about one server's branch.
func (p *epochPlan) branch(ref, server string, tip gitrepo.Hash) error {
	log, err := p.store.repo.Log(tip, 0)
	if err != nil {
		return err
	}
	root := log[len(log)-1]
	if before, ok := previous(root); ok && p.kept[before] {
		p.seen++
		last, err := p.store.repo.Commit(before)
		if err != nil {
			return err
		}
		if p.heldBefore(server, log) {
			p.held++
			p.stay[ref] = before
			return nil
		}
		if !p.old(last) || len(log) < keptGenerations {
			p.stay[ref] = before
			return nil
		}
		p.ended++
	}
	if p.old(root) && len(log) > keptGenerations {
		p.begin[ref], p.stay[ref] = tip, tip
	}
	return nil
}

// heldBefore tells whether a server is held at a commit that is not in log.
func (p *epochPlan) heldBefore(server string, log []*gitrepo.Commit) bool {
	hold := p.holds[server]
	return hold != "" && !slices.ContainsFunc(log, func(c *gitrepo.Commit) bool { return c.Hash.String() == hold })
}

// holds returns the commits that servers are held at. Where the file cannot be read, any commit may be it.
func (s *Store) holds() (map[string]string, error) {
	snapshot, err := s.Snapshot()
	if err != nil {
		return nil, err
	}
	holds := map[string]string{}
	for name, server := range snapshot.Servers {
		if server.Hold != nil {
			holds[name] = server.Hold.Commit
		}
	}
	for _, f := range snapshot.Faults {
		if name, ok := strings.CutPrefix(f.Path, serversDir+"/"); ok {
			holds[strings.TrimSuffix(name, ".yaml")] = "unknown"
		}
	}
	return holds, nil
}

// keptEpochs returns the newest commits of the earlier epochs that are there.
func (s *Store) keptEpochs() (map[gitrepo.Hash]bool, error) {
	kept := map[gitrepo.Hash]bool{}
	at, ok := s.repo.Ref(epochsRef)
	if !ok {
		return kept, nil
	}
	c, err := s.repo.Commit(at)
	if err != nil {
		return nil, fmt.Errorf("read earlier epochs: %w", err)
	}
	for _, p := range c.Parents {
		kept[p] = true
	}
	return kept, nil
}

// previous returns the commit that the first one of an epoch follows.
func previous(root *gitrepo.Commit) (gitrepo.Hash, bool) {
	if len(root.Parents) > 0 {
		return gitrepo.Hash{}, false
	}
	for _, t := range Trailers(root.Message) {
		if t.Key == TrailerPrevCommit {
			h, err := gitrepo.ParseHash(t.Value)
			return h, err == nil
		}
	}
	return gitrepo.Hash{}, false
}

// moveEpochs makes the first commits of new epochs, and moves all references at once.
func (s *Store) moveEpochs(ctx context.Context, plan *epochPlan, report *PruneReport) error {
	s.write.Lock()
	defer s.write.Unlock()
	if holds, err := s.holds(); err != nil || !maps.Equal(holds, plan.holds) { // the plan is out of date: the next time
		report.Begun, report.Ended = 0, 0
		return err
	}
	var batch []gitrepo.Update
	for ref, tip := range plan.begin {
		if now, _ := s.repo.Ref(ref); now != tip { // it has its turn the next time
			delete(plan.stay, ref)
			report.Begun--
			continue
		}
		u, err := s.beginEpoch(ref, tip)
		if err != nil {
			return err
		}
		batch = append(batch, u)
	}
	if len(batch) == 0 && plan.ended == 0 {
		return nil
	}
	u, err := s.holdEpochs(plan)
	if err != nil {
		return err
	}
	if u != nil {
		batch = append(batch, *u)
	}
	_, err = s.repo.Apply(ctx, batch, nil)
	return err
}

func (s *Store) beginEpoch(ref string, tip gitrepo.Hash) (gitrepo.Update, error) {
	server := strings.TrimPrefix(ref, manifest.ServerBranch(""))
	at, err := s.branchTip(server)
	if err != nil {
		return gitrepo.Update{}, fmt.Errorf("read branch of server %s: %w", server, err)
	}
	generation := strconv.FormatUint(at.manifest.Generation, 10)
	text, err := message("start history of "+server+" anew: generation "+generation, "", Actor{}, []Trailer{
		{TrailerGeneration, generation},
		{TrailerPrevCommit, tip.String()},
	})
	return gitrepo.Update{
		Ref: ref, Expect: &tip, Base: tip, Author: s.committer(), Committer: s.committer(), Message: text,
	}, err
}

// holdEpochs makes the commit that holds on to what stays; nil if there is nothing to do.
func (s *Store) holdEpochs(plan *epochPlan) (*gitrepo.Update, error) {
	if len(plan.stay) == 0 {
		if plan.at.IsZero() {
			return nil, nil //nolint:nilnil // nothing stays and nothing did
		}
		return &gitrepo.Update{Ref: epochsRef, Expect: &plan.at, Delete: true}, nil
	}
	parents := slices.SortedFunc(maps.Values(plan.stay), func(a, b gitrepo.Hash) int { return slices.Compare(a[:], b[:]) })
	text, err := message("hold on to earlier history of servers", "Each parent is the newest commit of it for one server.", Actor{}, nil)
	return &gitrepo.Update{
		Ref: epochsRef, Expect: &plan.at, Parents: parents, Author: s.committer(), Committer: s.committer(), Message: text,
	}, err
}

// serverLog returns the commits of a server's branch from one on, newest first, at most limit (0 for all), through
// earlier epochs as far as they are kept.
func (s *Store) serverLog(from gitrepo.Hash, limit int) ([]*gitrepo.Commit, error) {
	var out []*gitrepo.Commit
	for {
		log, err := s.repo.Log(from, max(0, limit-len(out)))
		if err != nil {
			return nil, err
		}
		out = append(out, log...)
		before, ok := previous(out[len(out)-1])
		if !ok || limit > 0 && len(out) >= limit {
			return out, nil
		}
		kept, err := s.keptEpochs()
		if err != nil || !kept[before] {
			return out, err
		}
		from = before
	}
}

// Pruned tells whether a history, newest first, ends where an earlier part of it was pruned, and when it goes on from.
func Pruned(history []ServerCommit) (since time.Time, pruned bool) {
	if len(history) == 0 {
		return time.Time{}, false
	}
	root := history[len(history)-1].Commit
	_, pruned = previous(root)
	return root.Committer.When, pruned
}

// PrunedBefore returns the time before which the history of a server's branch is not kept any more; false if all of it
// is there. The error is fs.ErrNotExist if there is no such branch.
func (s *Store) PrunedBefore(server string) (time.Time, bool, error) {
	tip, err := s.branchTip(server)
	if err == nil && tip == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read branch of server %s: %w", server, err)
	}
	log, err := s.serverLog(tip.hash, 0)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("read history of server %s: %w", server, err)
	}
	root := log[len(log)-1]
	_, pruned := previous(root)
	return root.Committer.When, pruned, nil
}

// notOnBranch says that a commit is not on a server's branch, and whether that may be because it was pruned.
func (s *Store) notOnBranch(h gitrepo.Hash, server string) error {
	since, pruned, err := s.PrunedBefore(server)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case pruned:
		return fmt.Errorf("commit %s is not on the branch of %s: its history before %s was pruned: %w",
			h.Short(), server, since.Format(time.DateOnly), fs.ErrNotExist)
	}
	return fmt.Errorf("commit %s is not on the branch of %s: %w", h.Short(), server, fs.ErrNotExist)
}

// Groups of references in Stats.
const (
	groupMain      = "main"
	groupServers   = "servers"
	groupProposals = "proposals"
	groupEarlier   = "earlier history"
	groupOther     = "other"
)

// proposalBranches precedes the names of proposals' branches.
const proposalBranches = "refs/heads/proposals/"

// Stats counts what the repository holds: for main, for servers, for proposals, for the history of servers before
// their branches started anew, and for all else.
func (s *Store) Stats(ctx context.Context) (gitrepo.Stats, error) {
	return s.repo.Stats(ctx, []string{groupMain, groupServers, groupProposals, groupEarlier, groupOther}, func(ref string) string {
		switch {
		case ref == manifest.MainBranch:
			return groupMain
		case strings.HasPrefix(ref, manifest.ServerBranch("")):
			return groupServers
		case strings.HasPrefix(ref, proposalBranches):
			return groupProposals
		case ref == epochsRef:
			return groupEarlier
		default:
			return groupOther
		}
	})
}
