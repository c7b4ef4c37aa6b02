package intent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
)

var bob = hub.Principal{Kind: hub.Person, Name: "bob", Role: apiv1.RoleOperator}

// put issues a certificate and writes it to main, with its wish.
func (f *fixture) put(name string, change func(*manifest.Certificate)) *manifest.IssuedCertificate {
	f.Helper()
	wish := &manifest.Certificate{Name: name, Names: []string{name + ".test"}, Issuer: "private-ca"}
	if change != nil {
		change(wish)
	}
	hubtest.Put(f, f.store, manifest.CertificatePath(name), wish)
	_, err := f.store.PutIssued(f.Context(), gitstore.Issue{
		Certificate: name, Bundle: hubtest.Bundle(f, f.ca, name+".test"), Issued: manifest.IssuedCertificate{Issuer: "private-ca", KeyType: "ecdsa-p256"},
	})
	f.must(err)
	return f.snapshot().Issued[name]
}

// underWay puts a rollout from the first to the second of two issues of "shop" on main.
func underWay(f *fixture) (old, now *manifest.IssuedCertificate) {
	f.Helper()
	old = f.put("shop", nil)
	from := f.snapshot().Commit
	f.clock.Advance(time.Hour)
	now = f.put("shop", nil)
	at := f.clock.Now().UTC().Truncate(time.Second)
	hubtest.Put(f, f.store, manifest.RolloutPath("shop"), &manifest.Rollout{
		Name: "shop", From: from, FromLeafSHA256: old.LeafSHA256, LeafSHA256: now.LeafSHA256, Waves: manifest.DefaultWaves(), Wave: 1,
		State: manifest.RolloutRunning, StartedAt: at, WaveStartedAt: at,
	})
	return old, now
}

func (f *fixture) class(err, class error, text string) {
	f.Helper()
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) {
		f.Errorf("got %v, want %v with %q", err, class, text)
	}
}

// TestRolloutActs pauses, resumes and promotes a rollout; each is a commit by the person.
func TestRolloutActs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	underWay(f)
	ctx := t.Context()
	ro := func() *manifest.Rollout { return f.snapshot().Rollouts["shop"] }

	f.must(f.service.PauseRollout(ctx, ada, "r-1", "shop", "lunch"))
	if r := ro(); r.State != manifest.RolloutPaused || r.Reason != "paused by ada: lunch" {
		t.Errorf("got %+v", r)
	}
	if head := f.head(); head.Author.Name != "ada" || !strings.HasPrefix(head.Message, "pause rollout of shop in wave 1\n") || !strings.Contains(head.Message, "Request-Id: r-1") {
		t.Errorf("got %+v", head)
	}
	f.class(f.service.PauseRollout(ctx, ada, "", "shop", ""), hub.ErrConflict, "paused already")
	f.clock.Advance(time.Hour)
	f.must(f.service.ResumeRollout(ctx, ada, "", "shop"))
	if r := ro(); r.State != manifest.RolloutRunning || r.Reason != "" || !r.WaveStartedAt.Equal(f.clock.Now()) {
		t.Errorf("got %+v", r)
	}
	f.class(f.service.ResumeRollout(ctx, ada, "", "shop"), hub.ErrConflict, "goes on already")
	f.must(f.service.PromoteRollout(ctx, ada, "", "shop", false))
	if r := ro(); r.Wave != 2 {
		t.Errorf("got %+v", r)
	}
	f.must(f.service.PromoteRollout(ctx, ada, "", "shop", true))
	if r := ro(); r != nil {
		t.Errorf("got %+v", r)
	}
	f.class(f.service.PauseRollout(ctx, ada, "", "shop", ""), hub.ErrNotFound, "no rollout")
	f.class(f.service.PauseRollout(ctx, ada, "", "nobody", ""), hub.ErrNotFound, "no such certificate")
	f.class(f.service.PauseRollout(ctx, ada, "", "shop", "two\nlines"), hub.ErrInvalid, "")
}

