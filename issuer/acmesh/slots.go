// This file lets one at a time do what cannot be done twice at once, among all issuers of this process.

package acmesh

import (
	"context"
	"sync"
)

// slots are for one holder at a time, each by its key. The zero value is ready.
type slots[K comparable] struct {
	mu  sync.Mutex
	all map[K]chan struct{}
}

// hold waits for a slot, at most until ctx is done, and answers how to give it back.
func (s *slots[K]) hold(ctx context.Context, key K) (release func(), err error) {
	s.mu.Lock()
	if s.all == nil {
		s.all = map[K]chan struct{}{}
	}
	if s.all[key] == nil {
		s.all[key] = make(chan struct{}, 1)
	}
	slot := s.all[key]
	s.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
