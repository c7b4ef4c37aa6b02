// Package intent turns what people and enrolment wish for into commits on the branch main: certificates, servers,
// holds and pauses as YAML, with the person who acted as the commit's author.
//
// It validates everything before it writes, and it writes nothing else than intent and, for a rollback, an earlier
// state of issued/. It never issues, seals or publishes: package reconcile does that from what main says.
package intent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

// attempts is how often a change is made anew when somebody else changed the same file in between.
const attempts = 5

// maxHistory bounds how far back a rollback looks, in commits.
const maxHistory = 5000

// HubActor is the author of what nobody asked for by name.
const HubActor = "hub"

// Store is the repository.
type Store interface {
	Snapshot() (*gitstore.Snapshot, error)
	Apply(ctx context.Context, change gitstore.Change) (commit string, err error)
	Issued
	CertificateHistory(name string, limit int) ([]*gitrepo.Commit, error)
	ServerHistory(server string, limit int) ([]gitstore.ServerCommit, error)
	Branch(name string, limit int) ([]*gitrepo.Commit, error)
}

// Issued reads what was issued.
type Issued interface {
	IssuedChain(commit, name string) ([]*x509.Certificate, error)
	OpenIssued(ctx context.Context, commit, name string) (*bundle.Bundle, error)
}

// Files reads the repository at any commit; what is absent is fs.ErrNotExist.
type Files interface {
	ReadFile(commit gitrepo.Hash, path string) ([]byte, error)
	ReadDir(commit gitrepo.Hash, dir string) ([]gitrepo.Entry, error)
	Resolve(prefix string) (gitrepo.Hash, error)
}

// Jobs queues work.
type Jobs interface {
	// EnqueueJob queues the job, or answers the one that is active for the certificate; created tells which.
	EnqueueJob(ctx context.Context, job hub.Job) (queued hub.Job, created bool, err error)
	// HurryJob makes a waiting job due at by, zero for now, where that is sooner.
	HurryJob(ctx context.Context, id string, by time.Time, actor, reason string) error
	Job(ctx context.Context, id string) (hub.Job, error)
}

// Audit records acts that have no row of their own.
type Audit interface {
	Audit(ctx context.Context, event hub.AuditEvent) error
	AuditHead(ctx context.Context) (string, error)
}

// Config is what a Service needs; everything is required but Signers, Waves and Review.
type Config struct {
	Store Store
	Files Files
	Jobs  Jobs
	Audit Audit
	// Receiver takes pushes, Alerts tells people of those that were refused.
	Receiver  Receiver
	Alerts    Alerts
	Proposals Proposals
	// CheckIssuer says why an issuer cannot be used, as by a CA that the configuration does not allow.
	CheckIssuer func(*manifest.Issuer) error
	// Issuer makes the driver of an issuer, to revoke what it issued.
	Issuer func(*manifest.Issuer) (issuer.Issuer, error)
	// SignedRemotes says that commits on remotes count only if one of Signers signed them; nil for nobody.
	SignedRemotes bool
	Signers       func() ([]*seal.PublicKey, error)
	// Due says whether a certificate has to be issued at now, and why; have is nil for one that never was.
	Due func(want *manifest.Certificate, have *manifest.IssuedCertificate, now time.Time) (reason string, due bool)
	// Waves and Review are those of certificates that name none.
	Waves  manifest.Waves
	Review string
	// Domain ends the addresses of commit authors.
	Domain string
	// Changed is called after each change, to have it reconciled soon.
	Changed func()
	Now     func() time.Time
}

// Service writes intent. Its errors that a caller can mend are *hub.Error.
type Service struct{ cfg Config }

// New checks cfg.
func New(cfg Config) (*Service, error) {
	switch {
	case cfg.Store == nil, cfg.Files == nil, cfg.Jobs == nil, cfg.Audit == nil,
		cfg.Receiver == nil, cfg.Alerts == nil, cfg.CheckIssuer == nil, cfg.Proposals == nil, cfg.Due == nil:
		return nil, errors.New("make intent service: a service is missing")
	case cfg.Domain == "", cfg.Changed == nil, cfg.Now == nil:
		return nil, errors.New("make intent service: domain, change signal or clock is missing")
	}
	return &Service{cfg: cfg}, nil
}

