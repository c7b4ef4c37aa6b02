// Rollouts, proposals and the fleet as a whole: how new issues go out, who must agree first, and the way back.

package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/intent"
)

// Rollouts describes how new issues go out.
type Rollouts interface {
	Rollouts(ctx context.Context) ([]apiv1.Rollout, error)
}

// Proposals reads issues that wait for review.
type Proposals interface {
	Proposals() ([]*gitstore.Proposal, error)
}

// RolloutIntent is the part of Intent about rollouts, proposals and the fleet.
type RolloutIntent interface {
	PauseRollout(ctx context.Context, actor hub.Principal, requestID, name, reason string) error
	ResumeRollout(ctx context.Context, actor hub.Principal, requestID, name string) error
	PromoteRollout(ctx context.Context, actor hub.Principal, requestID, name string, all bool) error
	AbortRollout(ctx context.Context, actor hub.Principal, requestID, name, reason string) error
}

// ReviewIntent is the part of Intent about proposals.
type ReviewIntent interface {
	ConsentTo(p *gitstore.Proposal) (intent.Consent, error)
	ApproveProposal(ctx context.Context, actor hub.Principal, requestID, name, serial, reason string) (merged bool, err error)
	RejectProposal(ctx context.Context, actor hub.Principal, requestID, name, serial, reason string) error
}

// FleetIntent is the part of Intent about all certificates at once.
type FleetIntent interface {
	RollbackFleet(ctx context.Context, actor hub.Principal, requestID string, req apiv1.FleetRollbackRequest) (apiv1.FleetRollback, error)
	ResumeFleet(ctx context.Context, actor hub.Principal, requestID string) (int, error)
}

func (s *server) addRollouts() {
	add(s, operation{
		id: "list-rollouts", method: http.MethodGet, path: "/rollouts", tag: "rollouts", summary: "List rollouts under way",
	}, s.listRollouts)
	add(s, operation{
		id: "get-rollout", method: http.MethodGet, path: "/rollouts/{id}", tag: "rollouts", summary: "Show a certificate's rollout",
	}, s.getRollout)
	add(s, operation{
		id: "pause-rollout", method: http.MethodPost, path: "/rollouts/{id}/pause", tag: "rollouts",
		summary: "Stop a rollout where it is", status: http.StatusNoContent,
	}, s.pauseRollout)
	add(s, operation{
		id: "resume-rollout", method: http.MethodPost, path: "/rollouts/{id}/resume", tag: "rollouts",
		summary: "Let a rollout go on with its present wave", status: http.StatusNoContent,
	}, s.resumeRollout)
	add(s, operation{
		id: "promote-rollout", method: http.MethodPost, path: "/rollouts/{id}/promote", tag: "rollouts",
		summary: "Begin the next wave, or all, without waiting", status: http.StatusNoContent,
	}, s.promoteRollout)
	add(s, operation{
		id: "abort-rollout", method: http.MethodPost, path: "/rollouts/{id}/abort", tag: "rollouts",
		summary: "Take all servers back to the issue before", status: http.StatusNoContent,
	}, s.abortRollout)
	add(s, operation{
		id: "list-proposals", method: http.MethodGet, path: "/proposals", tag: "rollouts", summary: "List issues that wait for review",
	}, s.listProposals)
	add(s, operation{
		id: "get-proposal", method: http.MethodGet, path: "/proposals/{id}", tag: "rollouts", summary: "Show a certificate's proposal",
	}, s.getProposal)
	add(s, operation{
		id: "approve-proposal", method: http.MethodPost, path: "/proposals/{id}/approve", tag: "rollouts",
		summary: "Agree to a proposal; it is merged once enough people did",
	}, s.approveProposal)
	add(s, operation{
		id: "reject-proposal", method: http.MethodPost, path: "/proposals/{id}/reject", tag: "rollouts",
		summary: "End a proposal and pause the renewal", status: http.StatusNoContent,
	}, s.rejectProposal)
	add(s, operation{
		id: "rollback-fleet", method: http.MethodPost, path: "/fleet/rollback", tag: "rollouts",
		summary: "Take all certificates back to a commit of main, or say what that would do",
	}, s.rollbackFleet)
	add(s, operation{
		id: "resume-fleet", method: http.MethodPost, path: "/fleet/resume", tag: "rollouts",
		summary: "End the pauses that a rollback of the fleet made",
	}, s.resumeFleet)
}

