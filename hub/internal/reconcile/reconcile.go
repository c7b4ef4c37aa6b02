// Package reconcile brings the world to what the branch main says: it plans which certificates are due, issues them
// as jobs, and publishes each server's state to its branch.
//
// It is a loop of named, idempotent steps. Each step reads main, the database and the clock afresh, so that the
// process can be killed between any two instructions and goes on where it was when it starts again.
package reconcile

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/issuer"
)

// hubActor is who asks for what falls due by itself.
const hubActor = "hub"

// issueTimeout ends an order whose driver does not come back. Drivers have limits of their own, far below it, but may
// have to wait for others at the same account first.
const issueTimeout = 2 * time.Hour

// Store is the repository.
type Store interface {
	Snapshot() (*gitstore.Snapshot, error)
	Apply(ctx context.Context, change gitstore.Change) (commit string, err error)
	Issued
	Branches
}

// Issued reads and writes what was issued.
type Issued interface {
	IssuedAt(commit, name string) (*manifest.IssuedCertificate, error)
	IssuedChain(commit, name string) ([]*x509.Certificate, error)
	IssueWith(name, leaf string) (commit string, issued *manifest.IssuedCertificate, err error)
	PutIssued(ctx context.Context, issue gitstore.Issue) (commit string, err error)
	OpenIssued(ctx context.Context, commit, name string) (*bundle.Bundle, error)
	Proposals
}

// Proposals keeps issues that wait for review.
type Proposals interface {
	Propose(ctx context.Context, issue gitstore.Issue) (commit string, err error)
	Proposals() ([]*gitstore.Proposal, error)
	CloseProposal(ctx context.Context, p *gitstore.Proposal, change gitstore.Change) error
}

// Branches reads and writes the branches of servers.
type Branches interface {
	ServerTip(server string) (*gitstore.Tip, error)
	ServerHistory(server string, limit int) ([]gitstore.ServerCommit, error)
	Publish(ctx context.Context, mainCommit string, states []gitstore.ServerState) ([]gitstore.Published, error)
}

// Repo watches and walks the repository.
type Repo interface {
	// Changed is closed when a reference moves.
	Changed() <-chan struct{}
	Ref(name string) (gitrepo.Hash, bool)
	Log(from gitrepo.Hash, limit int) ([]*gitrepo.Commit, error)
}

// Data is the database.
type Data interface {
	Queue
	Outcomes
	Progress
	Servers(ctx context.Context, after string, limit int) ([]hub.Server, error)
	CertificateObservations(ctx context.Context, certificate string) ([]hub.Observation, error)
	Records
}

// Records keeps what is to be known later.
type Records interface {
	Audit
	Settings
	Renewals
	Requests
}

// Queue hands out jobs.
type Queue interface {
	EnqueueJob(ctx context.Context, job hub.Job) (queued hub.Job, created bool, err error)
	ClaimJob(ctx context.Context, busy []string) (job hub.Job, found bool, err error)
	Job(ctx context.Context, id string) (hub.Job, error)
	RunningJobs(ctx context.Context) ([]hub.Job, error)
	RequeueJob(ctx context.Context, id string) error
	LatestOrders(ctx context.Context) (map[string]hub.Job, error)
}

// Outcomes takes what became of a job.
type Outcomes interface {
	SetJobCommit(ctx context.Context, id, commit string) error
	FinishJob(ctx context.Context, id string) error
	WaitJob(ctx context.Context, id string, retryAt time.Time, class, message string) error
	FailJob(ctx context.Context, id, class, message string) error
	PutOffJob(ctx context.Context, id string, notBefore time.Time, class, message string) error
	CancelJob(ctx context.Context, id string, settings map[string]string, event hub.AuditEvent) (hub.Job, error)
}

// Progress takes how far a job is.
type Progress interface {
	SetJobIssuer(ctx context.Context, id, issuer string) error
	AppendJobLog(ctx context.Context, id string, lines []hub.JobLine) error
}

// Renewals keeps when CAs want certificates renewed.
type Renewals interface {
	Renewals(ctx context.Context) ([]hub.RenewalPlan, error)
	RenewalsToCheck(ctx context.Context, now time.Time, limit int) ([]hub.RenewalPlan, error)
	PutRenewals(ctx context.Context, plans []hub.RenewalPlan) error
	DeleteRenewal(ctx context.Context, certificate string) error
}

