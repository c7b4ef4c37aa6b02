// This file says which of several remotes is asked first.

package source

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
)

// A remote that failed is passed over for firstPause, and twice as long after each further failure, up to longestPause;
// then it is tried first again where it stands first.
const (
	firstPause   = time.Minute
	longestPause = 10 * time.Minute
)

// route is a remote and how it did.
type route struct {
	Named

	etag string
	tip  gitrepo.Hash
	// failures in a row, for which others go first until notBefore.
	failures  int
	notBefore time.Time
	// quiet is until when the remote asked to be left alone.
	quiet time.Time
}

// fail lets the others go first for a while, a fifth more or less: a fleet must not come back as a herd.
func (r *route) fail(now time.Time) {
	pause := min(firstPause<<min(r.failures, 10), longestPause)
	r.failures++
	r.notBefore = now.Add(pause - pause/5 + rand.N(2*pause/5)) //nolint:gosec // spreading load needs no secret randomness
}

// order lists the remotes that are well, then the others: where none is well, all are tried.
func (s *Source) order() []*route {
	now := s.now()
	ordered := make([]*route, 0, len(s.routes))
	for _, well := range []bool{true, false} {
		for _, r := range s.routes {
			if r.notBefore.After(now) != well {
				ordered = append(ordered, r)
			}
		}
	}
	return ordered
}

// prefix names a remote in an error where there are several.
func (s *Source) prefix(r *route) string {
	if len(s.routes) == 1 {
		return ""
	}
	return "remote " + r.Name + ": "
}

// joined joins errors on one line, as they stand in a status.
func joined(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	all := errs[0]
	for _, err := range errs[1:] {
		all = fmt.Errorf("%w; %w", all, err)
	}
	return all
}
