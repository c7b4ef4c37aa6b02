// This file asks CAs when they want certificates renewed (RFC 9773), and remembers what they said.

package reconcile

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/issuer"
)

const (
	// checkEvery is how often a CA is asked about a certificate, sooner or later where it says so within the bounds.
	checkEvery    = 12 * time.Hour
	latestCheck   = 24 * time.Hour
	checkFailed   = time.Hour
	checkAbsent   = 7 * day
	askInterval   = time.Minute
	askTimeout    = 30 * time.Second
	askAtOnce     = 4
	askBatch      = 200
	firstAskAfter = 10 * time.Minute
)

// Due is package function Due with what the CA said.
func (r *Reconciler) Due(want *manifest.Certificate, have *manifest.IssuedCertificate, now time.Time) (reason string, due bool) {
	return Due(want, have, r.planOf(want.Name), now)
}

// RenewAt is package function RenewAt with what the CA said.
func (r *Reconciler) RenewAt(want *manifest.Certificate, have *manifest.IssuedCertificate) time.Time {
	return RenewAt(want, have, r.planOf(want.Name))
}

// Renewal is what the CA said about a certificate, nil for nothing.
func (r *Reconciler) planOf(certificate string) *hub.RenewalPlan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renewals[certificate]
}

// recallRenewals reads what was known when the last process ended.
func (r *Reconciler) recallRenewals(ctx context.Context) error {
	plans, err := r.cfg.Data.Renewals(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.renewals = make(map[string]*hub.RenewalPlan, len(plans))
	for i := range plans {
		r.renewals[plans[i].Certificate] = &plans[i]
	}
	return nil
}

// askCAs asks until ctx is done.
func (r *Reconciler) askCAs(ctx context.Context) {
	ticker := time.NewTicker(askInterval)
	defer ticker.Stop()
	for {
		if err := r.checkRenewals(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.ErrorContext(ctx, "CAs could not be asked when to renew", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// checkRenewals takes up what was issued since the last time, and asks the CAs that are due.
func (r *Reconciler) checkRenewals(ctx context.Context) error {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil {
		return err
	}
	if err := r.takeUpIssued(ctx, snapshot); err != nil {
		return err
	}
	due, err := r.cfg.Data.RenewalsToCheck(ctx, r.cfg.Now(), askBatch)
	if err != nil || len(due) == 0 {
		return err
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, askAtOnce)
	for i := range due {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			r.askOne(ctx, snapshot, &due[i])
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := r.cfg.Data.PutRenewals(ctx, due); err != nil {
		return err
	}
	r.mu.Lock()
	for i := range due {
		r.renewals[due[i].Certificate] = &due[i]
	}
	r.mu.Unlock()
	r.Trigger()
	return nil
}

// takeUpIssued makes a plan for each certificate that was issued since the last time, to be asked about soon.
func (r *Reconciler) takeUpIssued(ctx context.Context, snapshot *gitstore.Snapshot) error {
	if r.planned == snapshot.Commit {
		return nil
	}
	now := r.cfg.Now()
	var fresh []hub.RenewalPlan
	for name, have := range snapshot.Issued {
		plan := r.planOf(name)
		if plan != nil && plan.LeafSHA256 == have.LeafSHA256 {
			continue
		}
		if !hasPlan(snapshot, have) {
			continue
		}
		fresh = append(fresh, hub.RenewalPlan{
			Certificate: name, LeafSHA256: have.LeafSHA256,
			NextCheck: now.Add(time.Duration(float64(firstAskAfter) * r.cfg.Random())),
		})
	}
	if err := r.cfg.Data.PutRenewals(ctx, fresh); err != nil {
		return err
	}
	for name := range r.copyRenewals() {
		if have := snapshot.Issued[name]; have == nil || !hasPlan(snapshot, have) {
			if err := r.cfg.Data.DeleteRenewal(ctx, name); err != nil {
				return err
			}
			r.mu.Lock()
			delete(r.renewals, name)
			r.mu.Unlock()
		}
	}
	r.mu.Lock()
	for i := range fresh {
		r.renewals[fresh[i].Certificate] = &fresh[i]
	}
	r.mu.Unlock()
	r.planned = snapshot.Commit
	return nil
}

// hasPlan says whether there is a CA to ask about an issue.
func hasPlan(snapshot *gitstore.Snapshot, have *manifest.IssuedCertificate) bool {
	i := snapshot.Issuers[have.Issuer]
	return i != nil && i.Type == "acmesh"
}

func (r *Reconciler) copyRenewals() map[string]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make(map[string]struct{}, len(r.renewals))
	for name := range r.renewals {
		names[name] = struct{}{}
	}
	return names
}

// askOne asks about one certificate and brings plan up to date. A CA that cannot be asked changes nothing but the time
// of the next try.
func (r *Reconciler) askOne(ctx context.Context, snapshot *gitstore.Snapshot, plan *hub.RenewalPlan) {
	now := r.cfg.Now()
	plan.CheckedAt = now
	info, err := r.renewalInfo(ctx, snapshot, plan)
	switch {
	case errors.Is(err, issuer.ErrUnsupported):
		plan.Start, plan.End, plan.RenewAt, plan.ExplanationURL = time.Time{}, time.Time{}, time.Time{}, ""
		plan.NextCheck = now.Add(checkAbsent)
	case err != nil:
		r.cfg.Logger.DebugContext(ctx, "CA not asked when to renew", "certificate", plan.Certificate, "error", err)
		plan.NextCheck = now.Add(checkFailed)
	default:
		plan.NextCheck = now.Add(min(max(checkEvery, info.RetryAfter), latestCheck))
		if !info.Start.Equal(plan.Start) || !info.End.Equal(plan.End) || plan.RenewAt.IsZero() {
			plan.RenewAt = chooseIn(info, now, r.cfg.Random())
			r.cfg.Logger.InfoContext(ctx, "CA says when to renew", "certificate", plan.Certificate,
				"from", info.Start.UTC().Format(time.RFC3339), "until", info.End.UTC().Format(time.RFC3339),
				"chosen", plan.RenewAt.UTC().Format(time.RFC3339), "why", info.ExplanationURL)
		}
		plan.Start, plan.End, plan.ExplanationURL = info.Start, info.End, info.ExplanationURL
	}
}

// chooseIn is a random moment in a window (RFC 9773 §4.2), now where it has passed.
func chooseIn(info issuer.RenewalInfo, now time.Time, random float64) time.Time {
	at := info.Start.Add(time.Duration(float64(info.End.Sub(info.Start)) * random))
	if at.Before(now) {
		return now
	}
	return at
}

func (r *Reconciler) renewalInfo(ctx context.Context, snapshot *gitstore.Snapshot, plan *hub.RenewalPlan) (issuer.RenewalInfo, error) {
	have := snapshot.Issued[plan.Certificate]
	if have == nil || have.LeafSHA256 != plan.LeafSHA256 || snapshot.Issuers[have.Issuer] == nil {
		return issuer.RenewalInfo{}, fmt.Errorf("ask about %s: it was issued anew meanwhile", plan.Certificate)
	}
	driver, err := r.cfg.Issuer(snapshot.Issuers[have.Issuer])
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	informer, ok := driver.(issuer.RenewalInformer)
	if !ok {
		return issuer.RenewalInfo{}, issuer.ErrUnsupported
	}
	chain, err := r.cfg.Store.IssuedChain(snapshot.Commit, plan.Certificate)
	if err != nil {
		return issuer.RenewalInfo{}, err
	}
	serial, ok := new(big.Int).SetString(have.Serial, 16)
	if len(chain) == 0 || !ok {
		return issuer.RenewalInfo{}, issuer.ErrUnsupported
	}
	// The CA is asked by the leaf's serial number and its issuer's key (RFC 9773 §4.1): no need to open the bundle.
	leaf := &x509.Certificate{SerialNumber: serial, AuthorityKeyId: chain[0].SubjectKeyId}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return informer.RenewalInfo(ctx, leaf, chain[0])
}
