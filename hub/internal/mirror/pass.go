// This file is one look at a remote: what it holds, what people did there, and the push of what it lacks.

package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

const (
	mainRef = "refs/heads/main"
	// ourRefs are the branches that are the hub's alone.
	serverRefs   = "refs/heads/servers/"
	proposalRefs = "refs/heads/proposals/"
)

var (
	// errUnrelated: the remote holds the history of something else.
	errUnrelated = errors.New("main there has no commit in common with the hub's")
	// errNotTaken: people changed main, and their commits do not count or could not be decided about.
	errNotTaken = errors.New("main there holds commits that the hub does not have")
)

// pass brings the remote to what the hub holds. The branches of servers go first: they are what agents wait for.
func (l *loop) pass(ctx context.Context) error {
	there, err := l.target.Remote.List(ctx, mainRef, serverRefs, proposalRefs)
	if err != nil {
		return err
	}
	before := l.sawLast()
	held := l.settleMain(ctx, there, before[mainRef])
	if held != nil && !errors.Is(held, errNotTaken) {
		return held
	}
	l.learn(there)
	updates := differences(l.cfg.Repo.Refs(), there)
	l.report(ctx, updates, before)
	var mains []gitrepo.RefUpdate
	updates = slices.DeleteFunc(updates, func(u gitrepo.RefUpdate) bool {
		if u.Ref == mainRef {
			mains = append(mains, u)
		}
		return u.Ref == mainRef
	})
	err = l.push(ctx, updates)
	if held != nil {
		return errors.Join(err, held)
	}
	return errors.Join(err, l.push(ctx, mains))
}

// differences lists what has to move on a remote that holds there.
func differences(ours, there map[string]gitrepo.Hash) []gitrepo.RefUpdate {
	var updates []gitrepo.RefUpdate
	mirrored := func(ref string) bool {
		return ref == mainRef || strings.HasPrefix(ref, serverRefs) || strings.HasPrefix(ref, proposalRefs)
	}
	for ref, h := range ours {
		if mirrored(ref) && there[ref] != h {
			updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: there[ref], New: h})
		}
	}
	for ref, h := range there {
		if _, ok := ours[ref]; !ok && mirrored(ref) && ref != mainRef {
			updates = append(updates, gitrepo.RefUpdate{Ref: ref, Old: h})
		}
	}
	slices.SortFunc(updates, func(a, b gitrepo.RefUpdate) int { return strings.Compare(a.Ref, b.Ref) })
	return updates
}

// settleMain looks at the remote's main. When it returns nil, the hub's main leads to it. errNotTaken leaves main
// alone; any other error leaves the whole remote alone.
func (l *loop) settleMain(ctx context.Context, there map[string]gitrepo.Hash, last gitrepo.Hash) error {
	ours, ok := l.cfg.Repo.Ref(mainRef)
	if !ok {
		return errors.New("the hub has no main yet")
	}
	theirs, ok := there[mainRef]
	if !ok {
		return l.settleWithoutMain(there)
	}
	if theirs == ours {
		return nil
	}
	if known, err := l.leads(ours, theirs); known || err != nil {
		return err
	}
	in, err := l.target.Remote.FetchHistory(ctx, l.cfg.Repo, theirs, l.haves(ours, last))
	if err != nil {
		return err
	}
	base, related, err := in.MergeBase(ours, theirs)
	if err != nil {
		return err
	}
	if !related {
		return errUnrelated
	}
	if !last.IsZero() {
		if _, ok, err := in.MergeBase(last, theirs); err == nil && (!ok || base != last && !leadsIn(in, theirs, last)) {
			l.foreign(ctx, fmt.Sprintf("somebody replaced main on remote %s: it was at %s, and %s does not lead there. Nothing is lost: the hub keeps its own history and merges. Find out who may force pushes there.",
				l.target.Name, last.Short(), theirs.Short()))
		}
	}
	if !l.target.Intent || l.cfg.Intake == nil {
		return fmt.Errorf("%w (%s), and intent is not taken from it: remove them there, or set intent: true", errNotTaken, theirs.Short())
	}
	if err := l.cfg.Intake.Take(ctx, l.target.Name, in, theirs); err != nil {
		return fmt.Errorf("%w (%s): %w", errNotTaken, theirs.Short(), err)
	}
	now, _ := l.cfg.Repo.Ref(mainRef)
	if merged, err := l.leads(now, theirs); err != nil || !merged {
		return errors.Join(fmt.Errorf("%w (%s): they were not merged", errNotTaken, theirs.Short()), err)
	}
	return nil
}

