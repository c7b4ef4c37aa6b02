package reconcile

import (
	"cmp"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/internal/failpoint"
	"github.com/certferry/certferry/issuer"
)

// writeTimeout bounds the writing down of an outcome when the process is told to stop.
const writeTimeout = 5 * time.Second

// saveTimeout bounds the writing down of a certificate that the CA signed.
const saveTimeout = time.Minute

// obsoleteError ends a job whose work is not wished for any more.
type obsoleteError string

func (e obsoleteError) Error() string { return string(e) }

// order is one attempt at a job.
type order struct {
	r   *Reconciler
	job hub.Job

	snapshot *gitstore.Snapshot
	want     *manifest.Certificate
	issuer   *manifest.Issuer
	// wish identifies what was wished when the attempt began.
	wish string
	// commit is what was written down as the job's outcome before main moved.
	commit string
	// phase is how far the attempt came.
	phase issuer.Phase
}

func (o *order) run(ctx context.Context) error {
	needed, err := o.look()
	if err != nil || !needed {
		return err
	}
	if err := o.r.cfg.Data.SetJobIssuer(ctx, o.job.ID, o.issuer.Name); err != nil {
		return err
	}
	o.r.ordersAt(o.job.ID, o.issuer.Name)
	driver, err := o.r.cfg.Issuer(o.issuer)
	if err != nil {
		return err
	}
	key, previous, err := o.keys(ctx)
	if err != nil {
		return err
	}
	request, err := o.request(ctx, key, previous)
	if err != nil {
		return err
	}
	if err := o.preflight(ctx); err != nil {
		return err
	}
	failpoint.Hit("hub.issue.ordered")
	issued, err := o.place(ctx, driver, request)
	if err != nil {
		return err
	}
	failpoint.Hit("hub.issue.received")
	// The CA counts what it signed: it is kept even when the process is told to stop, or somebody cancels just now.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	o.r.arm(o.issuer.Name)
	b := &bundle.Bundle{Leaf: issued.Chain[0], Chain: issued.Chain[1:], Key: key}
	if err := errors.Join(b.Check(o.want.Names, o.r.cfg.Now()), checkAnswer(b, request.CSR, o.want)); err != nil {
		return &issuer.Error{Class: issuer.Retryable, Detail: "the CA's answer is not what was ordered", Err: err}
	}
	if o.job.Kind == apiv1.JobDryRun {
		o.tell(ctx, issuer.Event{Phase: issuer.PhaseCheck, Line: "the dry run got a certificate from " + b.Leaf.Issuer.CommonName + " and threw it away"})
		return nil
	}
	return o.put(ctx, b)
}

// timeLeft is how long the issue that is served now is good for; negative where there is none.
func (o *order) timeLeft() time.Duration {
	if o.snapshot == nil || o.snapshot.Issued[o.job.Certificate] == nil {
		return -1
	}
	return o.snapshot.Issued[o.job.Certificate].NotAfter.Sub(o.r.cfg.Now())
}

// look reads what is wished now, which may be something else than when the job was queued.
func (o *order) look() (needed bool, err error) {
	if o.snapshot, err = o.r.cfg.Store.Snapshot(); err != nil {
		return false, err
	}
	o.want = o.snapshot.Certificates[o.job.Certificate]
	switch {
	case o.want == nil:
		return false, obsoleteError("the certificate is not wished for any more")
	case o.want.Renewal.Paused:
		return false, obsoleteError("the renewal of the certificate is paused: resume it, then renew")
	}
	o.wish = wishOf(o.snapshot, o.want)
	if err := o.choose(); err != nil {
		return false, err
	}
	if o.job.Actor == hubActor {
		// A job that the hub gave itself is done once nothing is due any more, whoever brought that about.
		have := o.snapshot.Issued[o.want.Name]
		proposals, err := o.r.cfg.Store.Proposals()
		if err != nil {
			return false, err
		}
		for _, p := range proposals {
			if p.Certificate == o.want.Name {
				have = p.Issued
			}
		}
		_, due := o.r.Due(o.want, have, o.r.cfg.Now())
		return due, nil
	}
	return true, nil
}

// longWait is how long a wished issuer may make a certificate wait before its fallback is asked.
const longWait = 6 * time.Hour

// turnsAway says whether what an attempt at the wished issuer ended with sends the next one to the fallback at once: the
// account is unusable, the CA does not want these names, or it makes them wait for long.
func (o *order) turnsAway(e *issuer.Error, wait time.Duration) bool {
	if o.issuer == nil || o.job.Kind == apiv1.JobDryRun || o.issuer.Name != o.want.Issuer || o.r.fallback(o.snapshot, o.want) == nil {
		return false
	}
	switch e.Class {
	case issuer.Account:
		return true
	case issuer.Permanent:
		return e.ACMEType != "" // the CA's own word, and not what this machine refused
	case issuer.RateLimited:
		return wait > longWait
	default:
		return false
	}
}

