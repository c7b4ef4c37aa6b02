package httpapi_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/hub/internal/intent"
)

// rollouts stands in for the reconciler.
type rollouts struct{ all []apiv1.Rollout }

func (r *rollouts) Rollouts(context.Context) ([]apiv1.Rollout, error) { return r.all, nil }

func (i *intentLog) PauseRollout(_ context.Context, actor hub.Principal, _, name, reason string) error {
	return i.note("pause-rollout", actor.Name, name, reason)
}

func (i *intentLog) ResumeRollout(_ context.Context, actor hub.Principal, _, name string) error {
	return i.note("resume-rollout", actor.Name, name)
}

func (i *intentLog) PromoteRollout(_ context.Context, actor hub.Principal, _, name string, all bool) error {
	how := "next"
	if all {
		how = "all"
	}
	return i.note("promote-rollout", actor.Name, name, how)
}

func (i *intentLog) AbortRollout(_ context.Context, actor hub.Principal, _, name, reason string) error {
	return i.note("abort-rollout", actor.Name, name, reason)
}

func (i *intentLog) ConsentTo(p *gitstore.Proposal) (intent.Consent, error) {
	return intent.Consent{People: []string{p.Commit.Author.Name}, Missing: 1}, nil
}

func (i *intentLog) ApproveProposal(_ context.Context, actor hub.Principal, _, name, serial, reason string) (bool, error) {
	return true, i.note("approve-proposal", actor.Name, name, serial, reason)
}

func (i *intentLog) RejectProposal(_ context.Context, actor hub.Principal, _, name, serial, reason string) error {
	return i.note("reject-proposal", actor.Name, name, serial, reason)
}

func (i *intentLog) RollbackFleet(_ context.Context, actor hub.Principal, _ string, req apiv1.FleetRollbackRequest) (apiv1.FleetRollback, error) {
	return apiv1.FleetRollback{Changed: []apiv1.FleetChange{}, Skipped: []apiv1.FleetChange{}}, i.note("rollback-fleet", actor.Name, req.Commit, req.Reason)
}

func (i *intentLog) ResumeFleet(_ context.Context, actor hub.Principal, _ string) (int, error) {
	return 2, i.note("resume-fleet", actor.Name)
}

func (i *intentLog) HoldServer(_ context.Context, actor hub.Principal, _, name, reason string) error {
	return i.note("hold-server", actor.Name, name, reason)
}

// TestRolloutActs passes acts on with who asked and why.
func TestRolloutActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("otto", apiv1.RoleOperator)
	for _, tc := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/rollouts/shop/pause", `{"reason":"why"}`, http.StatusNoContent, "pause-rollout otto shop why"},
		{"/rollouts/shop/resume", "", http.StatusNoContent, "resume-rollout otto shop"},
		{"/rollouts/shop/promote", "", http.StatusNoContent, "promote-rollout otto shop next"},
		{"/rollouts/shop/promote", `{"all":true}`, http.StatusNoContent, "promote-rollout otto shop all"},
		{"/rollouts/shop/abort", "", http.StatusNoContent, "abort-rollout otto shop"},
		{"/proposals/shop/approve", `{"serial":"04ab","reason":"looks good"}`, http.StatusOK, "approve-proposal otto shop 04ab looks good"},
		{"/proposals/shop/reject", `{"reason":"no"}`, http.StatusNoContent, "reject-proposal otto shop  no"},
		{"/fleet/rollback", `{"commit":"1234567","reason":"bad day"}`, http.StatusOK, "rollback-fleet otto 1234567 bad day"},
		{"/fleet/resume", "", http.StatusOK, "resume-fleet otto"},
	} {
		var body any
		if tc.body != "" {
			body = tc.body
		}
		r := w.send(http.MethodPost, "/api/v1"+tc.path, token, body)
		if got := strings.TrimSpace(w.intent.last()); r.status != tc.status || got != tc.want {
			t.Errorf("%s: got %d %s, intent %q, want %q", tc.path, r.status, r.body, got, tc.want)
		}
	}
	for _, path := range []string{"/rollouts/UPPER/pause", "/proposals/..%2F/approve"} {
		if r := w.send(http.MethodPost, "/api/v1"+path, token, nil); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: got %d", path, r.status)
		}
	}
}

// TestRolloutsAreListed shows rollouts by name.
func TestRolloutsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("vera", apiv1.RoleViewer)
	w.rollouts.all = []apiv1.Rollout{
		{Certificate: "a", State: "running", Wave: 1, StartedAt: start, WaveStartedAt: start, Waves: []apiv1.RolloutWave{
			{Number: 1, Servers: []apiv1.RolloutServer{{Server: "web-1", State: "failed", Detail: "bad\x1b[31m"}}},
		}},
		{Certificate: "b", State: "paused", Wave: 2, StartedAt: start, WaveStartedAt: start, Waves: []apiv1.RolloutWave{}},
	}
	l := decodeAs[apiv1.List[apiv1.Rollout]](t, w.get("/api/v1/rollouts?limit=1", token), http.StatusOK)
	if len(l.Items) != 1 || l.Items[0].Certificate != "a" || l.Next != "a" || strings.Contains(l.Items[0].Waves[0].Servers[0].Detail, "\x1b") {
		t.Errorf("got %+v", l)
	}
	if one := decodeAs[apiv1.Rollout](t, w.get("/api/v1/rollouts/b", token), http.StatusOK); one.State != "paused" {
		t.Errorf("got %+v", one)
	}
	if r := w.get("/api/v1/rollouts/c", token); r.status != http.StatusNotFound {
		t.Errorf("got %d", r.status)
	}
}

// TestProposalsAreListed shows what waits for review, and for which servers it is.
func TestProposalsAreListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("vera", apiv1.RoleViewer)
	ca := hubtest.NewCA(t, w.clock)
	_, err := w.store.Propose(t.Context(), gitstore.Issue{
		Certificate: "shop", Bundle: hubtest.Bundle(t, ca, "shop.test"),
		Issued: manifest.IssuedCertificate{Issuer: "private-ca", KeyType: "ecdsa-p256"},
		Change: gitstore.Change{Body: "its time came", Actor: gitstore.Actor{Name: "otto", Email: "otto@hub.example.com"}},
	})
	w.must(err)
	w.fleet.addServer("web-1", map[string]string{"role": "edge"})
	w.fleet.edit(func(f *fleet) {
		f.snap.Certificates["shop"] = &manifest.Certificate{Name: "shop", Deployments: []manifest.Placement{{Selector: "role=edge", Deployer: "nginx", Target: "web"}}}
	})
	l := decodeAs[apiv1.List[apiv1.Proposal]](t, w.get("/api/v1/proposals", token), http.StatusOK)
	if len(l.Items) != 1 {
		t.Fatalf("got %+v", l)
	}
	p := l.Items[0]
	if p.Certificate != "shop" || p.AskedBy != "otto" || p.Reason != "its time came" || p.Missing != 1 || !slices.Equal(p.Servers, []string{"web-1"}) ||
		p.InUse != nil || p.Branch != "proposals/shop/"+p.Serial {
		t.Errorf("got %+v", p)
	}
	if one := decodeAs[apiv1.Proposal](t, w.get("/api/v1/proposals/shop", token), http.StatusOK); one.Serial != p.Serial {
		t.Errorf("got %+v", one)
	}
	if r := w.get("/api/v1/proposals/other", token); r.status != http.StatusNotFound {
		t.Errorf("got %d", r.status)
	}
}
