package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// maxOpenAlerts bounds how many open alerts are looked at when the process starts.
const maxOpenAlerts = 100_000

// recallAlerts finds out what people were told before the process started.
func (r *Reconciler) recallAlerts(ctx context.Context) error {
	open, err := r.cfg.Alerts.Alerts(ctx, true, 0, maxOpenAlerts)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range open {
		if open[i].Kind == hub.AlertProposalWaiting {
			r.waiting[open[i].Object] = open[i].Level
		}
		if open[i].Kind == hub.AlertHoldExpiring {
			r.holds[open[i].Object] = open[i].Level
		}
		if open[i].Kind == hub.AlertIssueFailed {
			r.failing[open[i].Object] = true
		}
	}
	return nil
}

// reviewOf says who must agree to an issue of a certificate.
func (r *Reconciler) reviewOf(want *manifest.Certificate) string {
	return manifest.StricterReview(r.cfg.Review, want.Review)
}

// tidyProposals removes proposals that nobody can merge any more, tells people of those that wait, and answers what
// waits for each certificate.
func (r *Reconciler) tidyProposals(ctx context.Context, snapshot *gitstore.Snapshot) (map[string]*manifest.IssuedCertificate, error) {
	proposals, err := r.cfg.Store.Proposals()
	if err != nil {
		return nil, err
	}
	waiting := map[string]*manifest.IssuedCertificate{}
	for _, p := range proposals {
		if reason := r.pointless(snapshot, p); reason != "" {
			if err := r.dropProposal(ctx, p, reason); err != nil {
				return nil, err
			}
			continue
		}
		waiting[p.Certificate] = p.Issued
		if err := r.tellProposal(ctx, snapshot, p); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.waiting {
		if waiting[name] == nil {
			delete(r.waiting, name)
			if err := r.cfg.Alerts.Clear(ctx, hub.AlertProposalWaiting, name); err != nil {
				return nil, err
			}
		}
	}
	return waiting, nil
}

// pointless says why a proposal can be of no use any more, empty if it can.
func (r *Reconciler) pointless(snapshot *gitstore.Snapshot, p *gitstore.Proposal) string {
	switch {
	case snapshot.Certificates[p.Certificate] == nil:
		return "the certificate is not wished for any more"
	case !r.cfg.Now().Before(p.Issued.NotAfter):
		return "it expired"
	case len(p.Commit.Parents) == 0:
		return "it stands on nothing"
	}
	then, err := r.cfg.Store.IssuedAt(p.Commit.Parents[0].String(), p.Certificate)
	if err != nil {
		then = nil // there was none, or it cannot be read: both differ from what is there now
	}
	if have := snapshot.Issued[p.Certificate]; leafOf(have) != leafOf(then) {
		return "another issue is in use since"
	}
	return ""
}

func leafOf(issued *manifest.IssuedCertificate) string {
	if issued == nil {
		return ""
	}
	return issued.LeafSHA256
}

func (r *Reconciler) dropProposal(ctx context.Context, p *gitstore.Proposal, reason string) error {
	err := r.cfg.Store.CloseProposal(ctx, p, gitstore.Change{BeforeRef: func(string) error {
		return r.cfg.Data.Audit(ctx, hub.AuditEvent{
			At: r.cfg.Now(), Actor: hubActor, Action: "close-proposal", Object: p.Certificate, Outcome: hub.OutcomeOK, Detail: reason,
		})
	}})
	if errors.Is(err, gitstore.ErrConflict) {
		return nil // somebody acted on it: the next pass looks again
	}
	if err == nil {
		r.cfg.Logger.InfoContext(ctx, "proposal closed", "certificate", p.Certificate, "serial", p.Serial, "reason", reason)
	}
	return err
}

// tellProposal raises the alert of a proposal when it comes, and again when the end of what is in use comes nearer.
func (r *Reconciler) tellProposal(ctx context.Context, snapshot *gitstore.Snapshot, p *gitstore.Proposal) error {
	level, text := hub.AlertInfo, "nothing is in use yet"
	if have := snapshot.Issued[p.Certificate]; have != nil {
		left := have.NotAfter.Sub(r.cfg.Now())
		switch lifetime := have.NotAfter.Sub(have.NotBefore); {
		case left < lifetime/8:
			level = hub.AlertCritical
		case left < lifetime/4:
			level = hub.AlertWarning
		}
		text = "what is in use ends on " + have.NotAfter.UTC().Format(time.DateOnly)
	}
	r.mu.Lock()
	told := r.waiting[p.Certificate]
	r.waiting[p.Certificate] = level
	r.mu.Unlock()
	if told == level {
		return nil
	}
	return r.cfg.Alerts.Raise(ctx, hub.Alert{
		Kind: hub.AlertProposalWaiting, Object: p.Certificate, Level: level,
		Message: fmt.Sprintf("an issue of %s waits for review; %s: certferry proposal show %s", p.Certificate, text, p.Certificate),
	})
}
