// This file keeps issues that wait for review, each on a branch of its own until somebody has looked at it.

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// TrailerReview says in a proposal's commit which review it was made under: what the certificate says later does not
// loosen it.
const TrailerReview = "Review"

// TrailerApprovedBy marks the commits with which people agree to a proposal.
const TrailerApprovedBy = "Approved-By"

// Proposal is an issue that waits for review. It is one commit on top of main as it was then, with the files that main
// is to get; each approval is an empty commit on top.
type Proposal struct {
	Certificate string
	// Serial names it among the proposals of the certificate, in lower-case hex.
	Serial string
	// Commit holds the issue, Tip is the newest commit of the branch.
	Commit *gitrepo.Commit
	Tip    gitrepo.Hash
	Issued *manifest.IssuedCertificate
	// AskedBy is the person who asked for the issue, empty where the hub did so by itself.
	AskedBy string
	// Review is the one that it was made under.
	Review string
	// Approvals are those who agreed, in the order in which they did.
	Approvals []Approval
}

// Approval is somebody's agreement.
type Approval struct {
	Name   string
	Commit *gitrepo.Commit
}

// Propose puts an issue on a branch of its own instead of main. Older proposals of the same certificate are removed in
// the same step. The commit is as PutIssued makes it.
func (s *Store) Propose(ctx context.Context, issue Issue) (commit string, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	if commit, err = s.propose(ctx, issue); err != nil {
		return "", fmt.Errorf("propose certificate %s: %w", issue.Certificate, err)
	}
	return commit, nil
}

func (s *Store) propose(ctx context.Context, issue Issue) (string, error) {
	c, document, err := s.issueChange(issue)
	if err != nil {
		return "", err
	}
	head, ok := s.repo.Ref(manifest.MainBranch)
	if !ok {
		return "", errors.New("there is no main")
	}
	edits, err := s.settle(head, c)
	if err != nil {
		return "", err
	}
	text, err := message(c.Subject, c.Body, c.Actor, c.Trailers)
	if err != nil {
		return "", err
	}
	branch := manifest.ProposalBranch(issue.Certificate, document.Serial)
	updates := []gitrepo.Update{{
		Ref: branch, Expect: &gitrepo.Hash{}, Base: head, Parents: []gitrepo.Hash{head}, Edits: edits,
		Author: s.author(c.Actor), Committer: s.committer(), Message: text,
	}}
	for ref, tip := range s.repo.Refs() {
		if manifest.ProposalOf(ref) == issue.Certificate {
			updates = append(updates, gitrepo.Update{Ref: ref, Expect: &tip, Delete: true})
		}
	}
	hashes, err := s.repo.Apply(ctx, updates, first(c.BeforeRef))
	if err != nil {
		return "", forbidden(err)
	}
	return hashes[0].String(), nil
}

// first tells a caller the first commit of a batch.
func first(before func(commit string) error) func([]gitrepo.Hash) error {
	if before == nil {
		return nil
	}
	return func(hashes []gitrepo.Hash) error { return before(hashes[0].String()) }
}

// Proposals lists those that are open, by certificate and serial.
func (s *Store) Proposals() ([]*Proposal, error) {
	var all []*Proposal
	for ref, tip := range s.repo.Refs() {
		if manifest.ProposalOf(ref) == "" {
			continue
		}
		p, err := s.proposal(ref, tip)
		if err != nil {
			return nil, fmt.Errorf("read proposal %s: %w", ref, err)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Proposal) int {
		return strings.Compare(a.Certificate+"/"+a.Serial, b.Certificate+"/"+b.Serial)
	})
	return all, nil
}

// Proposal returns an open proposal of a certificate; an empty serial stands for the only one. The error is
// fs.ErrNotExist where there is none.
func (s *Store) Proposal(certificate, serial string) (*Proposal, error) {
	for ref, tip := range s.repo.Refs() {
		if manifest.ProposalOf(ref) == certificate && (serial == "" || ref == manifest.ProposalBranch(certificate, serial)) {
			p, err := s.proposal(ref, tip)
			if err != nil {
				return nil, fmt.Errorf("read proposal %s: %w", ref, err)
			}
			return p, nil
		}
	}
	return nil, fmt.Errorf("find proposal of %s: %w", certificate, fs.ErrNotExist)
}

func (s *Store) proposal(ref string, tip gitrepo.Hash) (*Proposal, error) {
	p := &Proposal{Certificate: manifest.ProposalOf(ref), Tip: tip}
	p.Serial = strings.TrimPrefix(ref, manifest.ProposalPrefix(p.Certificate))
	for at := tip; p.Commit == nil; {
		c, err := s.repo.Commit(at)
		if err != nil {
			return nil, err
		}
		name := trailer(c.Message, TrailerApprovedBy)
		if name == "" || len(c.Parents) == 0 {
			p.Commit = c
			continue
		}
		p.Approvals = append(p.Approvals, Approval{Name: name, Commit: c})
		at = c.Parents[0]
	}
	slices.Reverse(p.Approvals)
	if p.AskedBy = trailer(p.Commit.Message, TrailerActor); p.AskedBy == hubActor {
		p.AskedBy = ""
	}
	p.Review = trailer(p.Commit.Message, TrailerReview)
	var err error
	p.Issued, err = s.issuedAt(tip, p.Certificate)
	return p, err
}