// patience is how many attempts the wished issuer has before every other one goes to the fallback.
const patience = 4

// choose finds the issuer of this attempt: the wished one, or the fallback where that one is down.
func (o *order) choose() error {
	o.issuer = o.snapshot.Issuers[o.want.Issuer]
	if o.issuer == nil {
		return &issuer.Error{Class: issuer.Permanent, Detail: "the issuer " + o.want.Issuer + " does not exist"}
	}
	if o.job.Kind == apiv1.JobDryRun {
		staging := o.r.cfg.Staging(o.issuer)
		if staging == nil {
			return &issuer.Error{Class: issuer.Permanent, Detail: "the CA of issuer " + o.want.Issuer + " has no staging to try on: certferry cert preflight checks what can be checked without it"}
		}
		o.issuer = staging
		return nil
	}
	stalled := o.job.Actor == hubActor && o.r.isStalled(o.issuer)
	if fallback := o.r.fallback(o.snapshot, o.want); fallback != nil && (stalled || o.isDown() || o.r.isTurnedAway(o.want)) {
		o.issuer = fallback
		return nil
	}
	if stalled {
		return &issuer.Error{Class: issuer.Account, Detail: "the account at issuer " + o.want.Issuer + " is unusable: mend it, then renew"}
	}
	return nil
}

// isDown says whether the wished issuer had its tries, and nothing but it is at fault. Where it refused, the next attempt
// does not go there (see turnsAway); where it is away, every other one does, as it may be back.
func (o *order) isDown() bool {
	switch issuer.Class(o.job.ErrorClass) {
	case issuer.Account, issuer.Permanent:
		return true
	case issuer.Retryable, issuer.RateLimited:
		return o.job.Attempts > patience && o.job.Attempts%2 == 0
	default:
		return false
	}
}

// keys chooses the private key, nil where its server makes it, and finds the leaf that is replaced.
func (o *order) keys(ctx context.Context) (key crypto.Signer, previous []byte, err error) {
	kind, err := bundle.ParseKeyType(o.want.KeyType)
	if err != nil {
		return nil, nil, &issuer.Error{Class: issuer.Permanent, Err: err}
	}
	if have := o.snapshot.Issued[o.want.Name]; have != nil && o.job.Kind != apiv1.JobDryRun {
		old, err := o.r.cfg.Store.OpenIssued(ctx, o.snapshot.Commit, o.want.Name)
		switch {
		case err != nil:
			// The old bundle is only a help; a new key and an order like the first one do as well.
			o.r.cfg.Logger.WarnContext(ctx, "bundle in use cannot be opened", "certificate", o.want.Name, "error", err)
		default:
			if have.Issuer == o.issuer.Name {
				previous = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Leaf.Raw})
			}
			// A key whose certificate was revoked may be in other hands.
			if o.want.Renewal.Key == "keep" && !o.job.NewKey && have.Revoked == nil && old.Key != nil && !o.keyOnServer() && keyType(have.KeyType) == string(kind) {
				return old.Key, previous, nil
			}
		}
	}
	if o.keyOnServer() {
		return nil, previous, nil
	}
	key, err = bundle.GenerateKey(kind)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return key, previous, nil
}

func (o *order) request(ctx context.Context, key crypto.Signer, previous []byte) (issuer.Request, error) {
	csr, err := o.signingRequest(ctx, key)
	if err != nil {
		return issuer.Request{}, err
	}
	request := issuer.Request{
		// Each attempt is an order of its own.
		ID:    o.id(),
		Names: o.want.Names, CSR: csr, Previous: previous,
		Profile: o.want.Profile, PreferredChain: o.want.PreferredChain,
		Progress: func(e issuer.Event) { o.progress(ctx, e) },
	}
	if acme := o.issuer.ACME; acme != nil {
		request.Profile, request.PreferredChain = cmp.Or(request.Profile, acme.Profile), cmp.Or(request.PreferredChain, acme.PreferredChain)
	}
	if request.Challenge, err = o.challenge(o.want.Challenge); err != nil {
		return issuer.Request{}, err
	}
	for i := range o.want.Challenges {
		named := &o.want.Challenges[i]
		c, err := o.challenge(&named.Challenge)
		if err != nil {
			return issuer.Request{}, err
		}
		if request.Overrides == nil {
			request.Overrides = map[string]issuer.Challenge{}
		}
		for _, name := range named.Names {
			request.Overrides[name] = c
		}
	}
	return request, nil
}

// id names this attempt.
func (o *order) id() string { return fmt.Sprintf("%s-%d", o.job.ID, o.job.Attempts) }

