package intent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// PauseRollout stops a rollout where it is; servers keep what they have.
func (s *Service) PauseRollout(ctx context.Context, actor hub.Principal, requestID, name, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "pause-rollout", name, gitstore.TrailerCertificate}
	return s.changeRollout(ctx, a, func(ro *manifest.Rollout) (subject string, err error) {
		if ro.State == manifest.RolloutPaused {
			return "", conflict("this rollout is paused already")
		}
		ro.State, ro.Reason = manifest.RolloutPaused, strings.TrimSuffix("paused by "+a.name()+": "+reason, ": ")
		return fmt.Sprintf("pause rollout of %s in wave %d", name, ro.Wave), nil
	})
}

// ResumeRollout lets a rollout that was paused or stopped go on with the wave that it is in.
func (s *Service) ResumeRollout(ctx context.Context, actor hub.Principal, requestID, name string) error {
	a := act{actor, requestID, "resume-rollout", name, gitstore.TrailerCertificate}
	return s.changeRollout(ctx, a, func(ro *manifest.Rollout) (subject string, err error) {
		if ro.State == manifest.RolloutRunning {
			return "", conflict("this rollout goes on already")
		}
		s.start(ro)
		return fmt.Sprintf("resume rollout of %s in wave %d", name, ro.Wave), nil
	})
}

// PromoteRollout begins the next wave without waiting for the servers of the present one, or, with all, lets the new
// issue go to all servers now.
func (s *Service) PromoteRollout(ctx context.Context, actor hub.Principal, requestID, name string, all bool) error {
	a := act{actor, requestID, "promote-rollout", name, gitstore.TrailerCertificate}
	if all {
		return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
			if _, err := rollout(snapshot, name); err != nil {
				return gitstore.Change{}, err
			}
			return gitstore.Change{
				Subject: fmt.Sprintf("promote rollout of %s to all servers", name),
				Edits:   []gitrepo.Edit{{Path: manifest.RolloutPath(name), Delete: true}},
			}, nil
		})
	}
	return s.changeRollout(ctx, a, func(ro *manifest.Rollout) (subject string, err error) {
		s.start(ro)
		ro.Wave++
		return fmt.Sprintf("promote rollout of %s to wave %d", name, ro.Wave), nil
	})
}

// start lets a rollout go on; the time of its wave begins now.
func (s *Service) start(ro *manifest.Rollout) {
	ro.State, ro.Reason, ro.WaveStartedAt = manifest.RolloutRunning, "", s.cfg.Now().UTC().Truncate(time.Second)
}

// changeRollout commits a change to the rollout of a certificate.
func (s *Service) changeRollout(ctx context.Context, a act, edit func(*manifest.Rollout) (subject string, err error)) error {
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		ro, err := rollout(snapshot, a.object)
		if err != nil {
			return gitstore.Change{}, err
		}
		next := *ro
		subject, err := edit(&next)
		if err != nil {
			return gitstore.Change{}, err
		}
		data, err := next.Encode()
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("write rollout of %s: %w", a.object, err)
		}
		return gitstore.Change{
			Subject: subject, Body: next.Reason, Edits: []gitrepo.Edit{{Path: manifest.RolloutPath(a.object), Data: data}},
		}, nil
	})
}

func rollout(snapshot *gitstore.Snapshot, name string) (*manifest.Rollout, error) {
	if _, err := certificate(snapshot, name); err != nil {
		return nil, err
	}
	ro, ok := snapshot.Rollouts[name]
	if !ok {
		return nil, notFound("no rollout of this certificate is under way: certferry rollout ls lists them")
	}
	return ro, nil
}

// AbortRollout takes the servers that have the new issue back to the one before, and pauses the renewal.
func (s *Service) AbortRollout(ctx context.Context, actor hub.Principal, requestID, name, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "abort-rollout", name, gitstore.TrailerCertificate}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		ro, err := rollout(snapshot, name)
		if err != nil {
			return gitstore.Change{}, err
		}
		from, err := gitrepo.ParseHash(ro.From)
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("read rollout of %s: %w", name, err)
		}
		then, err := s.issuedAt(name, from)
		if err != nil {
			return gitstore.Change{}, err
		}
		edits, err := s.goBack(snapshot, name, from, then, strings.TrimSuffix("rollout aborted by "+a.name()+": "+reason, ": "))
		if err != nil {
			return gitstore.Change{}, err
		}
		return gitstore.Change{
			Subject: fmt.Sprintf("abort rollout of %s: back to leaf %s… until %s", name, then.LeafSHA256[:6], shortDate(then.NotAfter)),
			Body:    reason, Edits: edits,
		}, nil
	})
}

// goBack makes the edits that bring back what was issued as of a commit of main: the renewal is paused, else it would
// undo this at once, and a rollout under way ends.
func (s *Service) goBack(
	snapshot *gitstore.Snapshot, name string, from gitrepo.Hash, then *manifest.IssuedCertificate, pausedReason string,
) ([]gitrepo.Edit, error) {
	if !s.cfg.Now().Before(then.NotAfter) {
		return nil, conflict("that issue expired on " + shortDate(then.NotAfter) + ": renew instead, or name a later commit")
	}
	edits, err := s.restore(name, from)
	if err != nil {
		return nil, err
	}
	paused, err := editCertificate(snapshot, name, func(c *manifest.Certificate) {
		c.Renewal.Paused, c.Renewal.PausedReason = true, pausedReason
	})
	if err != nil {
		return nil, err
	}
	edits = append(edits, paused)
	if snapshot.Rollouts[name] != nil {
		edits = append(edits, gitrepo.Edit{Path: manifest.RolloutPath(name), Delete: true})
	}
	return edits, nil
}

func shortDate(t time.Time) string { return t.UTC().Format(time.DateOnly) }
