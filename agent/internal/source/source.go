// This file asks the remote: what the server's branch holds, and the files of a new commit.

package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// ErrUnreachable means that the remote did not answer.
var ErrUnreachable = errors.New("git remote is unreachable")

// Remote is the Git remote of one repository; *gitrepo.Remote is one.
type Remote interface {
	// Poll asks which commit ref is at.
	Poll(ctx context.Context, ref, etag string) (gitrepo.Tip, error)
	// Fetch returns the commit at tip with its files.
	Fetch(ctx context.Context, ref string, tip gitrepo.Hash) (*gitrepo.Snapshot, error)
}

// Source finds this server's state on a remote.
type Source struct {
	remote Remote
	trust  Trust
	now    func() time.Time

	mu   sync.Mutex
	etag string
	tip  gitrepo.Hash
}

// New returns a Source that reads the branch of trust.Server from remote.
func New(remote Remote, trust Trust, now func() time.Time) *Source {
	return &Source{remote: remote, trust: trust, now: now}
}

// Tip returns the commit that the server's branch is at, as the remote says. It costs one small request. An empty
// commit means that the branch does not exist yet: the server is not approved, or nothing is deployed to it.
func (s *Source) Tip(ctx context.Context) (commit string, retryAfter time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tip, err := s.remote.Poll(ctx, manifest.ServerBranch(s.trust.Server), s.etag)
	if err != nil {
		return "", tip.RetryAfter, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if !tip.NotModified {
		s.etag, s.tip = tip.ETag, tip.Hash
	}
	if s.tip.IsZero() {
		return "", tip.RetryAfter, nil
	}
	return s.tip.String(), tip.RetryAfter, nil
}

// Fetch gets the commit that Tip named last and verifies it against floor. What a remote sends against the limits or
// against Git's rules is refused; where it does not send at all the error is ErrUnreachable.
func (s *Source) Fetch(ctx context.Context, floor Floor) (*State, error) {
	s.mu.Lock()
	tip := s.tip
	s.mu.Unlock()
	snapshot, err := s.remote.Fetch(ctx, manifest.ServerBranch(s.trust.Server), tip)
	if err != nil {
		kind := ErrUnreachable
		if errors.Is(err, gitrepo.ErrTooLarge) || errors.Is(err, gitrepo.ErrCorrupt) {
			kind = ErrRefused
		}
		return nil, fmt.Errorf("%w: fetch commit %s: %w", kind, tip, err)
	}
	return Verify(s.trust, floor, tip.String(), snapshot.Files, s.now())
}

// Load verifies the files of a commit from the local history. The floor does not bind it: the server's own
// administrator may go back.
func (s *Source) Load(commit string, files map[string][]byte) (*State, error) {
	state, err := Verify(s.trust, Floor{}, commit, files, s.now())
	if err != nil {
		return nil, err
	}
	for i := range state.Deployments {
		state.Deployments[i].StepBack = true
	}
	return state, nil
}

// Verify checks the files of a commit that was fetched before against floor.
func (s *Source) Verify(floor Floor, commit string, files map[string][]byte) (*State, error) {
	return Verify(s.trust, floor, commit, files, s.now())
}
