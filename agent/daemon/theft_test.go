package daemon_test

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestStolenSigningKey: a thief of the hub's key shows a state of the highest generation. The hub hears of it, and a new
// keyring takes the server back without a visit; what the thief signed counts for nothing then.
func TestStolenSigningKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent()
	a := w.attack()
	w.deployed(agent, w.play(a.Earlier), a.Bundles[0])
	stolen := w.play(a.Stolen)
	w.deployed(agent, stolen, a.Bundles[1]) // nobody can tell yet

	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	for heard := false; !heard; {
		w.mu.Lock()
		if n := len(w.heartbeats); n > 0 {
			heard = true
			// The hub takes no higher number, and must learn of the commit.
			if beat := w.heartbeats[n-1]; beat.Generation != 1<<53-1 || beat.NewestGeneration != 1<<53-1 || beat.Commit != stolen {
				t.Errorf("heartbeat %+v", beat)
			}
		}
		w.mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("no heartbeat")
		}
		time.Sleep(5 * time.Millisecond)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	recovered := w.play(a.Present) // generation 5 under the next keyring
	if result, err := agent.Once(t.Context()); err != nil || result.Commit != recovered || result.Generation != 5 {
		t.Fatalf("recovery: %+v, %v", result, err)
	}
	w.play(a.Stolen)
	if _, err := agent.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "keyring version 1 is older than version 2") {
		t.Errorf("what the thief signed, again: %v", err)
	}
	w.deployed(agent, w.play(a.Next), a.Bundles[2])
}