// trailer is the value of a trailer of a commit message, empty if it has none.
func trailer(message, key string) string {
	for _, t := range Trailers(message) {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

// Approve adds the actor's agreement to a proposal that is at tip. The change gives subject, actor, trailers and
// BeforeRef; ErrConflict says that the proposal moved meanwhile.
func (s *Store) Approve(ctx context.Context, p *Proposal, c Change) error {
	s.write.Lock()
	defer s.write.Unlock()
	text, err := message(c.Subject, c.Body, c.Actor, withTrailer(c.Trailers, TrailerApprovedBy, actorName(c.Actor)))
	if err != nil {
		return err
	}
	_, err = s.repo.Apply(ctx, []gitrepo.Update{{
		Ref: manifest.ProposalBranch(p.Certificate, p.Serial), Expect: &p.Tip, Base: p.Tip, Parents: []gitrepo.Hash{p.Tip},
		Author: s.author(c.Actor), Committer: s.committer(), Message: text,
	}}, first(c.BeforeRef))
	if errors.Is(err, gitrepo.ErrStale) {
		return fmt.Errorf("approve proposal of %s: %w", p.Certificate, ErrConflict)
	}
	return err
}

// MergeProposal brings a proposal's files to main by a merge commit, and ends the proposal. The change is as for
// Approve. ErrConflict says that main has another issue of the certificate by now, or the proposal moved.
func (s *Store) MergeProposal(ctx context.Context, p *Proposal, c Change) (commit string, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	if commit, err = s.mergeProposal(ctx, p, c); err != nil {
		return "", fmt.Errorf("merge proposal of %s: %w", p.Certificate, err)
	}
	return commit, nil
}

func (s *Store) mergeProposal(ctx context.Context, p *Proposal, c Change) (string, error) {
	head, ok := s.repo.Ref(manifest.MainBranch)
	if !ok {
		return "", errors.New("there is no main")
	}
	changes, err := s.repo.Changes(p.Commit.Parents[0], p.Tip)
	if err != nil {
		return "", err
	}
	u := gitrepo.Update{
		Ref: manifest.MainBranch, Expect: &head, Base: head, Parents: []gitrepo.Hash{head, p.Tip},
		Author: s.author(c.Actor), Committer: s.committer(),
	}
	for _, ch := range changes {
		now, err := s.fileHash(head, ch.Path)
		if err != nil {
			return "", err
		}
		if now != ch.Old && now != ch.New {
			return "", fmt.Errorf("%s: %w", ch.Path, ErrConflict)
		}
		edit := gitrepo.Edit{Path: ch.Path, Delete: ch.New.IsZero()}
		if !edit.Delete {
			if edit.Data, err = s.repo.Blob(ch.New); err != nil {
				return "", err
			}
		}
		if now != ch.New {
			u.Edits = append(u.Edits, edit)
		}
	}
	if u.Message, err = message(c.Subject, c.Body, c.Actor, withTrailer(c.Trailers, TrailerCertificate, p.Certificate)); err != nil {
		return "", err
	}
	branch := manifest.ProposalBranch(p.Certificate, p.Serial)
	hashes, err := s.repo.Apply(ctx, []gitrepo.Update{u, {Ref: branch, Expect: &p.Tip, Delete: true}}, first(c.BeforeRef))
	switch {
	case errors.Is(err, gitrepo.ErrStale):
		return "", ErrConflict
	case err != nil:
		return "", err
	}
	return hashes[0].String(), nil
}

// CloseProposal removes a proposal without merging it, and makes the change on main in the same step, if it has edits.
func (s *Store) CloseProposal(ctx context.Context, p *Proposal, c Change) error {
	s.write.Lock()
	defer s.write.Unlock()
	updates := []gitrepo.Update{{Ref: manifest.ProposalBranch(p.Certificate, p.Serial), Expect: &p.Tip, Delete: true}}
	if len(c.Edits) > 0 {
		head, _ := s.repo.Ref(manifest.MainBranch)
		edits, err := s.settle(head, c)
		if err != nil {
			return fmt.Errorf("close proposal of %s: %w", p.Certificate, err)
		}
		text, err := message(c.Subject, c.Body, c.Actor, withTrailer(c.Trailers, TrailerCertificate, p.Certificate))
		if err != nil {
			return fmt.Errorf("close proposal of %s: %w", p.Certificate, err)
		}
		updates = slices.Insert(updates, 0, gitrepo.Update{
			Ref: manifest.MainBranch, Expect: &head, Base: head, Parents: []gitrepo.Hash{head}, Edits: edits,
			Author: s.author(c.Actor), Committer: s.committer(), Message: text,
		})
	}
	_, err := s.repo.Apply(ctx, updates, first(c.BeforeRef))
	switch {
	case errors.Is(err, gitrepo.ErrStale):
		return fmt.Errorf("close proposal of %s: %w", p.Certificate, ErrConflict)
	case err != nil:
		return fmt.Errorf("close proposal of %s: %w", p.Certificate, err)
	}
	return nil
}