// Audit is the audit history.
type Audit interface {
	Audit(ctx context.Context, event hub.AuditEvent) error
	AuditHead(ctx context.Context) (string, error)
}

// Settings keeps small facts across restarts.
type Settings interface {
	Setting(ctx context.Context, name string) (string, error)
	SetSetting(ctx context.Context, name, value string) error
}

// Alerts tells people.
type Alerts interface {
	Raise(ctx context.Context, a hub.Alert) error
	Clear(ctx context.Context, kind hub.AlertKind, object string) error
	Alerts(ctx context.Context, openOnly bool, before int64, limit int) ([]hub.Alert, error)
}

// Config is what a Reconciler needs. All is required but Review, Waves, Soak and Random.
type Config struct {
	Store Store
	Repo  Repo
	Data  Data
	// Issuer makes the driver for an issuer of main. An error that is an *issuer.Error keeps its class.
	Issuer func(*manifest.Issuer) (issuer.Issuer, error)
	// Staging is the issuer on which a dry run of another one is made, nil where there is none; nil for none at all.
	Staging func(*manifest.Issuer) *manifest.Issuer
	// Ledger keeps what was spent of Limits, which are those of an issuer's account; nil where nothing is counted.
	Ledger ledger.Store
	Limits func(*manifest.Issuer) Limits
	// Preflight says why a CA would refuse, before it is asked: an *issuer.Error of the class that the CA's refusal would
	// have. It tells its findings line by line. Nil for no preflight.
	Preflight func(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer, tell func(line string)) error
	// Leftovers clears up what orders of a killed process left, and tells how far they were; nil for nothing.
	Leftovers func(ctx context.Context) ([]issuer.Leftover, error)
	// Credentials returns the variables of a DNS hook by the credential's name.
	Credentials func(name string) (map[string]string, error)
	// KeyringVersion is the version of the keyring that the store publishes.
	KeyringVersion uint64
	// Domain ends the addresses of commit authors.
	Domain string
	Alerts Alerts
	// Review is that of certificates that do not say: none, required or two-person; empty for none.
	Review string
	// Waves are those of certificates that name none; none for all servers at once.
	Waves manifest.Waves
	// Soak is how long a wave must have stood before the next begins, WaveTimeout how long its servers have to report
	// before a person is asked to look. A server counts as offline OfflineAfter its last heartbeat.
	Soak         time.Duration
	WaveTimeout  time.Duration
	OfflineAfter time.Duration
	// Workers is how many orders run at once, IssuerWorkers how many of them at one issuer; 0 for as many as Workers.
	Workers       int
	IssuerWorkers int
	// Ring is called when there is news for a server; it must not block. Nil for nobody to tell.
	Ring func(server string)
	// Interval is the longest time between two passes.
	Interval time.Duration
	Now      func() time.Time
	Logger   *slog.Logger
	// Random answers values in [0, 1) for the jitter of back-offs.
	Random func() float64
}

func (c *Config) check() error {
	switch {
	case c.Store == nil, c.Repo == nil, c.Data == nil, c.Issuer == nil, c.Credentials == nil, c.Alerts == nil:
		return errors.New("make reconciler: a service is missing")
	case c.Now == nil, c.Logger == nil, c.Domain == "":
		return errors.New("make reconciler: clock, logger or domain is missing")
	case c.Workers < 1, c.Interval <= 0, c.WaveTimeout <= 0, c.OfflineAfter <= 0:
		return errors.New("make reconciler: workers, interval and the times of rollouts must be positive")
	}
	if c.Limits != nil && c.Ledger == nil {
		return errors.New("make reconciler: limits need a ledger")
	}
	if c.Random == nil {
		c.Random = rand.Float64
	}
	if c.IssuerWorkers == 0 {
		c.IssuerWorkers = c.Workers
	}
	if c.Staging == nil {
		c.Staging = func(*manifest.Issuer) *manifest.Issuer { return nil }
	}
	return nil
}

