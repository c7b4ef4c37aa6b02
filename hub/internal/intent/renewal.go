// This file asks for renewals, stops them and lets them go on.

package intent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// RenewCertificate queues a job that issues the certificate again, or makes the one that waits due now. A dry run orders
// at the CA's staging and changes nothing.
func (s *Service) RenewCertificate(ctx context.Context, actor hub.Principal, requestID, name string, req apiv1.RenewRequest) (hub.Job, error) {
	reason, err := reasonOf(req.Reason)
	if err != nil {
		return hub.Job{}, err
	}
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return hub.Job{}, fmt.Errorf("read main: %w", err)
	}
	wish, err := certificate(snapshot, name)
	if err != nil {
		return hub.Job{}, err
	}
	a := act{actor, requestID, "renew-certificate", name, gitstore.TrailerCertificate}
	job := hub.Job{Kind: apiv1.JobIssue, Certificate: name, Issuer: wish.Issuer, Actor: a.name(), Reason: reason}
	switch {
	case req.DryRun:
		a.action, job.Kind = "dry-run-certificate", apiv1.JobDryRun
	case wish.Renewal.Paused:
		return hub.Job{}, conflict("the renewal of this certificate is paused: resume it first")
	}
	if job.Reason == "" {
		job.Reason = "asked for by hand"
	}
	if err := s.cfg.Audit.Audit(ctx, s.event(a, job.Reason)); err != nil {
		return hub.Job{}, fmt.Errorf("record act: %w", err)
	}
	if job, err = s.enqueue(ctx, job); err != nil {
		return hub.Job{}, fmt.Errorf("queue renewal of %s: %w", name, err)
	}
	s.cfg.Changed()
	return job, nil
}

// enqueue queues a job. One that waits already is made due when the wish is.
func (s *Service) enqueue(ctx context.Context, wish hub.Job) (hub.Job, error) {
	job, created, err := s.cfg.Jobs.EnqueueJob(ctx, wish)
	if err != nil || created {
		return job, err
	}
	if err := s.cfg.Jobs.HurryJob(ctx, job.ID, wish.NotBefore, wish.Actor, wish.Reason); err != nil {
		return hub.Job{}, err
	}
	return s.cfg.Jobs.Job(ctx, job.ID)
}

// RenewAll queues the renewal of all certificates of an issuer, or of all that chain to an authority: what is left to do
// when a CA has to revoke many at once. They begin spread over a time.
func (s *Service) RenewAll(ctx context.Context, actor hub.Principal, requestID string, req apiv1.RenewAllRequest) (apiv1.RenewAllReply, error) {
	reply := apiv1.RenewAllReply{Certificates: []string{}, Paused: []string{}}
	reason, err := reasonOf(req.Reason)
	if err != nil {
		return reply, err
	}
	if (req.Issuer == "") == (req.Authority == "") {
		return reply, invalid("body.issuer", "give either issuer or authority")
	}
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return reply, fmt.Errorf("read main: %w", err)
	}
	for _, name := range sortedKeys(snapshot.Issued) {
		wish := snapshot.Certificates[name]
		if wish == nil {
			continue
		}
		concerned, err := s.concerns(snapshot, name, req)
		switch {
		case err != nil:
			return reply, err
		case concerned && wish.Renewal.Paused:
			reply.Paused = append(reply.Paused, name)
		case concerned:
			reply.Certificates = append(reply.Certificates, name)
		}
	}
	if req.DryRun || len(reply.Certificates) == 0 {
		return reply, nil
	}
	if reason == "" {
		reason = "all certificates of " + req.Issuer + req.Authority + " are renewed"
	}
	a := act{actor, requestID, "renew-all", req.Issuer + req.Authority, gitstore.TrailerCertificate}
	if err := s.cfg.Audit.Audit(ctx, s.event(a, fmt.Sprintf("%d certificates: %s", len(reply.Certificates), reason))); err != nil {
		return reply, fmt.Errorf("record act: %w", err)
	}
	spread := time.Duration(req.SpreadSeconds) * time.Second
	for _, name := range reply.Certificates {
		job := hub.Job{Certificate: name, Issuer: snapshot.Certificates[name].Issuer, Actor: a.name(), Reason: reason, NewKey: req.NewKey}
		if spread > 0 {
			job.NotBefore = s.cfg.Now().Add(rand.N(spread)) //nolint:gosec // spreading needs no secrecy
		}
		if _, err := s.enqueue(ctx, job); err != nil {
			return reply, fmt.Errorf("queue renewal of %s: %w", name, err)
		}
	}
	s.cfg.Changed()
	return reply, nil
}

// concerns says whether what was issued for a certificate is among those that req means.
func (s *Service) concerns(snapshot *gitstore.Snapshot, name string, req apiv1.RenewAllRequest) (bool, error) {
	if req.Issuer != "" {
		return snapshot.Issued[name].Issuer == req.Issuer, nil
	}
	chain, err := s.cfg.Store.IssuedChain(snapshot.Commit, name)
	if err != nil {
		return false, err
	}
	for _, c := range chain {
		// A root is often left out of chains: it is known by what it signed.
		if c.Subject.CommonName == req.Authority || c.Issuer.CommonName == req.Authority {
			return true, nil
		}
	}
	return false, nil
}

// PauseCertificate stops a certificate's renewals until somebody resumes them.
func (s *Service) PauseCertificate(ctx context.Context, actor hub.Principal, requestID, name, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "pause-certificate", name, gitstore.TrailerCertificate}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		wish, err := certificate(snapshot, name)
		if err != nil {
			return gitstore.Change{}, err
		}
		if wish.Renewal.Paused {
			return gitstore.Change{}, conflict("the renewal of this certificate is paused already")
		}
		edit, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
			c.Renewal.Paused = true
			c.Renewal.PausedReason = because("paused by "+a.name(), reason)
		})
		return gitstore.Change{Subject: "pause renewal of " + name, Body: reason, Edits: []gitrepo.Edit{edit}}, err
	})
}

// because joins what happened and why, where that is known.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// ResumeCertificate ends the pause of a certificate's renewal.
func (s *Service) ResumeCertificate(ctx context.Context, actor hub.Principal, requestID, name string) error {
	a := act{actor, requestID, "resume-certificate", name, gitstore.TrailerCertificate}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		wish, err := certificate(snapshot, name)
		if err != nil {
			return gitstore.Change{}, err
		}
		if !wish.Renewal.Paused {
			return gitstore.Change{}, conflict("the renewal of this certificate is not paused")
		}
		edit, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
			c.Renewal.Paused, c.Renewal.PausedReason = false, ""
		})
		return gitstore.Change{Subject: "resume renewal of " + name, Edits: []gitrepo.Edit{edit}}, err
	})
}

// editCertificate is the change of a certificate's file. That of a second key type stands in the file of the first.
func editCertificate(snapshot *gitstore.Snapshot, name string, change func(*manifest.Certificate)) (gitrepo.Edit, error) {
	if first, ok := snapshot.Seconds[name]; ok {
		name = first
	}
	wish, err := certificate(snapshot, name)
	if err != nil {
		return gitrepo.Edit{}, err
	}
	edited := *wish
	change(&edited)
	data, err := edited.Encode()
	if err != nil {
		return gitrepo.Edit{}, fmt.Errorf("write certificate %s: %w", name, err)
	}
	return gitrepo.Edit{Path: manifest.CertificatePath(name), Data: data}, nil
}
