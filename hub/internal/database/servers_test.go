package database_test

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// TestServerRoundTrip holds that a server is read as it was written, and only by its own name.
func TestServerRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.token("t1", "web-1")
	want := server("web-1", "c1")
	want.Facts.Addresses = []string{"192.0.2.1", "it's; DROP TABLE servers --"}
	want.State = hub.ServerApproved
	w.must(w.InsertServer(ctx, want, "t1", event("register-server", "web-1")))
	got, err := w.Server(ctx, "web-1")
	w.must(err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	byCredential, err := w.ServerByCredential(ctx, "c1")
	w.must(err)
	if byCredential.Name != "web-1" {
		t.Errorf("got %q by credential", byCredential.Name)
	}
	for _, name := range []string{"web-2", "", "web-1\x00", "WEB-1"} {
		_, err := w.Server(ctx, name)
		w.fails(err, hub.ErrNotFound)
	}
	_, err = w.ServerByCredential(ctx, "")
	w.fails(err, hub.ErrNotFound)
}

// TestServersPages walks all servers by pages.
func TestServersPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 7 {
		w.enrol(fmt.Sprintf("web-%d", i), fmt.Sprintf("c%d", i))
	}
	var names []string
	after := ""
	for {
		page, err := w.Servers(t.Context(), after, 3)
		w.must(err)
		for _, s := range page {
			names = append(names, s.Name)
			after = s.Name
		}
		if len(page) < 3 {
			break
		}
	}
	if got := strings.Join(names, " "); got != "web-0 web-1 web-2 web-3 web-4 web-5 web-6" {
		t.Errorf("got %s", got)
	}
}

// TestJoinTokenRefused holds that a bad token changes nothing and says what to do.
func TestJoinTokenRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, server, hash string
		wait               time.Duration
	}{
		{name: "unknown", server: "web-1", hash: "other"},
		{name: "for another server", server: "web-2", hash: "t1"},
		{name: "expired", server: "web-1", hash: "t1", wait: 30 * time.Minute},
		{name: "used", server: "web-1", hash: "used"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := t.Context()
			w.token("t1", "web-1")
			w.token("used", "web-1")
			w.must(w.InsertServer(ctx, server("web-1", "first"), "used", event("register-server", "web-1")))
			rows := w.auditLength()
			w.pass(c.wait)
			err := w.InsertServer(ctx, server(c.server, "second"), c.hash, event("register-server", c.server))
			w.fails(err, hub.ErrUnauthenticated)
			if !strings.Contains(err.Error(), "ask for a new one") {
				t.Errorf("the error does not say what to do: %v", err)
			}
			if all, err := w.Servers(ctx, "", 10); err != nil || len(all) != 1 || all[0].CredentialHash != "first" {
				t.Errorf("something changed: %+v, %v", all, err)
			}
			if n := w.auditLength(); n != rows {
				t.Errorf("%d audit rows of an act that did not happen", n-rows)
			}
		})
	}
}

// TestJoinTokenIsUsedOnce lets many machines register with one token at once.
func TestJoinTokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.token("t1", "web-1")
	var won atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			credential := fmt.Sprintf("c%d", i)
			err := w.InsertServer(t.Context(), server("web-1", credential), "t1", event("register-server", "web-1"))
			if err == nil {
				won.Add(1)
				winner.Store(credential)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of 100 registrations with one token succeeded", won.Load())
	}
	got, err := w.Server(t.Context(), "web-1")
	w.must(err)
	if got.CredentialHash != winner.Load() {
		t.Errorf("the row is %s's, the winner was %s", got.CredentialHash, winner.Load())
	}
	if n := w.auditLength(); n != 2 {
		t.Errorf("%d audit rows, want the token's and the winner's", n)
	}
	token, err := w.JoinToken(t.Context(), "t1")
	w.must(err)
	if !token.UsedAt.Equal(start) {
		t.Errorf("used at %v", token.UsedAt)
	}
}

// TestJoinTokenRoundTrip holds that a token is read as it was written.
func TestJoinTokenRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	want := hub.JoinToken{
		Hash: "t1", Server: "web-1", PreApproved: true, Labels: map[string]string{"role": "edge"}, CreatedBy: "alice",
		CreatedAt: start, ExpiresAt: start.Add(time.Minute),
	}
	w.must(w.InsertJoinToken(t.Context(), want, event("create-join-token", "web-1")))
	got, err := w.JoinToken(t.Context(), "t1")
	w.must(err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.fails(w.InsertJoinToken(t.Context(), want, event("create-join-token", "web-1")), hub.ErrConflict)
	w.must(w.exec("UPDATE join_tokens SET labels = 'spoilt'"))
	if _, err := w.JoinToken(t.Context(), "t1"); err == nil {
		t.Error("spoilt labels were read as none")
	}
}

