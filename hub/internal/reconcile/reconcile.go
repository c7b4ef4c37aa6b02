// Package reconcile brings the world to what the branch main says: it plans which certificates are due, issues them
// as jobs, and publishes each server's state to its branch.
//
// It is a loop of named, idempotent steps. Each step reads main, the database and the clock afresh, so that the
// process can be killed between any two instructions and goes on where it was when it starts again.
package reconcile

import "context"

// Reconciler runs the loop.
type Reconciler struct{}

// Run reconciles until ctx is done.
func (r *Reconciler) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Trigger asks for a pass soon. It never blocks.
func (r *Reconciler) Trigger() {}
