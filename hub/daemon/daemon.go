// Package daemon wires the hub together: configuration, the making of a new hub, and the run of API, Git server and
// reconcile loop until told to stop. It is the only place that chooses drivers.
package daemon

import (
	"context"
	"errors"
)

// Hub is a configured hub.
type Hub struct{}

// New opens the hub that cfg describes.
func New(ctx context.Context, cfg Config) (*Hub, error) { return nil, errors.New("not built yet") }

// Run serves until ctx is done.
func (h *Hub) Run(ctx context.Context) error { return errors.New("not built yet") }
