// The audit history: what handlers write to it themselves, and how it is read.

package httpapi

import (
	"context"
	"fmt"

	"github.com/certferry/certferry/hub"
)

// event makes a row about a request.
func (s *server) event(c *call, object, outcome, detail string) hub.AuditEvent {
	return hub.AuditEvent{
		At: s.cfg.Now(), Actor: actorOf(c.principal), Action: c.operation, Object: object, Outcome: outcome,
		Address: c.address, RequestID: c.requestID, Detail: detail,
	}
}

// auditDenied records an attempt that is refused.
func (s *server) auditDenied(ctx context.Context, c *call, object, reason string) error {
	// The row must stand even where the caller hung up.
	ctx = context.WithoutCancel(ctx)
	if err := s.cfg.Data.Audit(ctx, s.event(c, object, hub.OutcomeDenied, reason)); err != nil {
		return fmt.Errorf("record denied attempt: %w", err)
	}
	return nil
}

// actorOf names a caller; agents are marked, as a server may be named like a user.
func actorOf(p hub.Principal) string {
	switch p.Kind {
	case hub.Person:
		return p.Name
	case hub.Agent:
		return "agent:" + p.Name
	case hub.Anonymous:
	}
	return "anonymous"
}
