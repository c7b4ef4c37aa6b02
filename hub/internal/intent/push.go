// This file takes up what people push to main with Git: the same rules as for the API, with file and line.

package intent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// actPush is the action of pushes in the audit history.
const actPush = "push-intent"

// Receiver is the part of the repository that takes pushes.
type Receiver interface {
	Receive(ctx context.Context, p gitstore.Push) (gitstore.Verdict, error)
	Signature(c *gitrepo.Commit) (gitstore.SignatureState, string)
}

// Alerts tells people.
type Alerts interface {
	Raise(ctx context.Context, a hub.Alert) error
	Clear(ctx context.Context, kind hub.AlertKind, object string) error
}

// Pushed is what became of a push.
type Pushed struct {
	// Commit is where main is now.
	Commit  string
	Applied bool
	// Lines say what will happen, or everything that is wrong, one thing a line.
	Lines []string
}

// Push decides about commits that a person pushed to the hub's own main. The error is gitstore.ErrConflict when main
// has moved on, gitstore.ErrInvalid when the commits are not complete or hold what Git allows and the hub does not.
func (s *Service) Push(ctx context.Context, actor hub.Principal, in *gitrepo.Incoming, tip gitrepo.Hash) (Pushed, error) {
	return s.take(ctx, act{actor: actor, action: actPush, object: actor.Name}, gitstore.Push{Incoming: in, Tip: tip}, false)
}

// Take decides about what people committed to main on a remote. A refusal is recorded on main, so that the remote's
// main and the hub's have one history again; the error is gitstore.ErrInvalid where they cannot have.
func (s *Service) Take(ctx context.Context, remote string, in *gitrepo.Incoming, tip gitrepo.Hash) (Pushed, error) {
	return s.take(ctx, act{action: actPush, object: remote}, gitstore.Push{Incoming: in, Tip: tip, Beside: true}, s.cfg.SignedRemotes)
}

// judgeRole keeps issuers for administrators, as the API does: they say which CA is asked, and with which account. On
// remotes nobody's role is known; there, the keys of those whose commits count are the administrator's choice.
func judgeRole(actor hub.Principal, changes []gitrepo.FileChange) []gitstore.Fault {
	if actor.Kind != hub.Person || actor.Role == apiv1.RoleAdmin {
		return nil
	}
	var faults []gitstore.Fault
	for _, c := range changes {
		if strings.HasPrefix(c.Path, "issuers/") {
			faults = append(faults, gitstore.Fault{Path: c.Path, Err: errors.New("only administrators change issuers: ask one to push this, or to use certferry issuer")})
		}
	}
	return faults
}

func (s *Service) take(ctx context.Context, a act, p gitstore.Push, signed bool) (Pushed, error) {
	var effects []string
	p.Actor = s.author(a)
	p.Judge = func(before, after *gitstore.Snapshot, commits []*gitrepo.Commit, changes []gitrepo.FileChange) []gitstore.Fault {
		faults := s.judgeCommits(commits, signed)
		faults = append(faults, s.judgeFiles(p.Incoming, before, after, changes)...)
		faults = append(faults, s.judgeReview(a, changes)...)
		faults = append(faults, judgeRole(a.actor, changes)...)
		if len(faults) == 0 {
			effects = s.effectsOf(before, after, changes).lines()
		}
		return faults
	}
	p.BeforeRef = s.record(ctx, a)
	v, err := s.cfg.Receiver.Receive(ctx, p)
	if err != nil {
		return Pushed{}, fmt.Errorf("take push of %s: %w", a.object, err)
	}
	out := Pushed{Commit: v.Commit, Applied: v.Applied, Lines: effects}
	if v.Applied {
		s.cfg.Changed()
		return out, s.cfg.Alerts.Clear(ctx, hub.AlertIntentRefused, a.object)
	}
	out.Lines = nil
	for _, f := range v.Faults {
		out.Lines = append(out.Lines, f.String())
	}
	return out, s.refused(ctx, a, p.Tip, out.Lines)
}

// refused records and tells that a push was refused.
func (s *Service) refused(ctx context.Context, a act, tip gitrepo.Hash, lines []string) error {
	const most = 20
	text := strings.Join(lines[:min(len(lines), most)], "\n")
	event := s.event(a, "commit "+tip.String()+" refused: "+text)
	event.Outcome = hub.OutcomeDenied
	if err := s.cfg.Audit.Audit(ctx, event); err != nil {
		return fmt.Errorf("record refused push: %w", err)
	}
	return s.cfg.Alerts.Raise(ctx, hub.Alert{
		Kind: hub.AlertIntentRefused, Object: a.object, Level: hub.AlertWarning,
		Message: "commit " + tip.Short() + " was refused: mend it and push again\n" + text,
	})
}

// judgeCommits checks who made the commits, as far as that counts.
func (s *Service) judgeCommits(commits []*gitrepo.Commit, signed bool) []gitstore.Fault {
	var signers []*seal.PublicKey
	if signed && s.cfg.Signers != nil {
		var err error
		if signers, err = s.cfg.Signers(); err != nil {
			return []gitstore.Fault{{Path: "commits", Err: fmt.Errorf("the hub cannot read the keys of its operators: %w", err)}}
		}
	}
	var faults []gitstore.Fault
	for _, c := range commits {
		if state, _ := s.cfg.Receiver.Signature(c); state == gitstore.SignedByHub {
			continue
		}
		where := "commit " + c.Hash.Short()
		if s.isHub(c.Author) || s.isHub(c.Committer) {
			faults = append(faults, gitstore.Fault{Path: where, Err: errors.New("it bears the hub's name and is not signed by the hub: set your own user.name and user.email")})
		}
		if !signed {
			continue
		}
		if c.Signature == "" {
			faults = append(faults, gitstore.Fault{Path: where, Err: errors.New("it is not signed; on this remote intent counts only in commits that an operator signed (git commit -S)")})
		} else if _, err := seal.Verify("", c.Payload, []byte(c.Signature), signers, s.cfg.Now()); err != nil {
			faults = append(faults, gitstore.Fault{Path: where, Err: errors.New("it is not signed with the key of an operator that this hub knows; an administrator adds keys to the folder operators")})
		}
	}
	return faults
}

func (s *Service) isHub(p gitrepo.Person) bool { return p.Email == HubActor+"@"+s.cfg.Domain }
