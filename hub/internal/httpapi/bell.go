// The doorbell: a heartbeat that waits is answered as soon as there is news for its server, so that a change is fetched
// within a second and no request is made for it alone.

package httpapi

import (
	"context"
	"sync"
	"time"
)

const (
	// longestHold is how long a heartbeat is kept at most: proxies cut off what is silent for a minute.
	longestHold = 55 * time.Second
	// heartbeatTimeout bounds a heartbeat that waits.
	heartbeatTimeout = longestHold + operationTimeout
)

// Bell wakes the heartbeats that wait. The zero value is ready for use.
type Bell struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
	closed  bool
}

// Close answers all that waits, and from now on each heartbeat at once: the hub is about to end.
func (b *Bell) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rung := range b.waiting {
		close(rung)
	}
	b.waiting, b.closed = nil, true
}

// Ring wakes what waits for the server. It never blocks.
func (b *Bell) Ring(server string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if rung := b.waiting[server]; rung != nil {
		close(rung)
		delete(b.waiting, server)
	}
}

// listen returns what is closed at the next ring, and at the next call for the same server: an agent that asks anew
// has given up the request before.
func (b *Bell) listen(server string) <-chan struct{} {
	b.Ring(server)
	b.mu.Lock()
	defer b.mu.Unlock()
	rung := make(chan struct{})
	switch {
	case b.closed:
		close(rung)
		return rung
	case b.waiting == nil:
		b.waiting = map[string]chan struct{}{}
	}
	b.waiting[server] = rung
	return rung
}

// leave forgets a listener that waits no longer.
func (b *Bell) leave(server string, rung <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting[server] == rung {
		delete(b.waiting, server)
	}
}

// hold waits for a ring, the end of the time or of the request.
func hold(ctx context.Context, rung <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-rung:
	case <-timer.C:
	case <-ctx.Done():
	}
}
