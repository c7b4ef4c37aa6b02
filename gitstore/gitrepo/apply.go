package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/internal/failpoint"
)

// Apply makes the commits of a batch in one pack and moves all their references at once: all or nothing. The
// hashes come back in the order of the updates. beforeRefs, if not nil, runs when the objects are safe on disk and
// the references have not moved; its error stops the batch.
//
// When the references moved but the move could not be made safe against power loss, Apply returns the hashes
// together with an error.
func (r *Repo) Apply(ctx context.Context, updates []Update, beforeRefs func([]Hash) error) ([]Hash, error) {
	r.write.Lock()
	defer r.write.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	if len(updates) == 0 {
		return nil, nil
	}
	if err := r.checkUpdates(updates); err != nil {
		return nil, err
	}
	hashes, p, err := r.writeObjects(ctx, updates)
	if err != nil {
		return nil, err
	}
	failpoint.Hit("hub.commit.packed")
	next, err := r.record(updates, hashes, beforeRefs)
	if err != nil {
		return nil, errors.Join(err, r.discard(p))
	}
	failpoint.Hit("hub.commit.recorded")
	moved, err := r.moveRefs(next)
	if !moved {
		return nil, errors.Join(fmt.Errorf("move references: %w", err), r.discard(p))
	}
	failpoint.Hit("hub.commit.moved")
	old := r.refs.Swap(next)
	close(old.changed)
	if err != nil {
		return hashes, fmt.Errorf("references moved, but not safe against power loss yet: %w", err)
	}
	r.rollUp()
	return hashes, nil
}

// checkUpdates checks all that can be checked before anything is written.
func (r *Repo) checkUpdates(updates []Update) error {
	state := r.refs.Load()
	batch := newRefState(make(map[string]Hash, len(updates)), 0)
	for i := range updates {
		u := &updates[i]
		if err := u.check(); err != nil {
			return fmt.Errorf("update %s: %w", u.Ref, err)
		}
		at, exists := state.hashes[u.Ref]
		if u.Expect != nil && *u.Expect != at {
			return fmt.Errorf("update %s: %w: it is at %s, not at %s", u.Ref, ErrStale, describe(at), describe(*u.Expect))
		}
		if _, twice := batch.hashes[u.Ref]; twice {
			return fmt.Errorf("update %s: %w", u.Ref, invalid("the batch names the reference twice"))
		}
		if u.Delete && !exists {
			return fmt.Errorf("update %s: %w", u.Ref, invalid("there is no such reference to remove"))
		}
		if !exists && state.collides(u.Ref) {
			return fmt.Errorf("update %s: %w", u.Ref, invalid("another reference's name is a folder of this one, or the reverse"))
		}
		batch.hashes[u.Ref] = Hash{}
	}
	batch = newRefState(batch.hashes, 0)
	for name := range batch.hashes {
		if batch.collides(name) {
			return fmt.Errorf("update %s: %w", name, invalid("another reference's name is a folder of this one, or the reverse"))
		}
	}
	return nil
}

func describe(h Hash) string {
	if h.IsZero() {
		return "no commit"
	}
	return h.Short()
}

func (u *Update) check() error {
	if err := checkRefName(u.Ref); err != nil {
		return err
	}
	if u.Delete || !u.To.IsZero() {
		return nil
	}
	if err := errors.Join(u.Author.validate("author"), u.Committer.validate("committer")); err != nil {
		return err
	}
	if strings.TrimSpace(u.Message) == "" || strings.HasPrefix(u.Message, "\n") {
		return invalid("the message has no subject")
	}
	if strings.ContainsRune(u.Message, 0) {
		return invalid("the message holds a zero byte")
	}
	return nil
}

// batch collects the objects of one Apply.
type batch struct {
	repo *Repo
	now  time.Time

	mu   sync.Mutex
	seen map[Hash]struct{}
	pack *packWriter
}