func (s *server) listRollouts(ctx context.Context, _ *call, in *PageInput) (*listOutput[apiv1.Rollout], error) {
	all, err := s.cfg.Rollouts.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	by := make(map[string]apiv1.Rollout, len(all))
	names := make([]string, 0, len(all))
	for i := range all {
		by[all[i].Certificate] = all[i]
		names = append(names, all[i].Certificate)
	}
	rollouts := source[string]{fetch: sorted(names), key: func(name string) string { return name }}
	return list(ctx, rollouts, *in, func(name string) (apiv1.Rollout, error) { return cleanRollout(by[name]), nil })
}

func (s *server) getRollout(ctx context.Context, _ *call, in *IDInput) (*output[apiv1.Rollout], error) {
	all, err := s.cfg.Rollouts.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(r apiv1.Rollout) bool { return r.Certificate == in.ID })
	if i < 0 {
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "no rollout of this certificate is under way"}
	}
	return &output[apiv1.Rollout]{Body: cleanRollout(all[i])}, nil
}

// cleanRollout keeps what servers said from reaching a terminal as more than text.
func cleanRollout(r apiv1.Rollout) apiv1.Rollout {
	r.Reason, r.StartedAt, r.WaveStartedAt = oneLine(r.Reason), r.StartedAt.UTC(), r.WaveStartedAt.UTC()
	for _, w := range r.Waves {
		for i := range w.Servers {
			w.Servers[i].Detail = lines(w.Servers[i].Detail)
		}
	}
	return r
}

func (s *server) pauseRollout(ctx context.Context, c *call, in *idOptionalInput[apiv1.ReasonRequest]) (*none, error) {
	return nil, s.cfg.Intent.PauseRollout(ctx, c.principal, c.requestID, in.ID, reasonIn(in.Body))
}

func (s *server) resumeRollout(ctx context.Context, c *call, in *IDInput) (*none, error) {
	return nil, s.cfg.Intent.ResumeRollout(ctx, c.principal, c.requestID, in.ID)
}

func (s *server) promoteRollout(ctx context.Context, c *call, in *idOptionalInput[apiv1.PromoteRequest]) (*none, error) {
	return nil, s.cfg.Intent.PromoteRollout(ctx, c.principal, c.requestID, in.ID, in.Body != nil && in.Body.All)
}

func (s *server) abortRollout(ctx context.Context, c *call, in *idOptionalInput[apiv1.ReasonRequest]) (*none, error) {
	return nil, s.cfg.Intent.AbortRollout(ctx, c.principal, c.requestID, in.ID, reasonIn(in.Body))
}

func reasonIn(in *apiv1.ReasonRequest) string {
	if in == nil {
		return ""
	}
	return in.Reason
}

func (s *server) listProposals(ctx context.Context, _ *call, in *PageInput) (*listOutput[apiv1.Proposal], error) {
	all, err := s.cfg.Proposals.Proposals()
	if err != nil {
		return nil, err
	}
	by := make(map[string]*gitstore.Proposal, len(all))
	names := make([]string, 0, len(all))
	for _, p := range all {
		if by[p.Certificate] == nil {
			names = append(names, p.Certificate)
		}
		by[p.Certificate] = p
	}
	proposals := source[string]{fetch: sorted(names), key: func(name string) string { return name }}
	return list(ctx, proposals, *in, func(name string) (apiv1.Proposal, error) { return s.viewProposal(by[name]) })
}

