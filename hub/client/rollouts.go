// Rollouts, proposals, and all certificates at once.

package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// Rollouts lists the rollouts under way, by certificate.
func (c *Client) Rollouts(ctx context.Context, p Page) (out apiv1.List[apiv1.Rollout], err error) {
	return out, c.get(ctx, "/rollouts", p.values(), &out)
}

// Rollout shows the rollout of a certificate.
func (c *Client) Rollout(ctx context.Context, certificate string) (out apiv1.Rollout, err error) {
	return out, c.get(ctx, path("rollouts", certificate), nil, &out)
}

// PauseRollout stops a rollout where it is.
func (c *Client) PauseRollout(ctx context.Context, certificate, reason string) error {
	return c.post(ctx, path("rollouts", certificate, "pause"), apiv1.ReasonRequest{Reason: reason}, nil)
}

// ResumeRollout lets a rollout go on with its present wave.
func (c *Client) ResumeRollout(ctx context.Context, certificate string) error {
	return c.post(ctx, path("rollouts", certificate, "resume"), nil, nil)
}

// PromoteRollout begins the next wave, or with all the whole rest, without waiting.
func (c *Client) PromoteRollout(ctx context.Context, certificate string, all bool) error {
	return c.post(ctx, path("rollouts", certificate, "promote"), apiv1.PromoteRequest{All: all}, nil)
}

// AbortRollout takes all servers back to the issue before.
func (c *Client) AbortRollout(ctx context.Context, certificate, reason string) error {
	return c.post(ctx, path("rollouts", certificate, "abort"), apiv1.ReasonRequest{Reason: reason}, nil)
}

// Proposals lists issues that wait for review, by certificate.
func (c *Client) Proposals(ctx context.Context, p Page) (out apiv1.List[apiv1.Proposal], err error) {
	return out, c.get(ctx, "/proposals", p.values(), &out)
}

// Proposal shows the open proposal of a certificate.
func (c *Client) Proposal(ctx context.Context, certificate string) (out apiv1.Proposal, err error) {
	return out, c.get(ctx, path("proposals", certificate), nil, &out)
}

// ApproveProposal agrees to a proposal; merged says that enough people did.
func (c *Client) ApproveProposal(ctx context.Context, certificate string, in apiv1.ReviewRequest) (out apiv1.ReviewReply, err error) {
	return out, c.post(ctx, path("proposals", certificate, "approve"), in, &out)
}

// RejectProposal ends a proposal and pauses the renewal.
func (c *Client) RejectProposal(ctx context.Context, certificate string, in apiv1.ReviewRequest) error {
	return c.post(ctx, path("proposals", certificate, "reject"), in, nil)
}

// RollbackFleet takes all certificates back to a commit of main.
func (c *Client) RollbackFleet(ctx context.Context, in apiv1.FleetRollbackRequest) (out apiv1.FleetRollback, err error) {
	return out, c.post(ctx, "/fleet/rollback", in, &out)
}

// ResumeFleet ends the pauses that a rollback of the fleet made.
func (c *Client) ResumeFleet(ctx context.Context) (out apiv1.FleetResumed, err error) {
	return out, c.post(ctx, "/fleet/resume", nil, &out)
}

// HoldServer keeps a server at what it has.
func (c *Client) HoldServer(ctx context.Context, name, reason string) (out apiv1.Server, err error) {
	return out, c.post(ctx, path("servers", name, "hold"), apiv1.ReasonRequest{Reason: reason}, &out)
}
