package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/internal/failpoint"
)

const (
	// minGap is the least time between the end of a job and the next one that the hub asks for by itself: whatever a
	// CA answers, it is not asked in a circle.
	minGap = time.Minute
	// pageSize is how many servers are read at once.
	pageSize = 1000
	// stalledSetting precedes the name of a certificate whose last job failed for good; the value is what was wished.
	stalledSetting = "stalled/"
)

// plan queues a job for each certificate that is due.
func (r *Reconciler) plan(ctx context.Context) error {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil {
		return err
	}
	proposed, err := r.tidyProposals(ctx, snapshot)
	if err != nil {
		return err
	}
	due := map[string]string{} // why each is
	for name, want := range snapshot.Certificates {
		have := snapshot.Issued[name]
		if proposed[name] != nil {
			have = proposed[name] // what waits for review need not be ordered again
		}
		if reason, is := r.Due(want, have, r.cfg.Now()); is {
			due[name] = reason
		}
	}
	if len(due) == 0 && !r.hasComplaints() {
		return nil
	}
	latest, err := r.cfg.Data.LatestOrders(ctx)
	if err != nil {
		return err
	}
	faults := []error{r.tidyComplaints(ctx, snapshot, due, latest)}
	for _, name := range sortedKeys(due) {
		want := snapshot.Certificates[name]
		if r.isStalled(snapshot.Issuers[want.Issuer]) && r.fallback(snapshot, want) == nil {
			continue
		}
		if err := r.enqueue(ctx, snapshot, want, latest[name], due[name]); err != nil {
			faults = append(faults, fmt.Errorf("queue %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// enqueue queues a job unless the latest one, which has no id where there is none, speaks against it.
func (r *Reconciler) enqueue(ctx context.Context, snapshot *gitstore.Snapshot, want *manifest.Certificate, latest hub.Job, reason string) error {
	switch {
	case latest.ID == "":
	case latest.State.Active():
		return nil
	case latest.State == apiv1.JobDone && r.cfg.Now().Before(latest.UpdatedAt.Add(minGap)):
		return nil
	case latest.State == apiv1.JobDone && reason == reasonAge && r.cfg.Now().Before(latest.UpdatedAt.Add(restOf(snapshot.Issued[want.Name]))):
		// Some CA hands out what is left of an older certificate's time: another order would get no more.
		r.complainOf(ctx, want.Name, hub.AlertWarning, "the certificate "+want.Name+" was due for renewal as soon as it was issued: look at the lifetime that the CA gives, or order from another one")
		return nil
	case latest.State == apiv1.JobFailed, latest.State == apiv1.JobCancelled:
		if latest.State == apiv1.JobFailed && r.failedPauseOver(snapshot.Issued[want.Name], latest.UpdatedAt) {
			break
		}
		stalled, err := r.cfg.Data.Setting(ctx, stalledSetting+want.Name)
		if err != nil || stalled == wishOf(snapshot, want) {
			return err
		}
	}
	_, _, err := r.cfg.Data.EnqueueJob(ctx, hub.Job{Certificate: want.Name, Issuer: want.Issuer, Actor: hubActor, Reason: reason})
	failpoint.Hit("hub.issue.queued")
	return err
}

// restOf is how long a certificate that was just issued is left alone, whatever its dates say.
func restOf(have *manifest.IssuedCertificate) time.Duration {
	if have == nil {
		return 0
	}
	return min(have.NotAfter.Sub(have.NotBefore)/8, day)
}

// failedPauseOver says whether what serves is tried again although the order that ended at a time failed for good: the
// fault may have been the CA's, and nobody may have looked. It waits for a day, less where the certificate ends soon.
func (r *Reconciler) failedPauseOver(have *manifest.IssuedCertificate, ended time.Time) bool {
	if have == nil {
		return false
	}
	pause := day
	if left := have.NotAfter.Sub(r.cfg.Now()); left > 0 {
		pause = min(max(left/10, time.Hour), day)
	}
	return !r.cfg.Now().Before(ended.Add(pause))
}

// fallback is the issuer that can be asked in the place of the wished one; nil where there is none.
func (r *Reconciler) fallback(snapshot *gitstore.Snapshot, want *manifest.Certificate) *manifest.Issuer {
	i := snapshot.Issuers[want.FallbackIssuer]
	if i == nil || want.FallbackIssuer == want.Issuer || r.isStalled(i) {
		return nil
	}
	return i
}

// wishOf identifies all that an order depends on: a job that failed for good is worth another try once it changes.
func wishOf(snapshot *gitstore.Snapshot, want *manifest.Certificate) string {
	order := *want
	order.Renewal, order.Deployments = manifest.Renewal{}, nil
	return digest(&order) + issuerOf(snapshot.Issuers[want.Issuer])
}

func issuerOf(i *manifest.Issuer) string {
	if i == nil {
		return ""
	}
	return digest(i)
}

func digest(document interface{ Encode() ([]byte, error) }) string {
	data, err := document.Encode()
	if err != nil {
		// It was decoded from main, so it encodes; if not, it is no reason to stand still.
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// stalled is what is known of an issuer whose account is unusable.
type stalled struct {
	// wish identifies its intent at that time.
	wish string
	at   time.Time
}

// stall stops the orders of an issuer until its intent changes, or a day has passed: what was wrong may lie at the CA.
func (r *Reconciler) stall(i *manifest.Issuer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wish := issuerOf(i); !r.stalledNow(i.Name, wish) {
		r.stalled[i.Name] = stalled{wish, r.cfg.Now()}
	}
}

// stalledNow expects mu to be held.
func (r *Reconciler) stalledNow(name, wish string) bool {
	was, ok := r.stalled[name]
	return ok && was.wish == wish && r.cfg.Now().Before(was.at.Add(day))
}

// turnAway has a certificate ordered from its fallback until the wished issuer may be asked again.
func (r *Reconciler) turnAway(want *manifest.Certificate, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnedAway[want.Name+" "+want.Issuer] = until
}

func (r *Reconciler) isTurnedAway(want *manifest.Certificate) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := want.Name + " " + want.Issuer
	until, ok := r.turnedAway[key]
	if ok && !r.cfg.Now().Before(until) {
		delete(r.turnedAway, key)
		return false
	}
	return ok
}

func (r *Reconciler) isStalled(i *manifest.Issuer) bool {
	if i == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stalledNow(i.Name, issuerOf(i))
}

// arm lets the orders of an issuer go on.
func (r *Reconciler) arm(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.stalled, name)
}

// servers reads all servers.
func (r *Reconciler) servers(ctx context.Context) ([]hub.Server, error) {
	var all []hub.Server
	after := ""
	for {
		page, err := r.cfg.Data.Servers(ctx, after, pageSize)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < pageSize {
			return all, nil
		}
		after = page[len(page)-1].Name
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
