// This file is the client that proves a deployment hitless.

package deployertest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

// Hammer connects to a server without a pause until it is stopped.
type Hammer struct {
	handshakes atomic.Int64
	failures   atomic.Int64
	stop       context.CancelFunc
	done       sync.WaitGroup

	mu      sync.Mutex
	leaves  map[string]bool
	lastErr error
}

// StartHammer starts loops connection loops.
func StartHammer(tb testing.TB, address, serverName string, loops int) *Hammer {
	tb.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	h := &Hammer{stop: stop, leaves: make(map[string]bool)}
	endpoint := probe.Endpoint{Address: address, ServerName: serverName}
	prober := &probe.Prober{Timeout: 10 * time.Second}
	for range loops {
		h.done.Go(func() {
			for {
				leaf, err := probe.Leaf(context.WithoutCancel(ctx), prober, endpoint)
				h.handshakes.Add(1)
				h.mu.Lock()
				if err != nil {
					h.failures.Add(1)
					h.lastErr = err
				} else {
					h.leaves[bundle.LeafSHA256(leaf)] = true
				}
				h.mu.Unlock()
				if ctx.Err() != nil {
					return
				}
			}
		})
	}
	tb.Cleanup(func() { h.end() })
	return h
}

func (h *Hammer) end() {
	h.stop()
	h.done.Wait()
}

// Check stops the loops and wants every handshake to have shown one of leaves.
func (h *Hammer) Check(tb testing.TB, leaves ...string) {
	tb.Helper()
	h.end()
	if n := h.failures.Load(); n > 0 {
		tb.Errorf("%d of %d handshakes failed, the last with: %v", n, h.handshakes.Load(), h.lastErr)
	}
	for _, leaf := range leaves {
		delete(h.leaves, leaf)
	}
	if len(h.leaves) > 0 {
		tb.Errorf("leaves were served that nobody deployed: %v", h.leaves)
	}
	tb.Logf("%d handshakes, %d failed", h.handshakes.Load(), h.failures.Load())
}