// act is one request to change intent.
type act struct {
	actor     hub.Principal
	requestID string
	// action is the operation's id in the API, as denied attempts at it are recorded under.
	action string
	// object is the name of the certificate or server, and key the trailer that names it.
	object string
	key    string
}

func (a act) name() string {
	switch a.actor.Kind {
	case hub.Person:
		return a.actor.Name
	case hub.Agent:
		return "agent:" + a.actor.Name
	case hub.Anonymous:
	}
	return HubActor
}

// change makes the commit that build describes, on the newest snapshot, and records it. build is called again when
// the files it edits were changed by somebody else in between.
func (s *Service) change(ctx context.Context, a act, build func(*gitstore.Snapshot) (gitstore.Change, error)) error {
	for range attempts {
		snapshot, err := s.cfg.Store.Snapshot()
		if err != nil {
			return fmt.Errorf("read main: %w", err)
		}
		change, err := build(snapshot)
		if err != nil {
			return err
		}
		if change.Trailers, err = s.trailers(ctx, a); err != nil {
			return err
		}
		change.Expect = snapshot.Commit
		change.Actor = s.author(a)
		change.BeforeRef = s.record(ctx, a)
		_, err = s.cfg.Store.Apply(ctx, change)
		if errors.Is(err, gitstore.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", a.action, a.object, err)
		}
		s.cfg.Changed()
		return nil
	}
	return &hub.Error{Class: hub.ErrConflict, Message: "somebody else keeps changing this object: look at it again, then try again"}
}

func (s *Service) trailers(ctx context.Context, a act) ([]gitstore.Trailer, error) {
	head, err := s.cfg.Audit.AuditHead(ctx)
	if err != nil {
		return nil, fmt.Errorf("read head of the audit history: %w", err)
	}
	trailers := []gitstore.Trailer{{Key: a.key, Value: a.object}, {Key: gitstore.TrailerActor, Value: a.name()}}
	if a.requestID != "" {
		trailers = append(trailers, gitstore.Trailer{Key: gitstore.TrailerRequestID, Value: a.requestID})
	}
	if head != "" {
		trailers = append(trailers, gitstore.Trailer{Key: gitstore.TrailerAuditHead, Value: head})
	}
	return trailers, nil
}

// author is the person whose name stands on the commit; the hub itself is the empty Actor.
func (s *Service) author(a act) gitstore.Actor {
	if a.actor.Kind != hub.Person {
		return gitstore.Actor{}
	}
	return gitstore.Actor{Name: a.actor.Name, Email: a.actor.Name + "@" + s.cfg.Domain}
}

// record writes the audit row once the commit is safe and before it counts: an act that cannot be recorded does not
// happen. Acts of the hub itself are recorded where they begin.
func (s *Service) record(ctx context.Context, a act) func(commit string) error {
	if a.action == "" {
		return nil
	}
	return func(commit string) error {
		if err := s.cfg.Audit.Audit(ctx, s.event(a, "commit "+commit)); err != nil {
			return fmt.Errorf("record act: %w", err)
		}
		return nil
	}
}

func (s *Service) event(a act, detail string) hub.AuditEvent {
	return hub.AuditEvent{
		At: s.cfg.Now(), Actor: a.name(), Action: a.action, Object: a.object, Outcome: hub.OutcomeOK,
		RequestID: a.requestID, Detail: detail,
	}
}

// reasonOf checks a reason that goes into a commit message and the YAML.
func reasonOf(text string) (string, error) {
	text = strings.TrimSpace(text)
	control := func(r rune) bool {
		return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029'
	}
	if len(text) > 1024 || strings.ContainsFunc(text, control) {
		return "", invalid("body.reason", "must be one line of at most 256 characters")
	}
	return text, nil
}

func invalid(location, message string) error {
	return &hub.Error{
		Class: hub.ErrInvalid, Message: "the request has faults: mend them and send it again",
		Faults: []hub.Fault{{Location: location, Message: message}},
	}
}

func conflict(message string) error { return &hub.Error{Class: hub.ErrConflict, Message: message} }

func notFound(message string) error { return &hub.Error{Class: hub.ErrNotFound, Message: message} }
