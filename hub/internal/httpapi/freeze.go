// Heartbeats as a sign of remotes that hold newer states back.

package httpapi

import (
	"context"
	"fmt"

	"github.com/certferry/certferry/hub/apiv1"
)

// Freezes hears what agents have seen of their branches.
type Freezes interface {
	Seen(ctx context.Context, server string, newest, expected uint64) error
}

// watchFreeze passes a heartbeat on. What counts is what the agent verified: a deployment that failed is not the
// remote's doing. An older agent says it only by what it deployed, and a server that is held on the spot looks at
// nothing. A fault here must not cost the agent its answer.
func (s *server) watchFreeze(ctx context.Context, c *call, req apiv1.HeartbeatRequest, expected uint64) {
	newest := max(req.NewestGeneration, req.Generation)
	if s.cfg.Freezes == nil || req.Held || req.NewestGeneration == 0 && req.Status == "failed" {
		return
	}
	if err := s.cfg.Freezes.Seen(ctx, c.principal.Name, newest, expected); err != nil {
		s.logFault(ctx, c, fmt.Errorf("watch heartbeat: %w", err))
	}
}