// challenge is a challenge with its credentials.
func (o *order) challenge(c *manifest.Challenge) (out issuer.Challenge, err error) {
	if c == nil {
		return out, nil
	}
	out = issuer.Challenge{
		Type: issuer.ChallengeType(c.Type), Method: c.Method, Webroot: c.Webroot, Hook: c.Hook,
		Credential: c.Credential, Alias: c.Alias, DomainAlias: c.DomainAlias,
	}
	if c.Credential != "" {
		if out.Credentials, err = o.r.cfg.Credentials(c.Credential); err != nil {
			return out, &issuer.Error{Class: issuer.Local, Detail: "read credential " + c.Credential, Err: err}
		}
	}
	return out, nil
}

// preflight checks what can be checked without the CA: before the first attempt, and before each at another issuer than
// the one before, and again after the CA or the DNS provider could not go on for a reason that somebody has to mend. A
// CA counts failed tries.
func (o *order) preflight(ctx context.Context) error {
	last := issuer.Class(o.job.ErrorClass)
	again := last == issuer.ValidationFailed || last == issuer.DNSProvider
	another := o.job.Issuer != o.issuer.Name
	if o.r.cfg.Preflight == nil || o.job.Attempts > 1 && !again && !another {
		return nil
	}
	o.tell(ctx, issuer.Event{Phase: issuer.PhasePrepare, Line: "checking what the CA will check"})
	return o.r.cfg.Preflight(ctx, o.want, o.issuer, func(line string) { o.tell(ctx, issuer.Event{Line: line}) })
}

// place places one order within its time, and keeps the books of it.
func (o *order) place(ctx context.Context, driver issuer.Issuer, request issuer.Request) (*issuer.Certificate, error) {
	booked, err := o.reserve(ctx, request)
	if err != nil {
		return nil, err
	}
	failpoint.Hit("hub.issue.reserved")
	within, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	issued, err := driver.Issue(within, request)
	if err == nil && len(issued.Chain) == 0 {
		err = &issuer.Error{Class: issuer.Retryable, Phase: issuer.PhaseDownload, Detail: "the CA's answer holds no certificate"}
	}
	if serr := o.settle(ctx, booked, err); serr != nil {
		// What is booked too much is only a delay.
		o.r.cfg.Logger.ErrorContext(ctx, "ledger not settled", "order", request.ID, "error", serr)
	}
	if err != nil {
		return nil, err
	}
	return issued, nil
}

// put seals the bundle and writes it to main. The job's row gets the commit before main moves (the outbox), so that
// a crash leaves something to finish and never a second order.
func (o *order) put(ctx context.Context, b *bundle.Bundle) error {
	head, err := o.r.cfg.Data.AuditHead(ctx)
	if err != nil {
		return err
	}
	failpoint.Hit("hub.issue.sealed")
	change := gitstore.Change{
		Body:     o.job.Reason,
		Trailers: []gitstore.Trailer{{Key: gitstore.TrailerActor, Value: o.job.Actor}},
		Expect:   o.snapshot.Commit,
		BeforeRef: func(commit string) error {
			if err := o.r.cfg.Data.SetJobCommit(ctx, o.job.ID, commit); err != nil {
				return err
			}
			o.commit = commit
			return o.r.cfg.Data.Audit(ctx, hub.AuditEvent{
				At: o.r.cfg.Now(), Actor: o.job.Actor, Action: "issue-certificate", Object: o.want.Name,
				Outcome: hub.OutcomeOK, Detail: "commit " + commit,
			})
		},
	}
	if head != "" {
		change.Trailers = append(change.Trailers, gitstore.Trailer{Key: gitstore.TrailerAuditHead, Value: head})
	}
	if o.job.Actor != hubActor {
		change.Actor = gitstore.Actor{Name: o.job.Actor, Email: o.job.Actor + "@" + o.r.cfg.Domain}
	}
	issue := gitstore.Issue{
		Certificate: o.want.Name, Bundle: b, Change: change,
		Issued: manifest.IssuedCertificate{Issuer: o.issuer.Name, KeyType: keyType(o.want.KeyType)},
	}
	if b.Key == nil {
		issue.Issued.KeyCustody, issue.Issued.KeyServer = manifest.CustodyServer, serverOf(o.want)
	}
	write := o.r.cfg.Store.PutIssued
	if review := o.r.reviewOf(o.want); review != manifest.ReviewNone {
		write = o.r.cfg.Store.Propose
		issue.Change.Trailers = append(issue.Change.Trailers, gitstore.Trailer{Key: gitstore.TrailerReview, Value: review})
	}
	commit, err := write(ctx, issue)
	if err != nil {
		return err
	}
	o.r.cfg.Logger.InfoContext(ctx, "certificate issued", "certificate", o.want.Name, "commit", commit,
		"leaf", b.LeafSHA256(), "not_after", b.Leaf.NotAfter.UTC().Format(time.RFC3339))
	return nil
}
