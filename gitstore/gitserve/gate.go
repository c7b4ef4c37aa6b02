// This file keeps a herd from taking the hub down: what costs memory or a processor queues, and beyond the queue
// callers are asked to come again later.

package gitserve

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// gate lets a number of callers work at once and a number of others wait.
type gate struct {
	slots   chan struct{}
	waiting atomic.Int64
	queue   int64
	patient time.Duration
}

func newGate(slots, queue int, patient time.Duration) *gate {
	return &gate{slots: make(chan struct{}, slots), queue: int64(queue), patient: patient}
}

// enter waits for a slot; ok is false when too many wait already, or it took too long. release gives the slot back.
func (g *gate) enter(ctx context.Context) (release func(), ok bool) {
	release = func() { <-g.slots }
	select {
	case g.slots <- struct{}{}:
		return release, true
	default:
	}
	if g.waiting.Add(1) > g.queue {
		g.waiting.Add(-1)
		return nil, false
	}
	defer g.waiting.Add(-1)
	ctx, cancel := context.WithTimeout(ctx, g.patient)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		return release, true
	case <-ctx.Done():
		return nil, false
	}
}

// Bounds of when a caller is asked to come again, in seconds. It is a draw, so that a herd does not come back as one.
const (
	retryLeast = 5
	retrySpan  = 25
)

// busy asks a caller to come again later.
func busy(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(retryLeast+rand.IntN(retrySpan))) //nolint:gosec // G404: spreads load, guards nothing
	http.Error(w, "Too many are fetching at once. Try again in a moment.", http.StatusServiceUnavailable)
}
