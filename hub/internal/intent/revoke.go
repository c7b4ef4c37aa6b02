// This file tells CAs that nobody should trust a certificate any more, and main that it is so.

package intent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/issuer"
)

// revokeTimeout bounds what a CA takes.
const revokeTimeout = 25 * time.Second

// reasonKeyCompromise is the reason after which the old key must not be used again.
const reasonKeyCompromise = "keyCompromise"

// RevokeCertificate revokes what was issued last at its CA, records it on main, and orders another one unless the renewal
// is to stop. Servers keep what they serve until that one is there: a revoked certificate is better than none.
func (s *Service) RevokeCertificate(ctx context.Context, actor hub.Principal, requestID, name string, req apiv1.RevokeRequest) error {
	code, known := manifest.RevocationReasons[req.Reason]
	if !known {
		return invalid("body.reason", "must be a reason of RFC 5280 such as keyCompromise or superseded")
	}
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return fmt.Errorf("read main: %w", err)
	}
	wish, err := certificate(snapshot, name)
	if err != nil {
		return err
	}
	have := snapshot.Issued[name]
	switch {
	case have == nil:
		return conflict("this certificate was never issued: there is nothing to revoke")
	case have.Serial != req.Serial:
		return conflict("another issue is in use now: look at it again with certferry cert show " + name)
	case have.Revoked != nil:
		return conflict("this issue is revoked already")
	}
	a := act{actor, requestID, "revoke-certificate", name, gitstore.TrailerCertificate}
	// The CA cannot be asked to take it back: what is about to happen is written down first.
	if err := s.cfg.Audit.Audit(ctx, s.event(a, "asking the CA: "+req.Reason+", serial "+have.Serial)); err != nil {
		return fmt.Errorf("record act: %w", err)
	}
	if err := s.askToRevoke(ctx, snapshot, have, code); err != nil {
		event := s.event(a, "the CA did not revoke it")
		event.Outcome = hub.OutcomeFailed
		return errors.Join(err, s.cfg.Audit.Audit(ctx, event))
	}
	// From here on it is a fact, which main has to know whoever waits for the answer.
	ctx = context.WithoutCancel(ctx)
	if err := s.recordRevocation(ctx, a, name, req); err != nil {
		return err
	}
	if req.NoRenew || wish.Renewal.Paused {
		return nil
	}
	job := hub.Job{
		Certificate: name, Issuer: wish.Issuer, Actor: a.name(), Reason: "revoked: " + req.Reason, NewKey: req.Reason == reasonKeyCompromise,
	}
	if _, err := s.enqueue(ctx, job); err != nil {
		return fmt.Errorf("queue renewal of %s: %w", name, err)
	}
	s.cfg.Changed()
	return nil
}

// askToRevoke asks the CA that issued it.
func (s *Service) askToRevoke(ctx context.Context, snapshot *gitstore.Snapshot, have *manifest.IssuedCertificate, code int) error {
	at := snapshot.Issuers[have.Issuer]
	if at == nil || s.cfg.Issuer == nil {
		return conflict("the issuer " + have.Issuer + " is not on main any more: revoke it at the CA")
	}
	driver, err := s.cfg.Issuer(at)
	if err != nil {
		return refusal(err)
	}
	revoker, ok := driver.(issuer.Revoker)
	if !ok {
		return conflict("issuers of this type cannot revoke")
	}
	b, err := s.cfg.Store.OpenIssued(ctx, snapshot.Commit, have.Name)
	if err != nil {
		return fmt.Errorf("read what was issued for %s: %w", have.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	if err := revoker.Revoke(ctx, b.Leaf, code); err != nil {
		return refusal(err)
	}
	return nil
}

// refusal tells people what a CA said.
func refusal(err error) error {
	failed := new(issuer.Error)
	if !errors.As(err, &failed) {
		return err
	}
	return &hub.Error{Class: hub.ErrConflict, Message: "the CA did not revoke it: " + failed.Error() + "; " + issuer.NextStep(failed.Class)}
}

// recordRevocation writes the revocation to main, and the pause where no other certificate is to come.
func (s *Service) recordRevocation(ctx context.Context, a act, name string, req apiv1.RevokeRequest) error {
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		have := snapshot.Issued[name]
		if have == nil || have.Serial != req.Serial {
			return gitstore.Change{}, conflict("it is revoked at the CA; another issue took its place meanwhile")
		}
		revoked := *have
		revoked.Revoked = &manifest.Revocation{At: s.cfg.Now().UTC().Truncate(time.Second), Reason: req.Reason, By: a.name()}
		data, err := revoked.Encode()
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("write issue of %s: %w", name, err)
		}
		edits := []gitrepo.Edit{{Path: manifest.IssuedDir(name) + "/certificate.yaml", Data: data}}
		if req.NoRenew {
			paused, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
				c.Renewal.Paused, c.Renewal.PausedReason = true, "revoked by "+a.name()+": "+req.Reason
			})
			if err != nil {
				return gitstore.Change{}, err
			}
			edits = append(edits, paused)
		}
		return gitstore.Change{Subject: fmt.Sprintf("revoke %s: serial %s", name, have.Serial[:min(8, len(have.Serial))]), Body: req.Reason, Edits: edits}, nil
	})
}
