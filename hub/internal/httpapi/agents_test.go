package httpapi_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

const commitA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// joinToken makes a join token through the API.
func (w *world) joinToken(operator string, req apiv1.JoinTokenRequest) apiv1.JoinToken {
	w.tb.Helper()
	return decode[apiv1.JoinToken](w.tb, w.send(http.MethodPost, "/api/v1/join-tokens", operator, req))
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	changed := make(chan struct{}, 10)
	w := newWorld(t, func(c *httpapi.Config) { c.Changed = func() { changed <- struct{}{} } })
	operator := w.person("otto", apiv1.RoleOperator)
	labels := map[string]string{"role": "edge"}
	token := w.joinToken(operator, apiv1.JoinTokenRequest{Server: "web-1", Labels: labels})
	if !strings.HasPrefix(token.Token, "cfj_") || token.RootFingerprint != rootPrint || !token.ExpiresAt.Equal(start.Add(30*time.Minute)) ||
		token.Command != "certferry-agent enroll --hub http://hub.example.com --name web-1 --root-fingerprint "+rootPrint {
		t.Errorf("token %+v", token)
	}
	if row := w.audit(); row.Action != "create-join-token" || row.Object != "web-1" || row.Actor != "otto" || row.Outcome != hub.OutcomeOK {
		t.Errorf("audit row %+v", row)
	}
	key := publicKey(t)
	// A slip of the pen in the fingerprint costs no token.
	if r := w.send(http.MethodPost, "/api/v1/servers/register", "", apiv1.RegisterRequest{Token: token.Token, Name: "web-1", PublicKey: key, RootFingerprint: strings.Repeat("0", 40)}); r.status != http.StatusUnprocessableEntity {
		t.Errorf("another root key: %d %s", r.status, r.body)
	}
	req := apiv1.RegisterRequest{Token: token.Token, Name: "web-1", PublicKey: key, RootFingerprint: rootPrint, Facts: apiv1.Facts{Hostname: "web\x1b[31m", Addresses: []string{"10.0.0.1\n"}}}
	reg := decode[apiv1.Registration](t, w.send(http.MethodPost, "/api/v1/servers/register", "", req))
	if reg.State != "pending" || reg.RepoID != "repo-1" || reg.GitURL != "http://hub.example.com/git/certferry.git" || reg.RootKey != "root key" ||
		!strings.HasPrefix(reg.Credential, "cfa_") || len(reg.Fingerprint) != 40 {
		t.Errorf("registration %+v", reg)
	}
	if row := w.audit(); row.Action != "register-server" || row.Actor != "agent:web-1" || row.Object != "web-1" {
		t.Errorf("audit row %+v", row)
	}
	s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", operator))
	if s.State != "pending" || s.Labels["role"] != "edge" || s.Facts.Hostname != "web [31m" || s.Facts.Addresses[0] != "10.0.0.1 " || s.Online || s.LastSeenAt != nil {
		t.Errorf("server %+v", s)
	}

	if r := w.send(http.MethodPost, "/api/v1/servers/web-1/approve", operator, apiv1.ApproveRequest{Fingerprint: rootPrint}); r.status != http.StatusConflict {
		t.Errorf("wrong fingerprint: %d %s", r.status, r.body)
	}
	spoken := strings.ToLower(reg.Fingerprint[:20]) + " " + reg.Fingerprint[20:]
	approved := decode[apiv1.Server](t, w.send(http.MethodPost, "/api/v1/servers/web-1/approve", operator, apiv1.ApproveRequest{Fingerprint: spoken}))
	if approved.State != "approved" || w.audit().Action != "approve-server" {
		t.Errorf("approved %+v, row %+v", approved, w.audit())
	}
	before := w.audit().Seq
	w.send(http.MethodPost, "/api/v1/servers/web-1/approve", operator, apiv1.ApproveRequest{Fingerprint: reg.Fingerprint})
	if w.audit().Seq != before {
		t.Error("approving twice is a change")
	}
	if len(changed) != 2 {
		t.Errorf("reconciliation was asked for %d times, want after registration and approval", len(changed))
	}
	if strings.Contains(w.log.String(), token.Token) || strings.Contains(w.log.String(), reg.Credential) {
		t.Error("the log holds a token")
	}
}

func TestPreApprovedAndEnrolledAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	var credentials []string
	for range 2 {
		token := w.joinToken(operator, apiv1.JoinTokenRequest{Server: "web-1", PreApproved: true})
		reg := decode[apiv1.Registration](t, w.send(http.MethodPost, "/api/v1/servers/register", "",
			apiv1.RegisterRequest{Token: token.Token, Name: "web-1", PublicKey: publicKey(t)}))
		if reg.State != "approved" {
			t.Errorf("state %s", reg.State)
		}
		credentials = append(credentials, reg.Credential)
	}
	beat := apiv1.HeartbeatRequest{Status: "ok"}
	if r := w.send(http.MethodPost, "/api/v1/servers/heartbeat", credentials[0], beat); r.status != http.StatusUnauthorized {
		t.Errorf("the first credential lives on: %d", r.status)
	}
	if r := w.send(http.MethodPost, "/api/v1/servers/heartbeat", credentials[1], beat); r.status != http.StatusOK {
		t.Errorf("the second credential: %d %s", r.status, r.body)
	}
}

func TestJoinTokensThatDoNotWork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	key := publicKey(t)
	register := func(token, name string) reply {
		return w.send(http.MethodPost, "/api/v1/servers/register", "", apiv1.RegisterRequest{Token: token, Name: name, PublicKey: key})
	}
	used := w.joinToken(operator, apiv1.JoinTokenRequest{Server: "web-1"})
	if r := register(used.Token, "web-1"); r.status != http.StatusCreated {
		t.Fatalf("%d %s", r.status, r.body)
	}
	old := w.joinToken(operator, apiv1.JoinTokenRequest{Server: "web-3"})
	w.pass(31 * time.Minute)
	other := w.joinToken(operator, apiv1.JoinTokenRequest{Server: "web-2"})
	for _, tc := range []struct{ token, name, want string }{
		{"cfj_canary", "web-1", "is not known"},
		{used.Token, "web-1", "was used already"},
		{old.Token, "web-3", "has expired"},
		{other.Token, "web-1", "another name"},
	} {
		before := w.audit().Seq
		r := register(tc.token, tc.name)
		p := r.problem(t)
		if r.status != http.StatusUnauthorized || !strings.Contains(p.Detail, tc.want) || strings.Contains(string(r.body), tc.token) {
			t.Errorf("%s: %d %s", tc.want, r.status, r.body)
		}
		if row := w.audit(); row.Seq != before+1 || row.Outcome != hub.OutcomeDenied || row.Action != "register-server" {
			t.Errorf("%s: audit row %+v", tc.want, row)
		}
	}
	// What fails before the row is written leaves the token usable.
	w.intent.fail(&hub.Error{Class: hub.ErrConflict, Message: "main is busy"})
	if r := register(other.Token, "web-2"); r.status != http.StatusConflict {
		t.Errorf("%d %s", r.status, r.body)
	}
	w.intent.fail(nil)
	if r := register(other.Token, "web-2"); r.status != http.StatusCreated {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	viewer := w.person("vera", apiv1.RoleViewer)
	agent := w.agent("web-1", hub.ServerApproved)
	reply := decode[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent,
		apiv1.HeartbeatRequest{Counter: 1, Status: "ok", Facts: &apiv1.Facts{Hostname: "web-1.example.com"}}))
	if want := (apiv1.HeartbeatReply{State: "approved", IntervalSeconds: 60}); !reflect.DeepEqual(reply, want) {
		t.Errorf("before the first commit: %+v", reply)
	}
	w.fleet.edit(func(f *fleet) {
		f.tips["web-1"] = &gitstore.Tip{Commit: commitA, Manifest: &manifest.Manifest{Generation: 4}}
	})
	reply = decode[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent,
		apiv1.HeartbeatRequest{Counter: 2, Commit: commitA, Generation: 3, Held: true, Status: "degraded", Message: "one\ntwo"}))
	if reply.Commit != commitA || reply.Generation != 4 {
		t.Errorf("reply %+v", reply)
	}
	s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", viewer))
	if !s.Online || !s.Held || s.Status != "degraded" || s.Message != "one two" || s.Commit != commitA || s.Generation != 3 ||
		s.WantCommit != commitA || s.WantGeneration != 4 || s.Facts.Hostname != "web-1.example.com" || !s.LastSeenAt.Equal(w.clock()) {
		t.Errorf("server %+v", s)
	}
	w.pass(3 * time.Minute)
	if s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", viewer)); !s.Online {
		t.Error("offline after three intervals")
	}
	w.pass(time.Second)
	if s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", viewer)); s.Online {
		t.Error("online after more than three intervals")
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent("web-1", hub.ServerApproved)
	ctx := t.Context()
	report := apiv1.ReportRequest{
		ID: "r-1", At: start.Add(-time.Minute), Commit: commitA, Generation: 2, Cause: "poll",
		Deployments: []apiv1.DeploymentReport{{
			Certificate: "example.com", Target: "site", State: apiv1.DeploymentFailed, Phase: apiv1.PhaseTest, LeafSHA256: oldLeaf,
			Detail: "nginx: \x1b[31mfailed\x1b[0m\n\tat line 3\u2028", DurationMillis: 12,
		}},
	}
	for range 2 {
		if r := w.send(http.MethodPost, "/api/v1/certificates/sync", agent, report); r.status != http.StatusNoContent {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	seen, err := w.db.ServerObservations(ctx, "web-1")
	w.must(err)
	want := hub.Observation{
		Server: "web-1", Certificate: "example.com", Target: "site", Commit: commitA, Generation: 2, State: apiv1.DeploymentFailed,
		Phase: apiv1.PhaseTest, LeafSHA256: oldLeaf, Detail: "nginx:  [31mfailed [0m\n    at line 3 ", ReportedAt: start.Add(-time.Minute),
	}
	if len(seen) != 1 || seen[0] != want {
		t.Errorf("seen %+v", seen)
	}
	// A clock that is ahead does not make later reports look old.
	report.ID, report.At, report.Deployments[0].State = "r-2", start.Add(time.Hour), apiv1.DeploymentDeployed
	w.send(http.MethodPost, "/api/v1/certificates/sync", agent, report)
	seen, err = w.db.ServerObservations(ctx, "web-1")
	w.must(err)
	if len(seen) != 1 || seen[0].State != apiv1.DeploymentDeployed || !seen[0].ReportedAt.Equal(start) {
		t.Errorf("seen %+v", seen)
	}
}

// TestRefusedCommit: a commit that is refused as a whole shows at each place of the server.
func TestRefusedCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent("web-1", hub.ServerApproved)
	refused := apiv1.ReportRequest{
		ID: "r-1", At: start, Commit: commitA, Generation: 2, Cause: "poll", Error: "the manifest's signature does not verify",
		Deployments: []apiv1.DeploymentReport{},
	}
	if r := w.send(http.MethodPost, "/api/v1/certificates/sync", agent, refused); r.status != http.StatusNoContent {
		t.Fatalf("without a branch: %d %s", r.status, r.body)
	}
	w.fleet.edit(func(f *fleet) {
		f.tips["web-1"] = &gitstore.Tip{Commit: commitA, Manifest: &manifest.Manifest{Generation: 2, Deployments: []manifest.Deployment{
			{Certificate: "a.example", Target: "one"}, {Certificate: "b.example", Target: "two"},
		}}}
	})
	refused.ID = "r-2"
	w.send(http.MethodPost, "/api/v1/certificates/sync", agent, refused)
	seen, err := w.db.ServerObservations(t.Context(), "web-1")
	w.must(err)
	if len(seen) != 2 || seen[0].State != apiv1.DeploymentRefused || seen[1].Phase != apiv1.PhaseVerify || seen[1].Detail != refused.Error {
		t.Errorf("seen %+v", seen)
	}
}