// writeObjects makes all objects of updates, on all processors, and puts them on disk. The pack is nil when
// nothing was new.
func (r *Repo) writeObjects(ctx context.Context, updates []Update) ([]Hash, *pack, error) {
	w, err := newPackWriter(r.packs.dir())
	if err != nil {
		return nil, nil, err
	}
	b := &batch{repo: r, now: r.now(), seen: map[Hash]struct{}{}, pack: w}
	hashes := make([]Hash, len(updates))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range updates {
		group.Go(func() error {
			if err := groupCtx.Err(); err != nil {
				return err
			}
			var err error
			if hashes[i], err = b.update(&updates[i]); err != nil {
				return fmt.Errorf("update %s: %w", updates[i].Ref, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		w.abort()
		return nil, nil, err
	}
	if w.count == 0 {
		w.abort()
		return hashes, nil, nil
	}
	p, err := w.finish()
	if err != nil {
		return nil, nil, err
	}
	r.packs.add(p)
	return hashes, p, nil
}

// update makes the objects of one update and says where its reference goes, zero for away.
func (b *batch) update(u *Update) (Hash, error) {
	switch {
	case u.Delete:
		return Hash{}, nil
	case u.To.IsZero():
		return b.commit(u)
	case u.Incoming != nil:
		return u.To, b.take(u.Incoming, u.To)
	}
	_, err := b.standing(u.To)
	return u.To, err
}

// standing returns a commit that is part of the repository: not one that was pruned and that a cache or a request
// under way still knows.
func (b *batch) standing(h Hash) (*Commit, error) {
	if !b.repo.packs.has(h) {
		return nil, notExist("commit %s", h)
	}
	return b.repo.Commit(h)
}

// commit makes the objects of one update.
func (b *batch) commit(u *Update) (Hash, error) {
	plan, err := planEdits(u.Edits)
	if err != nil {
		return Hash{}, err
	}
	var base Hash
	if !u.Base.IsZero() {
		c, err := b.standing(u.Base)
		if err != nil {
			return Hash{}, fmt.Errorf("base: %w", err)
		}
		base = c.Tree
	}
	for _, p := range u.Parents {
		if err := b.parent(u, p); err != nil {
			return Hash{}, fmt.Errorf("parent: %w", err)
		}
	}
	c := &Commit{Parents: u.Parents, Author: b.at(u.Author), Committer: b.at(u.Committer), Message: u.Message}
	if c.Tree, err = b.applyEdits(plan, base, ""); err != nil {
		return Hash{}, err
	}
	if c.Tree.IsZero() {
		if c.Tree, err = b.add(plumbing.TreeObject, nil, true); err != nil {
			return Hash{}, err
		}
	}
	data, err := encodeCommit(c, b.repo.opt.Sign)
	if err != nil {
		return Hash{}, err
	}
	return b.add(plumbing.CommitObject, data, true)
}

// parent makes sure that the repository has, or gets, a parent of u.
func (b *batch) parent(u *Update, p Hash) error {
	if u.Incoming != nil {
		return b.take(u.Incoming, p)
	}
	_, err := b.standing(p)
	return err
}

// at fills in the time of the batch.
func (b *batch) at(p Person) Person {
	if p.When.IsZero() {
		p.When = b.now
	}
	return p
}

// add puts an object into the pack unless the repository has it.
func (b *batch) add(kind plumbing.ObjectType, data []byte, compress bool) (Hash, error) {
	if len(data) > maxObject {
		return Hash{}, invalid("object is larger than %d MiB", maxObject>>20)
	}
	h := hashObject(kind, data)
	b.mu.Lock()
	_, seen := b.seen[h]
	b.seen[h] = struct{}{}
	b.mu.Unlock()
	if seen || b.repo.packs.has(h) {
		return h, nil
	}
	level := &stored
	switch {
	case compress && kind != plumbing.TreeObject && len(data) <= smallObject:
		level = &small
	case compress:
		level = &fast
	}
	e, err := newEntry(kind, data, level)
	if err != nil {
		return h, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return h, b.pack.add(h, e)
}

// record tells the caller about the commits that are about to count and returns the references to be.
func (r *Repo) record(updates []Update, hashes []Hash, beforeRefs func([]Hash) error) (*refState, error) {
	if beforeRefs != nil {
		if err := beforeRefs(append([]Hash(nil), hashes...)); err != nil {
			return nil, fmt.Errorf("record commits: %w", err)
		}
	}
	moves := make(map[string]Hash, len(updates))
	for i := range updates {
		moves[updates[i].Ref] = hashes[i]
	}
	return r.refs.Load().with(moves), nil
}

// discard removes the pack of a batch that did not come to be. Nothing refers to it.
func (r *Repo) discard(p *pack) error {
	if p == nil {
		return nil
	}
	return r.packs.drop(p)
}