// TestEnrolAnew holds that a new token for a name replaces key and credential and takes trust back.
func TestEnrolAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.enrol("web-1", "old")
	w.must(w.ApproveServer(ctx, "web-1", "FP-old", event("approve-server", "web-1")))
	beat := server("web-1", "")
	beat.Counter, beat.LastSeenAt = 40, start
	w.must(w.RecordHeartbeat(ctx, beat))
	w.enrol("web-1", "new")
	got, err := w.Server(ctx, "web-1")
	w.must(err)
	if !reflect.DeepEqual(got, server("web-1", "new")) {
		t.Errorf("got %+v", got)
	}
	_, err = w.ServerByCredential(ctx, "old")
	w.fails(err, hub.ErrNotFound)
	w.token("t3", "web-2")
	// A credential that another server has already cannot happen by chance; it must not end up with two owners.
	w.fails(w.InsertServer(ctx, server("web-2", "new"), "t3", event("register-server", "web-2")), hub.ErrConflict)
	if token, err := w.JoinToken(ctx, "t3"); err != nil || !token.UsedAt.IsZero() {
		t.Errorf("the failed registration used the token: %+v, %v", token, err)
	}
}

// TestApproveServer holds that only the right fingerprint approves, and never a disabled server.
func TestApproveServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.enrol("web-1", "c1")
	rows := w.auditLength()
	w.fails(w.ApproveServer(ctx, "web-2", "FP-c1", event("approve-server", "web-2")), hub.ErrNotFound)
	w.fails(w.ApproveServer(ctx, "web-1", "FP-of-somebody", event("approve-server", "web-1")), hub.ErrConflict)
	if got, err := w.Server(ctx, "web-1"); err != nil || got.State != hub.ServerPending {
		t.Errorf("got %v, %v", got.State, err)
	}
	if w.auditLength() != rows {
		t.Error("a refused approval stands in the history as done")
	}
	w.must(w.ApproveServer(ctx, "web-1", "FP-c1", event("approve-server", "web-1")))
	if got, err := w.Server(ctx, "web-1"); err != nil || got.State != hub.ServerApproved {
		t.Errorf("got %v, %v", got.State, err)
	}
	w.must(w.exec("UPDATE servers SET state = 'disabled'"))
	w.fails(w.ApproveServer(ctx, "web-1", "FP-c1", event("approve-server", "web-1")), hub.ErrConflict)
}

// TestRecordHeartbeat walks a server through heartbeats, a clone's among them.
func TestRecordHeartbeat(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.enrol("web-1", "c1")
	w.fails(w.RecordHeartbeat(ctx, hub.Server{Name: "web-9"}), hub.ErrNotFound)
	for _, c := range []struct {
		name      string
		counter   uint64
		regressed time.Duration // from start; -1 for never
	}{
		{"first", 7, -1},
		{"next", 8, -1},
		{"sent twice", 8, -1},
		{"from a clone", 5, 4 * time.Minute},
		{"next of the clone", 6, 4 * time.Minute},
		{"set back again", 2, 6 * time.Minute},
	} {
		w.pass(time.Minute)
		beat := hub.Server{
			Name: "web-1", LastSeenAt: w.clock(), Counter: c.counter, Commit: "abc", Generation: 3, Held: true,
			Status: "degraded", Message: c.name, CredentialHash: "not taken over", State: hub.ServerApproved,
		}
		w.must(w.RecordHeartbeat(ctx, beat))
		got, err := w.Server(ctx, "web-1")
		w.must(err)
		want := server("web-1", "c1")
		want.LastSeenAt, want.Counter, want.Commit, want.Generation = w.clock(), c.counter, "abc", 3
		want.Held, want.Status, want.Message = true, "degraded", c.name
		if c.regressed >= 0 {
			want.RegressedAt = start.Add(c.regressed)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", c.name, got, want)
		}
	}
	w.must(w.RecordHeartbeat(ctx, hub.Server{Name: "web-1", Counter: 3, Facts: apiv1.Facts{OS: "alpine"}}))
	if got, err := w.Server(ctx, "web-1"); err != nil || got.Facts.OS != "alpine" || got.Facts.Hostname != "" {
		t.Errorf("facts: got %+v, %v", got.Facts, err)
	}
	w.must(w.exec("UPDATE servers SET facts = 'spoilt'"))
	if got, err := w.Server(ctx, "web-1"); err != nil || got.Facts.OS != "" {
		t.Errorf("spoilt facts: got %+v, %v", got.Facts, err)
	}
}