// TestReportsRaiseAlerts tells people of what servers refuse or fail at, and that it is well again.
func TestReportsRaiseAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.agent("web-1", hub.ServerApproved)
	n := 0
	report := func(rest string) {
		t.Helper()
		n++
		r := w.send(http.MethodPost, "/api/v1/certificates/sync", token,
			fmt.Sprintf(`{"id":"r%d","at":"2026-11-23T12:00:00Z","commit":"","generation":1,"cause":"poll",%s}`, n, rest))
		if r.status != http.StatusNoContent {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	open := func() (kinds []hub.AlertKind) {
		t.Helper()
		all, err := w.db.Alerts(t.Context(), true, 0, 10)
		w.must(err)
		for _, a := range all {
			if a.Object != "web-1" || strings.Contains(a.Message, "\n") {
				t.Errorf("got %+v", a)
			}
			kinds = append(kinds, a.Kind)
		}
		return kinds
	}
	const good = `"deployments":[{"certificate":"shop","target":"site","state":"deployed","phase":"done","duration_ms":1}]`
	report(`"deployments":[],"error":"manifest is not signed\nat all"`)
	if got := open(); len(got) != 1 || got[0] != hub.AlertStateRefused {
		t.Errorf("got %v", got)
	}
	report(`"deployments":[{"certificate":"shop","target":"site","state":"rolled_back","phase":"probe","detail":"wrong leaf\nmore","duration_ms":1}]`)
	if got := open(); len(got) != 1 || got[0] != hub.AlertDeploymentFailed {
		t.Errorf("got %v", got)
	}
	report(good)
	if got := open(); len(got) != 0 {
		t.Errorf("got %v after a success", got)
	}
}
