package reconcile

import (
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
	"github.com/certferry/certferry/internal/failpoint"
	"github.com/certferry/certferry/issuer"
)

// writeTimeout bounds the writing down of an outcome when the process is told to stop.
const writeTimeout = 5 * time.Second

// obsoleteError ends a job whose work is not wished for any more.
type obsoleteError string

func (e obsoleteError) Error() string { return string(e) }

// startOrders starts as many jobs as there are free workers, and says how many.
func (r *Reconciler) startOrders(ctx context.Context) (started int, err error) {
	for {
		select {
		case r.workers <- struct{}{}:
		default:
			return started, nil
		}
		job, found, err := r.cfg.Data.ClaimJob(ctx)
		if err != nil || !found {
			<-r.workers
			return started, err
		}
		started++
		r.orders.Go(func() {
			defer r.Trigger()
			defer func() { <-r.workers }()
			r.work(ctx, job)
		})
	}
}

// work runs one job and writes down what became of it.
func (r *Reconciler) work(ctx context.Context, job hub.Job) {
	log := r.cfg.Logger.With("job", job.ID, "certificate", job.Certificate)
	o := &order{r: r, job: job}
	err := o.run(ctx)
	stopped := ctx.Err() != nil
	// The outcome is written down even when the process is told to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if err != nil && o.commit != "" {
		// The failure came after the commit was written down: only main knows whether it landed.
		if landed, lerr := r.landed(o.commit, job.Certificate, job.CreatedAt); lerr == nil && landed {
			log.WarnContext(ctx, "certificate recorded with a complaint", "error", err)
			err = nil
		}
	}
	switch {
	case err == nil:
		err = r.finish(ctx, job)
	case stopped:
		log.InfoContext(ctx, "order interrupted, it is taken up at the next start")
		err = r.cfg.Data.RequeueJob(ctx, job.ID)
	default:
		err = r.failed(ctx, o, err)
	}
	if err != nil {
		// The job stays running in the database and is taken up at the next start.
		log.ErrorContext(ctx, "outcome of a job could not be written down", "error", err)
	}
}

// finish ends a job whose certificate stands on main, or is not needed.
func (r *Reconciler) finish(ctx context.Context, job hub.Job) error {
	stalled, err := r.cfg.Data.Setting(ctx, stalledSetting+job.Certificate)
	if err == nil && stalled != "" {
		err = r.cfg.Data.SetSetting(ctx, stalledSetting+job.Certificate, "")
	}
	if err != nil {
		return err
	}
	if err := r.cfg.Data.FinishJob(ctx, job.ID); err != nil {
		return err
	}
	failpoint.Hit("hub.issue.done")
	return nil
}

// failed decides what happens after a failed attempt.
func (r *Reconciler) failed(ctx context.Context, o *order, cause error) error {
	log := r.cfg.Logger.With("job", o.job.ID, "certificate", o.job.Certificate, "attempt", o.job.Attempts, "error", cause)
	if _, ok := errors.AsType[obsoleteError](cause); ok {
		log.InfoContext(ctx, "job is not needed any more")
		return r.cfg.Data.FailJob(ctx, o.job.ID, string(issuer.Permanent), cause.Error())
	}
	e := classify(cause)
	if wait, again := backoff(e, o.job.Attempts, r.cfg.Random); again {
		retryAt := r.cfg.Now().Add(wait)
		log.WarnContext(ctx, "order failed", "class", e.Class, "retry_at", retryAt.UTC().Format(time.RFC3339))
		return r.cfg.Data.WaitJob(ctx, o.job.ID, retryAt, string(e.Class), cause.Error())
	}
	log.ErrorContext(ctx, "order failed for good until somebody changes it or renews by hand", "class", e.Class)
	if e.Class == issuer.Account && o.issuer != nil {
		r.stall(o.issuer)
	} else if err := r.cfg.Data.SetSetting(ctx, stalledSetting+o.job.Certificate, o.wish); err != nil {
		return err
	}
	event := hub.AuditEvent{
		At: r.cfg.Now(), Actor: o.job.Actor, Action: "issue-certificate", Object: o.job.Certificate,
		Outcome: hub.OutcomeFailed, Detail: string(e.Class),
	}
	return errors.Join(r.cfg.Data.Audit(ctx, event), r.cfg.Data.FailJob(ctx, o.job.ID, string(e.Class), cause.Error()))
}

