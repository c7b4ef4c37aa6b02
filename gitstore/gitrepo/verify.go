package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sync/errgroup"
)

// Verify checks every reference: its commit, the whole history, all trees and files are there and hash to their
// names.
func (r *Repo) Verify(ctx context.Context) error { return r.verify(ctx, true) }

// verifyTips checks at start what the references point to, without the history: what is served next must be whole.
func (r *Repo) verifyTips() error { return r.verify(context.Background(), false) }

func (r *Repo) verify(ctx context.Context, history bool) error {
	state := r.refs.Load()
	v := &verifier{repo: r, history: history, seen: map[Hash]struct{}{}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, name := range state.names {
		group.Go(func() error {
			if err := v.branch(ctx, state.hashes[name]); err != nil {
				return fmt.Errorf("verify %s: %w", name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// verifier checks each object once.
type verifier struct {
	repo    *Repo
	history bool
	mu      sync.Mutex
	seen    map[Hash]struct{}
}

func (v *verifier) first(h Hash) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if contains(v.seen, h) {
		return false
	}
	v.seen[h] = struct{}{}
	return true
}

func (v *verifier) branch(ctx context.Context, tip Hash) error {
	for queue := []Hash{tip}; len(queue) > 0; queue = queue[1:] {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !v.first(queue[0]) {
			continue
		}
		data, err := v.object(queue[0], plumbing.CommitObject)
		if err != nil {
			return err
		}
		c, err := ParseCommit(data)
		if err != nil {
			return fmt.Errorf("commit %s: %w", queue[0], err)
		}
		if err := v.tree(c.Tree, 0); err != nil {
			return fmt.Errorf("commit %s: %w", queue[0], err)
		}
		if v.history {
			queue = append(queue, c.Parents...)
		}
	}
	return nil
}

func (v *verifier) tree(h Hash, depth int) error {
	if !v.first(h) {
		return nil
	}
	if depth > maxDepth {
		return corrupt("folders are nested more than %d deep", maxDepth)
	}
	data, err := v.object(h, plumbing.TreeObject)
	if err != nil {
		return err
	}
	entries, err := parseTree(data)
	if err != nil {
		return fmt.Errorf("tree %s: %w", h, err)
	}
	for _, e := range entries {
		switch {
		case e.Dir:
			err = v.tree(e.Hash, depth+1)
		case v.first(e.Hash):
			_, err = v.object(e.Hash, plumbing.BlobObject)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// object reads an object, which checks its hash; one that is missing is damage here.
func (v *verifier) object(h Hash, kind plumbing.ObjectType) ([]byte, error) {
	data, err := v.repo.object(h, kind)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, corrupt("%s %s is missing", kind, h)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}