func observation(certificate, target string, state apiv1.DeploymentState, at time.Time) hub.Observation {
	return hub.Observation{
		Certificate: certificate, Target: target, Commit: "abc", Generation: 4, State: state, Phase: apiv1.PhaseDone,
		LeafSHA256: "aa", Detail: "as reported", ReportedAt: at,
	}
}

// TestRecordReport holds that a report counts once and a late one does not hide a later one.
func TestRecordReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	report := func(server, id string, observations ...hub.Observation) bool {
		t.Helper()
		fresh, err := w.RecordReport(ctx, server, id, observations)
		w.must(err)
		return fresh
	}
	later := start.Add(time.Minute)
	if !report("web-1", "r1", observation("b.com", "files", apiv1.DeploymentDeployed, later), observation("a.com", "files", apiv1.DeploymentDeployed, later)) {
		t.Error("a new report was taken for one seen before")
	}
	if report("web-1", "r1", observation("a.com", "files", apiv1.DeploymentFailed, later)) {
		t.Error("a report sent twice was taken for a new one")
	}
	if !report("web-2", "r1", observation("a.com", "files", apiv1.DeploymentFailed, later)) {
		t.Error("another server's report of the same id was taken for one seen before")
	}
	if !report("web-1", "late", observation("a.com", "files", apiv1.DeploymentRolledBack, start), observation("a.com", "nginx", apiv1.DeploymentDeployed, start)) {
		t.Error("a late report was taken for one seen before")
	}
	describe := func(all []hub.Observation, err error) string {
		t.Helper()
		w.must(err)
		var parts []string
		for _, o := range all {
			parts = append(parts, fmt.Sprintf("%s/%s/%s=%s", o.Server, o.Certificate, o.Target, o.State))
		}
		return strings.Join(parts, " ")
	}
	if got, want := describe(w.ServerObservations(ctx, "web-1")), "web-1/a.com/files=deployed web-1/a.com/nginx=deployed web-1/b.com/files=deployed"; got != want {
		t.Errorf("server: got %s, want %s", got, want)
	}
	if got, want := describe(w.CertificateObservations(ctx, "a.com")), "web-1/a.com/files=deployed web-1/a.com/nginx=deployed web-2/a.com/files=failed"; got != want {
		t.Errorf("certificate: got %s, want %s", got, want)
	}
	report("web-1", "r3", observation("b.com", "files", apiv1.DeploymentRefused, later))
	all, err := w.CertificateObservations(ctx, "b.com")
	w.must(err)
	want := observation("b.com", "files", apiv1.DeploymentRefused, later)
	want.Server = "web-1"
	if len(all) != 1 || !reflect.DeepEqual(all[0], want) {
		t.Errorf("got %+v, want %+v", all, want)
	}
}

// TestReportIDsAreForgotten holds that ids do not pile up.
func TestReportIDsAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		id    string
		wait  time.Duration
		fresh bool
	}{{"r1", 0, true}, {"r1", 29 * 24 * time.Hour, false}, {"r2", 2 * 24 * time.Hour, true}, {"r1", 0, true}} {
		w.pass(c.wait)
		if fresh, err := w.RecordReport(t.Context(), "web-1", c.id, nil); err != nil || fresh != c.fresh {
			t.Errorf("%s after %v: %t, %v", c.id, c.wait, fresh, err)
		}
	}
	if ids := w.strings("SELECT id FROM reports ORDER BY id"); strings.Join(ids, " ") != "r1 r2" {
		t.Errorf("kept %v", ids)
	}
}

// TestCredentialIsOfNow: what shuts a server out holds for its next request, however often it was asked for before.
func TestCredentialIsOfNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.must(w.InsertJoinToken(ctx, hub.JoinToken{Hash: "t", Server: "web-1", ExpiresAt: start.Add(time.Hour)}, hub.AuditEvent{Action: "test"}))
	w.must(w.InsertServer(ctx, hub.Server{
		Name: "web-1", State: hub.ServerPending, Fingerprint: "F", PublicKey: "k", CredentialHash: "c", CreatedAt: start,
	}, "t", hub.AuditEvent{Action: "test"}))
	state := func() hub.ServerState {
		t.Helper()
		s, err := w.ServerByCredential(ctx, "c")
		w.must(err)
		return s.State
	}
	for range 3 {
		if got := state(); got != hub.ServerPending {
			t.Fatalf("got %s", got)
		}
	}
	w.must(w.ApproveServer(ctx, "web-1", "F", hub.AuditEvent{Action: "test"}))
	if got := state(); got != hub.ServerApproved {
		t.Errorf("got %s after the approval", got)
	}
	_, err := w.ServerByCredential(ctx, "guess")
	w.fails(err, hub.ErrNotFound)
	_, err = w.ServerByCredential(ctx, "guess")
	w.fails(err, hub.ErrNotFound)
}