// classify gives every error a class.
func classify(err error) *issuer.Error {
	var e *issuer.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, gitstore.ErrConflict), errors.Is(err, context.DeadlineExceeded):
		return &issuer.Error{Class: issuer.Retryable, Err: err}
	}
	return &issuer.Error{Class: issuer.Local, Err: err}
}

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
}

func (o *order) run(ctx context.Context) error {
	needed, err := o.look()
	if err != nil || !needed {
		return err
	}
	driver, err := o.r.cfg.Issuer(o.issuer)
	if err != nil {
		return err
	}
	key, previous, err := o.keys(ctx)
	if err != nil {
		return err
	}
	request, err := o.request(key, previous)
	if err != nil {
		return err
	}
	failpoint.Hit("hub.issue.ordered")
	issued, err := place(ctx, driver, request)
	if err != nil {
		return err
	}
	failpoint.Hit("hub.issue.received")
	o.r.arm(o.issuer.Name)
	b := &bundle.Bundle{Leaf: issued.Chain[0], Chain: issued.Chain[1:], Key: key}
	if err := b.Check(o.want.Names, o.r.cfg.Now()); err != nil {
		return &issuer.Error{Class: issuer.Local, Detail: "the CA's answer is not what was ordered", Err: err}
	}
	return o.put(ctx, b)
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
	o.issuer = o.snapshot.Issuers[o.want.Issuer]
	switch {
	case o.issuer == nil:
		return false, &issuer.Error{Class: issuer.Permanent, Detail: "the issuer " + o.want.Issuer + " does not exist"}
	case o.job.Actor == hubActor && o.r.isStalled(o.issuer):
		return false, &issuer.Error{Class: issuer.Account, Detail: "the account at issuer " + o.want.Issuer + " is unusable: mend it, then renew"}
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
		_, due := Due(o.want, have, o.r.cfg.Now())
		return due, nil
	}
	return true, nil
}

// keys chooses the private key, and finds the leaf that is replaced.
func (o *order) keys(ctx context.Context) (key crypto.Signer, previous []byte, err error) {
	kind, err := bundle.ParseKeyType(o.want.KeyType)
	if err != nil {
		return nil, nil, &issuer.Error{Class: issuer.Permanent, Err: err}
	}
	if have := o.snapshot.Issued[o.want.Name]; have != nil {
		old, err := o.r.cfg.Store.OpenIssued(ctx, o.snapshot.Commit, o.want.Name)
		switch {
		case err != nil:
			// The old bundle is only a help; a new key and an order like the first one do as well.
			o.r.cfg.Logger.WarnContext(ctx, "bundle in use cannot be opened", "certificate", o.want.Name, "error", err)
		default:
			if have.Issuer == o.want.Issuer {
				previous = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: old.Leaf.Raw})
			}
			if o.want.Renewal.Key == "keep" && !o.job.NewKey && keyType(have.KeyType) == string(kind) {
				return old.Key, previous, nil
			}
		}
	}
	key, err = bundle.GenerateKey(kind)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	return key, previous, nil
}

func (o *order) request(key crypto.Signer, previous []byte) (issuer.Request, error) {
	csr, err := bundle.NewCSR(key, o.want.Names)
	if err != nil {
		return issuer.Request{}, fmt.Errorf("make certificate request: %w", err)
	}
	request := issuer.Request{
		// Each attempt is an order of its own.
		ID:    fmt.Sprintf("%s-%d", o.job.ID, o.job.Attempts),
		Names: o.want.Names, CSR: csr, Previous: previous,
	}
	if acme := o.issuer.ACME; acme != nil {
		request.Profile, request.PreferredChain = acme.Profile, acme.PreferredChain
	}
	c := o.want.Challenge
	if c == nil {
		return request, nil
	}
	request.Challenge = issuer.Challenge{Type: issuer.ChallengeType(c.Type), Method: c.Method, Webroot: c.Webroot, Hook: c.Hook}
	if c.Credential != "" {
		if request.Challenge.Credentials, err = o.r.cfg.Credentials(c.Credential); err != nil {
			return issuer.Request{}, &issuer.Error{Class: issuer.Local, Detail: "read credential " + c.Credential, Err: err}
		}
	}
	return request, nil
}

// place places one order within its time.
func place(ctx context.Context, driver issuer.Issuer, request issuer.Request) (*issuer.Certificate, error) {
	within, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	issued, err := driver.Issue(within, request)
	if err != nil {
		return nil, err
	}
	if len(issued.Chain) == 0 {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "the CA's answer holds no certificate"}
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
		Issued: manifest.IssuedCertificate{Issuer: o.want.Issuer, KeyType: keyType(o.want.KeyType)},
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