// TestAbortRollout brings back what servers had, pauses the renewal and ends the rollout, in one commit.
func TestAbortRollout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old, _ := underWay(f)
	f.must(f.service.AbortRollout(t.Context(), ada, "", "shop", "broken"))
	snap := f.snapshot()
	if snap.Issued["shop"].LeafSHA256 != old.LeafSHA256 || snap.Rollouts["shop"] != nil ||
		snap.Certificates["shop"].Renewal.PausedReason != "rollout aborted by ada: broken" {
		t.Errorf("got %+v, %+v", snap.Issued["shop"], snap.Certificates["shop"].Renewal)
	}

	// What there is to go back to has ended meanwhile.
	f = newFixture(t)
	old, now := underWay(f)
	f.clock.Advance(old.NotAfter.Sub(f.clock.Now()) + time.Second)
	f.class(f.service.AbortRollout(t.Context(), ada, "", "shop", ""), hub.ErrConflict, "expired")
	if f.snapshot().Issued["shop"].LeafSHA256 != now.LeafSHA256 {
		t.Error("main went back to an expired issue")
	}
}

// TestRollbackEndsRollout: going back by hand ends a rollout too.
func TestRollbackEndsRollout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old, _ := underWay(f)
	f.must(f.service.RollbackCertificate(t.Context(), ada, "", "shop", "", ""))
	if snap := f.snapshot(); snap.Rollouts["shop"] != nil || snap.Issued["shop"].LeafSHA256 != old.LeafSHA256 {
		t.Errorf("got %+v", snap.Rollouts["shop"])
	}
}

// TestFleetRollback takes all back in one commit, refuses what cannot, and lets all go on again.
func TestFleetRollback(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ctx := t.Context()
	oldShop, oldMail := f.put("shop", nil), f.put("mail", nil)
	commit := f.snapshot().Commit
	f.clock.Advance(time.Hour)
	newShop := f.put("shop", nil)
	f.put("mail", nil)
	f.put("young", nil)

	req := apiv1.FleetRollbackRequest{Commit: commit[:8], Reason: "bad CA"}
	_, err := f.service.RollbackFleet(ctx, ada, "", req)
	f.class(err, hub.ErrConflict, "young: not issued yet")
	dry := req
	dry.DryRun = true
	out, err := f.service.RollbackFleet(ctx, ada, "", dry)
	f.must(err)
	if len(out.Changed) != 2 || len(out.Skipped) != 1 || f.snapshot().Issued["shop"].LeafSHA256 != newShop.LeafSHA256 {
		t.Errorf("got %+v", out)
	}
	req.Skip = true
	out, err = f.service.RollbackFleet(ctx, ada, "r-9", req)
	f.must(err)
	snap := f.snapshot()
	if len(out.Changed) != 2 || snap.Issued["shop"].LeafSHA256 != oldShop.LeafSHA256 || snap.Issued["mail"].LeafSHA256 != oldMail.LeafSHA256 ||
		!snap.Certificates["shop"].Renewal.Paused || snap.Certificates["young"].Renewal.Paused {
		t.Errorf("got %+v", out)
	}
	if head := f.head(); !strings.HasPrefix(head.Message, "roll back fleet to "+commit[:7]+": 2 certificates\n\nbad CA") {
		t.Errorf("got %q", head.Message)
	}
	_, err = f.service.RollbackFleet(ctx, ada, "", req)
	f.class(err, hub.ErrConflict, "nothing to roll back")
	n, err := f.service.ResumeFleet(ctx, ada, "")
	f.must(err)
	if n != 2 || f.snapshot().Certificates["shop"].Renewal.Paused {
		t.Errorf("resumed %d", n)
	}
	_, err = f.service.ResumeFleet(ctx, ada, "")
	f.class(err, hub.ErrConflict, "no certificate is paused")
	_, err = f.service.RollbackFleet(ctx, ada, "", apiv1.FleetRollbackRequest{Commit: "0000000"})
	f.class(err, hub.ErrNotFound, "no such commit")
	f.clock.Advance(oldShop.NotAfter.Sub(f.clock.Now()))
	_, err = f.service.RollbackFleet(ctx, ada, "", apiv1.FleetRollbackRequest{Commit: commit})
	if err == nil {
		t.Error("went back to what expired")
	}
}

func (f *fixture) propose(actor, review string) *gitstore.Proposal {
	f.Helper()
	change := gitstore.Change{Trailers: []gitstore.Trailer{{Key: gitstore.TrailerReview, Value: review}}}
	if actor != "" {
		change.Actor = gitstore.Actor{Name: actor, Email: actor + "@hub.example.com"}
	}
	_, err := f.store.Propose(f.Context(), gitstore.Issue{
		Certificate: "shop", Bundle: hubtest.Bundle(f, f.ca, "shop.test"), Change: change,
		Issued: manifest.IssuedCertificate{Issuer: "private-ca", KeyType: "ecdsa-p256"},
	})
	f.must(err)
	p, err := f.store.Proposal("shop", "")
	f.must(err)
	return p
}

