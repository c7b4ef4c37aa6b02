package intent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// Proposals keeps issues that wait for review.
type Proposals interface {
	Proposal(certificate, serial string) (*gitstore.Proposal, error)
	Approve(ctx context.Context, p *gitstore.Proposal, c gitstore.Change) error
	MergeProposal(ctx context.Context, p *gitstore.Proposal, c gitstore.Change) (commit string, err error)
	CloseProposal(ctx context.Context, p *gitstore.Proposal, c gitstore.Change) error
}

// Consent is who agreed to a proposal, and what is missing.
type Consent struct {
	// People are those who agreed, the one who asked for the issue first where that was a person.
	People []string
	// Missing is how many more must agree.
	Missing int
	// TwoPerson says that two must.
	TwoPerson bool
}

// ConsentTo says who agreed to p. One person is enough where review is required; the two-person rule wants two, of
// whom the one who asked for the issue is one.
func (s *Service) ConsentTo(p *gitstore.Proposal) (Consent, error) {
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return Consent{}, fmt.Errorf("read main: %w", err)
	}
	review := manifest.StricterReview(s.cfg.Review, p.Review)
	if wish := snapshot.Certificates[p.Certificate]; wish != nil {
		review = manifest.StricterReview(review, wish.Review)
	}
	c := Consent{TwoPerson: review == manifest.ReviewTwoPerson}
	needed := 1
	if c.TwoPerson {
		needed = 2
		if p.AskedBy != "" {
			c.People = append(c.People, p.AskedBy)
		}
	}
	for _, approval := range p.Approvals {
		if !slices.Contains(c.People, approval.Name) {
			c.People = append(c.People, approval.Name)
		}
	}
	c.Missing = max(0, needed-len(c.People))
	return c, nil
}

// ApproveProposal adds the actor's agreement to the open proposal of a certificate, and merges it once enough people
// agreed. An empty serial stands for the only proposal; naming it makes sure that it is the one that was looked at.
func (s *Service) ApproveProposal(ctx context.Context, actor hub.Principal, requestID, name, serial, reason string) (merged bool, err error) {
	reason, err = reasonOf(reason)
	if err != nil {
		return false, err
	}
	a := act{actor, requestID, "approve-proposal", name, gitstore.TrailerCertificate}
	for range attempts {
		merged, err = s.approve(ctx, a, serial, reason)
		if !errors.Is(err, gitstore.ErrConflict) {
			return merged, err
		}
	}
	return false, &hub.Error{Class: hub.ErrConflict, Message: "this certificate changes all the time: look at it again, then try again"}
}

func (s *Service) approve(ctx context.Context, a act, serial, reason string) (merged bool, err error) {
	p, err := s.proposal(a.object, serial)
	if err != nil {
		return false, err
	}
	consent, err := s.ConsentTo(p)
	if err != nil {
		return false, err
	}
	if consent.Missing > 0 && slices.Contains(consent.People, a.name()) {
		return false, conflict("you agreed already, or asked for this issue yourself: somebody else must agree too")
	}
	change, err := s.proposalChange(ctx, a, "approve "+a.object+": serial "+p.Serial[:min(8, len(p.Serial))], reason)
	if err != nil {
		return false, err
	}
	if consent.Missing > 0 {
		if err := s.cfg.Proposals.Approve(ctx, p, change); err != nil {
			return false, err
		}
		if p, err = s.proposal(a.object, p.Serial); err != nil {
			return false, err
		}
		if consent, err = s.ConsentTo(p); err != nil || consent.Missing > 0 {
			return false, err
		}
	}
	change.Subject = fmt.Sprintf("merge %s: leaf %s… until %s, agreed by %s",
		a.object, p.Issued.LeafSHA256[:6], shortDate(p.Issued.NotAfter), strings.Join(consent.People, " and "))
	if _, err := s.cfg.Proposals.MergeProposal(ctx, p, change); err != nil {
		return false, err
	}
	s.cfg.Changed()
	return true, s.cfg.Alerts.Clear(ctx, hub.AlertProposalWaiting, a.object)
}

// proposalChange is the frame of a commit about a proposal.
func (s *Service) proposalChange(ctx context.Context, a act, subject, reason string) (gitstore.Change, error) {
	trailers, err := s.trailers(ctx, a)
	if err != nil {
		return gitstore.Change{}, err
	}
	return gitstore.Change{Subject: subject, Body: reason, Actor: s.author(a), Trailers: trailers, BeforeRef: s.record(ctx, a)}, nil
}

func (s *Service) proposal(name, serial string) (*gitstore.Proposal, error) {
	p, err := s.cfg.Proposals.Proposal(name, serial)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("there is no such proposal of this certificate: certferry proposal ls lists those that are open")
	}
	return p, err
}

// RejectProposal ends a proposal without using it, and pauses the renewal: the same would be proposed again.
func (s *Service) RejectProposal(ctx context.Context, actor hub.Principal, requestID, name, serial, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "reject-proposal", name, gitstore.TrailerCertificate}
	p, err := s.proposal(name, serial)
	if err != nil {
		return err
	}
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return fmt.Errorf("read main: %w", err)
	}
	change, err := s.proposalChange(ctx, a, "reject "+name+": serial "+p.Serial[:min(8, len(p.Serial))], reason)
	if err != nil {
		return err
	}
	if wish := snapshot.Certificates[name]; wish != nil {
		edit, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
			c.Renewal.Paused, c.Renewal.PausedReason = true, because("proposal rejected by "+a.name(), reason)
		})
		if err != nil {
			return err
		}
		change.Edits, change.Expect = []gitrepo.Edit{edit}, snapshot.Commit
	}
	if err := s.cfg.Proposals.CloseProposal(ctx, p, change); err != nil {
		if errors.Is(err, gitstore.ErrConflict) {
			return conflict("somebody else acted on this certificate meanwhile: look at it again, then try again")
		}
		return err
	}
	s.cfg.Changed()
	return s.cfg.Alerts.Clear(ctx, hub.AlertProposalWaiting, name)
}

// judgeReview checks that enough people agreed to the proposals that a push merges. Whoever pushes to the hub's own main
// agrees by it. On a remote the hub does not know who merged: one merge is enough where one person is, and the two-person
// rule needs the agreements at the hub.
func (s *Service) judgeReview(a act, changes []gitrepo.FileChange) []gitstore.Fault {
	var faults []gitstore.Fault
	seen := map[string]bool{}
	for _, c := range changes {
		parts := strings.Split(c.Path, "/")
		if len(parts) != 4 || parts[0] != "issued" || seen[parts[2]] {
			continue
		}
		seen[parts[2]] = true
		if err := s.mayMerge(a, parts[2]); err != nil {
			faults = append(faults, gitstore.Fault{Path: c.Path, Err: err})
		}
	}
	return faults
}

func (s *Service) mayMerge(a act, name string) error {
	p, err := s.proposal(name, "")
	if err != nil {
		return err
	}
	consent, err := s.ConsentTo(p)
	if err != nil {
		return err
	}
	missing := consent.Missing
	if a.actor.Kind == hub.Person && !slices.Contains(consent.People, a.name()) || a.actor.Kind != hub.Person && len(consent.People) == 0 {
		missing--
	}
	if a.actor.Kind != hub.Person && consent.TwoPerson {
		missing = consent.Missing
	}
	switch {
	case missing <= 0:
		return nil
	case consent.TwoPerson:
		return fmt.Errorf("two people must agree to this issue, and %d more has to: certferry proposal approve %s", missing, name)
	}
	return fmt.Errorf("somebody must agree to this issue first: certferry proposal approve %s", name)
}