// Reconciler runs the loop.
type Reconciler struct {
	cfg     Config
	trigger chan struct{}
	// workers holds a token for each order under way, orders waits for them.
	workers chan struct{}
	orders  sync.WaitGroup

	mu sync.Mutex
	// running are the orders under way by their job's id.
	running map[string]*running
	// renewals are the plans by certificate, planned the commit of main that they were last held against.
	renewals map[string]*hub.RenewalPlan
	planned  string
	// stalled are the issuers whose account is unusable, with the intent that they had then. It is not kept: after a
	// restart, perhaps with mended configuration, each gets one more try.
	stalled map[string]stalled
	// turnedAway are the times until which a wished issuer is not asked, by certificate and issuer. It is not kept either:
	// the ledger knows what its CA asked for.
	turnedAway map[string]time.Time
	// keys are the parsed public keys of servers by fingerprint.
	keys map[string]*seal.PublicKey
	// waiting are the levels at which people were told of proposals, by certificate and serial.
	waiting map[string]hub.AlertLevel
	// holds are the levels at which people were told of held servers, by server.
	holds map[string]hub.AlertLevel
	// failing are the certificates of which people were told that their orders do not go through.
	failing map[string]bool
	// told are the faults that were logged in the last pass, so that each is logged when it comes and not every time.
	told map[string]bool
}

// New checks cfg.
func New(cfg Config) (*Reconciler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return &Reconciler{
		cfg:        cfg,
		trigger:    make(chan struct{}, 1),
		workers:    make(chan struct{}, cfg.Workers),
		running:    map[string]*running{},
		stalled:    map[string]stalled{},
		turnedAway: map[string]time.Time{},
		keys:       map[string]*seal.PublicKey{},
		told:       map[string]bool{},
		waiting:    map[string]hub.AlertLevel{},
		holds:      map[string]hub.AlertLevel{},
		failing:    map[string]bool{},
	}, nil
}

// Trigger asks for a pass soon. It never blocks.
func (r *Reconciler) Trigger() {
	select {
	case r.trigger <- struct{}{}:
	default:
	}
}

// Run finishes what the last process left, then reconciles until ctx is done and the orders under way have ended.
func (r *Reconciler) Run(ctx context.Context) error {
	defer r.orders.Wait()
	if err := r.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began: the next start does it
		}
		return err
	}
	r.orders.Go(func() { r.askCAs(ctx) })
	timer := time.NewTimer(r.cfg.Interval)
	defer timer.Stop()
	for {
		changed := r.cfg.Repo.Changed()
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.ErrorContext(ctx, "reconcile pass failed", "error", err, "again_in", r.cfg.Interval)
		}
		timer.Reset(r.cfg.Interval)
		select {
		case <-ctx.Done():
			return nil
		case <-r.trigger:
		case <-changed:
		case <-timer.C:
		}
	}
}

// Once finishes what the last process left and reconciles until nothing more is due now.
func (r *Reconciler) Once(ctx context.Context) error {
	if err := r.recover(ctx); err != nil {
		return err
	}
	for {
		if err := r.checkRenewals(ctx); err != nil {
			return err
		}
		if err := r.plan(ctx); err != nil {
			return err
		}
		started, err := r.startOrders(ctx)
		r.orders.Wait()
		if err != nil {
			return err
		}
		if started == 0 {
			return errors.Join(r.advance(ctx), r.publish(ctx))
		}
	}
}

// pass takes all steps. A step that fails does not keep the others from what they can do.
func (r *Reconciler) pass(ctx context.Context) error {
	var faults []error
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"take up jobs", func(ctx context.Context) error { return r.takeUp(ctx, r.putOffLost) }},
		{"plan", r.plan},
		{"start orders", func(ctx context.Context) error { _, err := r.startOrders(ctx); return err }},
		{"advance rollouts", r.advance},
		{"publish", r.publish},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := step.run(ctx); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", step.name, err))
		}
	}
	return errors.Join(faults...)
}

// tell logs a lasting fault when it appears. seen collects what stands in this pass; see forget.
func (r *Reconciler) tell(ctx context.Context, seen map[string]bool, object string, err error) {
	key := object + ": " + err.Error()
	seen[key] = true
	if !r.told[key] {
		r.cfg.Logger.WarnContext(ctx, "left as it is until mended", "object", object, "error", err)
	}
}
