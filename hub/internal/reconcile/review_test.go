package reconcile_test

import (
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// proposal is the one that waits.
func (w *world) proposal() *gitstore.Proposal {
	w.Helper()
	p, err := w.store.Proposal("shop", "")
	w.must(err)
	return p
}

func (w *world) merge() {
	w.Helper()
	_, err := w.store.MergeProposal(w.Context(), w.proposal(), gitstore.Change{Subject: "merge shop", Actor: gitstore.Actor{Name: "ada", Email: "ada@example.com"}})
	w.must(err)
}

// TestReviewRequired keeps an issue away from servers until it is merged, orders it once only, and then rolls it out in
// waves.
func TestReviewRequired(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 5, nil)
	w.cfg.Review = manifest.ReviewRequired
	old := w.issued("shop").LeafSHA256
	w.ask(hub.Job{Certificate: "shop", Actor: "ada", Reason: "new key"})
	w.once()
	w.wantJob("shop", apiv1.JobDone, "")
	p := w.proposal()
	if w.issued("shop").LeafSHA256 != old || len(w.on(old)) != 5 || p.Commit.Author.Name != "ada" {
		t.Fatalf("main holds %s before the review, proposed by %s", w.issued("shop").LeafSHA256, p.Commit.Author.Name)
	}
	if a := w.alerts(); len(a) != 1 || a[0].Kind != hub.AlertProposalWaiting || a[0].Level != hub.AlertInfo || a[0].Count != 1 {
		t.Errorf("got alerts %+v", a)
	}
	orders := len(w.ca.Orders())
	w.clock.Advance(time.Hour)
	w.once()
	if n := len(w.ca.Orders()); n != orders {
		t.Errorf("what waits for review was ordered again: %d orders after %d", n, orders)
	}
	w.merge()
	w.heartbeats()
	w.once()
	if got := w.on(p.Issued.LeafSHA256); len(got) != 1 || w.rollout() == nil {
		t.Fatalf("after the merge %v have it, rollout %+v", got, w.rollout())
	}
	if ro := w.rollout(); ro.State != manifest.RolloutRunning || !ro.StartedAt.Equal(w.clock.Now()) || ro.FromLeafSHA256 != old {
		t.Errorf("the time that it waited counts against its first wave: %+v", ro)
	}
	w.report(w.on(p.Issued.LeafSHA256)[0], apiv1.DeploymentDeployed)
	w.once()
	if len(w.on(p.Issued.LeafSHA256)) != 5 {
		t.Errorf("only %v have it", w.on(p.Issued.LeafSHA256))
	}
}

// TestFirstIssueIsReviewed proposes a first issue like any other.
func TestFirstIssueIsReviewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.enrol("web-1", hub.ServerApproved, nil)
	w.want("shop", func(c *manifest.Certificate) { c.Review = manifest.ReviewRequired; at("web-1")(c) })
	w.once()
	first := w.proposal()
	if w.snapshot().Issued["shop"] != nil {
		t.Fatal("it is in use without a review")
	}
	// It is due for renewal before anybody looked: the older proposal makes way.
	w.clock.Advance(80 * day)
	w.once()
	second := w.proposal()
	if second.Serial == first.Serial {
		t.Error("an old proposal was not renewed")
	}
	w.merge()
	w.once()
	w.open("web-1", "shop")
	if a := w.alerts(); len(a) != 0 {
		t.Errorf("got alerts %+v after the merge", a)
	}
	// The certificate goes away while a proposal is open.
	w.ask(hub.Job{Certificate: "shop", Actor: "ada"})
	w.once()
	_ = w.proposal()
	w.clock.Advance(91 * day)
	w.want("shop", func(c *manifest.Certificate) { c.Review = manifest.ReviewRequired; c.Renewal.Paused = true })
	w.once()
	if all, err := w.store.Proposals(); err != nil || len(all) != 0 {
		t.Errorf("an expired proposal is still open: %v, %v", all, err)
	}
}

// TestReviewAlertRises raises the level as the end of what is in use comes nearer.
func TestReviewAlertRises(t *testing.T) {
	t.Parallel()
	w := newFleet(t, 1, nil)
	w.cfg.Review = manifest.ReviewRequired
	have := w.issued("shop")
	w.clock.Advance(have.NotAfter.Sub(w.clock.Now()) - 25*day)
	w.once()
	_ = w.proposal()
	for _, tc := range []struct {
		left  time.Duration
		level hub.AlertLevel
	}{{25 * day, hub.AlertInfo}, {20 * day, hub.AlertWarning}, {10 * day, hub.AlertCritical}} {
		w.clock.Advance(have.NotAfter.Sub(w.clock.Now()) - tc.left)
		w.once()
		if a := w.alerts(); len(a) != 1 || a[0].Level != tc.level {
			t.Errorf("%s before the end: got %+v, want %s", tc.left, a, tc.level)
		}
	}
}
