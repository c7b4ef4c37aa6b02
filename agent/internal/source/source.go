// This file asks the remote: what the server's branch holds, and the files of a new commit.

package source

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
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

// ErrBehind means that a remote beside the hub's own holds an older state than the newest one seen: it is behind, or
// holds newer states back. What it holds is good as such.
var ErrBehind = errors.New("git remote is behind")

// Named is one of several remotes.
type Named struct {
	// Name is what people call it.
	Name string
	// Mirror says that it is not the hub's own: it may be behind for a while.
	Mirror bool
	Remote Remote
}

// Source finds this server's state on its remotes, which are asked in turn: the first that is well answers.
type Source struct {
	trust Trust
	now   func() time.Time

	mu     sync.Mutex
	routes []*route
	// next and old are this server's keys beside the present one; nil where there is none.
	next, old *seal.PrivateKey
	// current is the one that answered last.
	current *route
}

// New returns a Source that reads the branch of trust.Server from remote.
func New(remote Remote, trust Trust, now func() time.Time) *Source {
	return NewSeveral([]Named{{Name: "hub", Remote: remote}}, trust, now)
}

// NewSeveral returns a Source with several remotes in the order of preference; there must be one.
func NewSeveral(remotes []Named, trust Trust, now func() time.Time) *Source {
	s := &Source{trust: trust, now: now}
	for _, r := range remotes {
		s.routes = append(s.routes, &route{Named: r})
	}
	s.current = s.routes[0]
	return s
}

// SetKeys tells the keys of this server. What comes from a remote may be sealed to the next one too, and what lies in the
// local history to the old one. Both may be nil.
func (s *Source) SetKeys(present, next, old *seal.PrivateKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trust.Key, s.next, s.old = present, next, old
}

// trustFor is the trust with that key of this server which files say they are for, where it is one of those allowed.
func (s *Source) trustFor(files map[string][]byte, history bool) Trust {
	s.mu.Lock()
	defer s.mu.Unlock()
	trust := s.trust
	m, err := manifest.Decode(files[manifest.File])
	if err != nil {
		return trust // whoever verifies will say so
	}
	keys := []*seal.PrivateKey{s.next}
	if history {
		keys = append(keys, s.old)
	}
	for _, key := range keys {
		if key != nil && key.Fingerprint() == m.ServerKeyFpr {
			trust.Key = key
		}
	}
	return trust
}

// KeyFingerprint is that of the key which the state was verified for.
func (s *State) KeyFingerprint() string {
	m, err := manifest.Decode(s.Files[manifest.File])
	if err != nil {
		return "" // never: it was verified
	}
	return m.ServerKeyFpr
}

// Len is the number of remotes.
func (s *Source) Len() int { return len(s.routes) }

// Current is the name of the remote that answered last.
func (s *Source) Current() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Name
}

// PassOver lets the other remotes go first for a while: what the current one holds does not do.
func (s *Source) PassOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.fail(s.now())
}

// Tip returns the commit that the server's branch is at, as the first remote that is well says. It costs one small
// request. An empty commit means that the branch does not exist yet: the server is not approved, or nothing is deployed
// to it. retryAfter, with an error, is how long all remotes ask to be left alone; until then none is asked. The error is
// ErrUnreachable, or ErrRefused where a remote answered against the limits or against Git's rules.
func (s *Source) Tip(ctx context.Context) (commit string, retryAfter time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var faults []error
	var waits []time.Duration
	kind := ErrUnreachable
	for _, r := range s.order() {
		if wait := r.quiet.Sub(s.now()); wait > 0 {
			waits = append(waits, wait)
			faults = append(faults, fmt.Errorf("%sthe remote asks to be left alone for %s", s.prefix(r), wait.Round(time.Second)))
			continue
		}
		tip, err := r.Remote.Poll(ctx, manifest.ServerBranch(s.trust.Server), r.etag)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s%w", s.prefix(r), err))
			if ctx.Err() != nil {
				break // stopped from outside: the remote is not to blame
			}
			if isBad(err) {
				kind = ErrRefused
			}
			r.fail(s.now())
			r.quiet = s.now().Add(tip.RetryAfter)
			waits = append(waits, tip.RetryAfter)
			continue
		}
		if !tip.NotModified {
			r.etag, r.tip = tip.ETag, tip.Hash
		}
		r.failures, r.notBefore = 0, time.Time{}
		s.current = r
		if r.tip.IsZero() {
			return "", tip.RetryAfter, nil
		}
		return r.tip.String(), tip.RetryAfter, nil
	}
	return "", slices.Min(append(waits, time.Hour)), fmt.Errorf("%w: %w", kind, joined(faults))
}

// Fetch gets the commit that Tip named last, from the remote that named it, and verifies it against floor. What a
// remote sends against the limits or against Git's rules is refused; where it does not send at all the error is
// ErrUnreachable. A good state older than floor on a mirror is ErrBehind.
func (s *Source) Fetch(ctx context.Context, floor Floor) (*State, error) {
	s.mu.Lock()
	r := s.current
	tip := r.tip
	s.mu.Unlock()
	snapshot, err := r.Remote.Fetch(ctx, manifest.ServerBranch(s.trust.Server), tip)
	if err != nil {
		kind := ErrUnreachable
		if isBad(err) {
			kind = ErrRefused
		}
		return nil, fmt.Errorf("%w: %sfetch commit %s: %w", kind, s.prefix(r), tip, err)
	}
	return s.verifyFrom(r, floor, tip.String(), snapshot.Files)
}

// isBad tells an answer that no honest remote gives from one that did not come.
func isBad(err error) bool {
	return errors.Is(err, gitrepo.ErrTooLarge) || errors.Is(err, gitrepo.ErrCorrupt)
}

// verifyFrom verifies what r holds.
func (s *Source) verifyFrom(r *route, floor Floor, commit string, files map[string][]byte) (*State, error) {
	trust := s.trustFor(files, false)
	state, err := Verify(trust, floor, commit, files, s.now())
	if err == nil || !r.Mirror || !errors.Is(err, ErrRefused) {
		return state, err
	}
	// Is it bad, or only old?
	if old, fault := Verify(trust, Floor{}, commit, files, s.now()); fault == nil && old.older(floor) {
		return nil, fmt.Errorf("%w: %s holds generation %d, this server has seen %d", ErrBehind, r.Name, old.Generation, floor.Generation)
	}
	return nil, err
}

// older says that a state comes before floor.
func (s *State) older(floor Floor) bool {
	return s.KeyringVersion < floor.KeyringVersion || s.KeyringVersion == floor.KeyringVersion && s.Generation < floor.Generation
}

// Load verifies the files of a commit from the local history. The floor does not bind it: the server's own
// administrator may go back.
func (s *Source) Load(commit string, files map[string][]byte) (*State, error) {
	state, err := Verify(s.trustFor(files, true), Floor{}, commit, files, s.now())
	if err != nil {
		return nil, err
	}
	for i := range state.Deployments {
		state.Deployments[i].StepBack = true
	}
	return state, nil
}

// Verify checks the files of a commit that was fetched before, and that the current remote is at, against floor.
func (s *Source) Verify(floor Floor, commit string, files map[string][]byte) (*State, error) {
	s.mu.Lock()
	r := s.current
	s.mu.Unlock()
	return s.verifyFrom(r, floor, commit, files)
}