// TestReview wants as many different people as the rule says, whatever the certificate says by then.
func TestReview(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		asked, review string
		// approvals are who approves in turn: a lower-case name may, one with an exclamation mark is refused.
		approvals []string
	}{
		"one person":                      {"", manifest.ReviewRequired, []string{"ada"}},
		"whoever asked may agree":         {"ada", manifest.ReviewRequired, []string{"ada"}},
		"two people for the hub":          {"", manifest.ReviewTwoPerson, []string{"ada", "ada!", "bob"}},
		"one more than the one who asked": {"ada", manifest.ReviewTwoPerson, []string{"ada!", "bob"}},
		"made under two-person, loosened": {"", manifest.ReviewTwoPerson + " ", []string{"ada", "bob"}},
		"the certificate asks for no one": {"", manifest.ReviewNone, []string{"bob"}},
	} {
		f := newFixture(t)
		f.put("shop", func(c *manifest.Certificate) {
			if !strings.HasSuffix(tc.review, " ") {
				c.Review = tc.review
			}
		})
		p := f.propose(tc.asked, strings.TrimSpace(tc.review))
		people := map[string]hub.Principal{"ada": ada, "bob": bob}
		for i, who := range tc.approvals {
			person, refused := strings.CutSuffix(who, "!")
			merged, err := f.service.ApproveProposal(t.Context(), people[person], "", "shop", p.Serial, "fine")
			if last := i == len(tc.approvals)-1; (err != nil) != refused || merged != last {
				t.Errorf("%s: %s approves: merged %v, %v", name, who, merged, err)
			}
		}
		if f.snapshot().Issued["shop"].LeafSHA256 != p.Issued.LeafSHA256 {
			t.Errorf("%s: it is not in use", name)
		}
		if head := f.head(); len(head.Parents) != 2 || !strings.Contains(head.Message, "agreed by") {
			t.Errorf("%s: main says %q", name, head.Message)
		}
		_, err := f.service.ApproveProposal(t.Context(), bob, "", "shop", "", "")
		f.class(err, hub.ErrNotFound, "no such proposal")
	}
}

// TestReject ends a proposal and pauses the renewal.
func TestReject(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	have := f.put("shop", nil)
	p := f.propose("", manifest.ReviewRequired)
	f.class(f.service.RejectProposal(t.Context(), ada, "", "shop", "beef", ""), hub.ErrNotFound, "no such proposal")
	f.must(f.service.RejectProposal(t.Context(), ada, "", "shop", p.Serial, "wrong names"))
	snap := f.snapshot()
	if snap.Issued["shop"].LeafSHA256 != have.LeafSHA256 || snap.Certificates["shop"].Renewal.PausedReason != "proposal rejected by ada: wrong names" {
		t.Errorf("got %+v", snap.Certificates["shop"].Renewal)
	}
	if all, err := f.store.Proposals(); err != nil || len(all) != 0 {
		t.Errorf("got %v, %v", all, err)
	}
	if head := f.head(); head.Author.Name != "ada" || !strings.HasPrefix(head.Message, "reject shop: serial ") {
		t.Errorf("got %q", head.Message)
	}
}

// TestMergeByPush lets the merge of a proposal's branch count as agreement, and no more than that.
func TestMergeByPush(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put("shop", nil)
	for _, tc := range []struct {
		review, asked string
		remote        bool
		want          string
	}{
		{manifest.ReviewRequired, "", false, ""},
		{manifest.ReviewRequired, "", true, ""},
		{manifest.ReviewTwoPerson, "bob", false, ""},
		{manifest.ReviewTwoPerson, "", false, "two people must agree to this issue, and 1 more"},
		{manifest.ReviewTwoPerson, "bob", true, "two people must agree to this issue, and 1 more"},
	} {
		f.clock.Advance(time.Second)
		p := f.propose(tc.asked, tc.review)
		in, err := f.store.Repo().ReadIncoming(strings.NewReader(""), gitrepo.PushLimits)
		f.must(err)
		var out intent.Pushed
		if tc.remote {
			out, err = f.service.Take(t.Context(), "forge", in, p.Tip)
		} else {
			out, err = f.service.Push(t.Context(), ada, in, p.Tip)
		}
		f.must(err)
		if out.Applied != (tc.want == "") || !strings.Contains(strings.Join(out.Lines, "\n"), tc.want) {
			t.Errorf("%s asked by %q, remote %v: got %+v", tc.review, tc.asked, tc.remote, out)
		}
	}
}