// settleWithoutMain looks at a remote without a main: a new one, or one whose first push was cut off. Branches of
// which the hub knows none are those of another hub.
func (l *loop) settleWithoutMain(there map[string]gitrepo.Hash) error {
	for _, h := range there {
		if _, err := l.cfg.Repo.Commit(h); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(there) > 0 {
		return errUnrelated
	}
	return nil
}

// leads says whether from leads to old in the hub's own history.
func (l *loop) leads(from, old gitrepo.Hash) (bool, error) {
	if _, err := l.cfg.Repo.Commit(old); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	base, ok, err := l.cfg.Repo.MergeBase(from, old)
	return ok && base == old, err
}

func leadsIn(in *gitrepo.Incoming, from, old gitrepo.Hash) bool {
	base, ok, err := in.MergeBase(from, old)
	return err == nil && ok && base == old
}

// haves lists commits of main that the remote may have: what it had last, then the newest ones, then ever fewer.
func (l *loop) haves(ours, last gitrepo.Hash) []gitrepo.Hash {
	const dense, most = 32, 10_000
	var haves []gitrepo.Hash
	if _, err := l.cfg.Repo.Commit(last); err == nil && !last.IsZero() {
		haves = append(haves, last)
	}
	log, err := l.cfg.Repo.Log(ours, most)
	if err != nil {
		return append(haves, ours)
	}
	for i, c := range log {
		if i < dense || i&(i-1) == 0 || i == len(log)-1 {
			haves = append(haves, c.Hash)
		}
		if i < dense && len(c.Parents) > 1 {
			haves = append(haves, c.Parents[1:]...)
		}
	}
	return haves
}

// sawLast is what the remote was known to hold before.
func (l *loop) sawLast() map[string]gitrepo.Hash {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.there)
}

func (l *loop) learn(there map[string]gitrepo.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.there = maps.Clone(there)
}

// report tells people of branches that others changed. What the hub knows, or pushed there itself, is only old.
func (l *loop) report(ctx context.Context, updates []gitrepo.RefUpdate, before map[string]gitrepo.Hash) {
	var names []string
	for _, u := range updates {
		if u.Ref == mainRef || u.Old.IsZero() || before[u.Ref] == u.Old {
			continue
		}
		if _, err := l.cfg.Repo.Commit(u.Old); errors.Is(err, fs.ErrNotExist) {
			names = append(names, strings.TrimPrefix(u.Ref, "refs/heads/"))
		}
	}
	if len(names) == 0 {
		return
	}
	const shown = 5
	text := strings.Join(names[:min(len(names), shown)], ", ")
	if len(names) > shown {
		text += fmt.Sprintf(" and %d more", len(names)-shown)
	}
	l.foreign(ctx, fmt.Sprintf("somebody changed branches on remote %s that only the hub writes: %s. They are put back; agents refuse what the hub did not sign. Find out who may push there.", l.target.Name, text))
}

// push moves references. What is refused together with others is tried again alone, so that one protected branch
// does not hold up the fleet.
func (l *loop) push(ctx context.Context, updates []gitrepo.RefUpdate) error {
	if len(updates) == 0 {
		return nil
	}
	results, err := l.target.Remote.Push(ctx, l.cfg.Repo, updates, !l.single)
	if errors.Is(err, gitrepo.ErrNotAtomic) {
		l.log.InfoContext(ctx, "remote cannot move branches all or none: they move one by one")
		l.single = true
		results, err = l.target.Remote.Push(ctx, l.cfg.Repo, updates, false)
	}
	failed := l.moved(results)
	if err == nil && len(failed) > 0 && len(updates) > 1 && !l.single {
		again := make([]gitrepo.RefUpdate, 0, len(failed))
		for _, f := range failed {
			again = append(again, f.RefUpdate)
		}
		results, err = l.target.Remote.Push(ctx, l.cfg.Repo, again, false)
		failed = l.moved(results)
	}
	if err != nil || len(failed) == 0 {
		return err
	}
	return fmt.Errorf("%d of %d branches not moved, %s first: %w", len(failed), len(updates), strings.TrimPrefix(failed[0].Ref, "refs/heads/"), failed[0].Err)
}

// moved keeps what moved and returns the rest.
func (l *loop) moved(results []gitrepo.RefResult) (failed []gitrepo.RefResult) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range results {
		switch {
		case r.Err != nil:
			failed = append(failed, r)
		case r.New.IsZero():
			delete(l.there, r.Ref)
		default:
			l.there[r.Ref] = r.New
		}
	}
	return failed
}

// passes says whether a fault may go away without anybody's doing.
func passes(err error) bool {
	return errors.Is(err, gitrepo.ErrUnreachable) || errors.Is(err, gitrepo.ErrSlow) || errors.Is(err, gitrepo.ErrStale)
}

// advice is a sentence for people: what is wrong and what they can do.
func advice(err error) string {
	for _, a := range []struct {
		class error
		text  string
	}{
		{errUnrelated, "this is the repository of something else: the hub leaves it alone; give the remote an empty repository, or remove it from the configuration"},
		{errNotTaken, ""},
		{gitrepo.ErrDenied, "check username and password_file, or that the ssh key may use the repository"},
		{gitrepo.ErrReadOnly, "let the hub's account push to main, servers/* and proposals/*"},
		{gitrepo.ErrHostKey, "compare the host's key or certificate with known_hosts or ca_file, by another way than this connection"},
		{gitrepo.ErrNoRepository, "make an empty repository there, or mend the URL"},
		{gitrepo.ErrFull, "make room on the remote"},
		{gitrepo.ErrRejected, "a hook or branch protection stands in the way: let the hub's account push to main, servers/* and proposals/*"},
		{gitrepo.ErrStale, "somebody else pushes there; it is tried again"},
		{gitrepo.ErrSlow, "it is tried again"},
		{gitrepo.ErrUnreachable, "it is tried again"},
	} {
		if errors.Is(err, a.class) && a.text != "" {
			return err.Error() + ": " + a.text
		}
	}
	return err.Error()
}