func (s *server) getProposal(_ context.Context, _ *call, in *IDInput) (*output[apiv1.Proposal], error) {
	all, err := s.cfg.Proposals.Proposals()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(p *gitstore.Proposal) bool { return p.Certificate == in.ID })
	if i < 0 {
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "no issue of this certificate waits for review"}
	}
	v, err := s.viewProposal(all[i])
	return &output[apiv1.Proposal]{Body: v}, err
}

func (s *server) viewProposal(p *gitstore.Proposal) (apiv1.Proposal, error) {
	consent, err := s.cfg.Intent.ConsentTo(p)
	if err != nil {
		return apiv1.Proposal{}, err
	}
	view, err := s.newView()
	if err != nil {
		return apiv1.Proposal{}, err
	}
	v := apiv1.Proposal{
		Certificate: p.Certificate, Serial: p.Serial, Branch: "proposals/" + p.Certificate + "/" + p.Serial, Commit: p.Commit.Hash.String(),
		Names: append([]string{}, p.Issued.Names...), Issued: viewIssued(p.Issued), AskedBy: oneLine(cmp.Or(p.AskedBy, intent.HubActor)),
		Reason: bodyOf(p.Commit.Message), ProposedAt: p.Commit.Committer.When.UTC(),
		AgreedBy: append([]string{}, consent.People...), Missing: consent.Missing, Servers: []string{},
	}
	if have := view.snap.Issued[p.Certificate]; have != nil {
		inUse := viewIssued(have)
		v.InUse = &inUse
	}
	if wish := view.snap.Certificates[p.Certificate]; wish != nil {
		for _, place := range wish.Deployments {
			v.Servers = append(v.Servers, view.serversOf(place)...)
		}
		slices.Sort(v.Servers)
		v.Servers = slices.Compact(v.Servers)
	}
	return v, nil
}

func viewIssued(i *manifest.IssuedCertificate) apiv1.Issued {
	return apiv1.Issued{
		Serial: i.Serial, Issuer: i.Issuer, NotBefore: i.NotBefore.UTC(), NotAfter: i.NotAfter.UTC(),
		LeafSHA256: i.LeafSHA256, SPKISHA256: i.SPKISHA256,
	}
}

func (s *server) approveProposal(ctx context.Context, c *call, in *idOptionalInput[apiv1.ReviewRequest]) (*output[apiv1.ReviewReply], error) {
	req := reviewIn(in.Body)
	merged, err := s.cfg.Intent.ApproveProposal(ctx, c.principal, c.requestID, in.ID, req.Serial, req.Reason)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.ReviewReply]{Body: apiv1.ReviewReply{Merged: merged}}, nil
}

func (s *server) rejectProposal(ctx context.Context, c *call, in *idOptionalInput[apiv1.ReviewRequest]) (*none, error) {
	req := reviewIn(in.Body)
	return nil, s.cfg.Intent.RejectProposal(ctx, c.principal, c.requestID, in.ID, req.Serial, req.Reason)
}

func reviewIn(in *apiv1.ReviewRequest) apiv1.ReviewRequest {
	if in == nil {
		return apiv1.ReviewRequest{}
	}
	return *in
}

func (s *server) rollbackFleet(ctx context.Context, c *call, in *input[apiv1.FleetRollbackRequest]) (*output[apiv1.FleetRollback], error) {
	out, err := s.cfg.Intent.RollbackFleet(ctx, c.principal, c.requestID, in.Body)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.FleetRollback]{Body: out}, nil
}

func (s *server) resumeFleet(ctx context.Context, c *call, _ *none) (*output[apiv1.FleetResumed], error) {
	n, err := s.cfg.Intent.ResumeFleet(ctx, c.principal, c.requestID)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.FleetResumed]{Body: apiv1.FleetResumed{Certificates: n}}, nil
}
