package httpapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

func issued(notAfter time.Time, leaf string) *manifest.IssuedCertificate {
	return &manifest.IssuedCertificate{Issuer: "private", Serial: "04ab", NotBefore: start.Add(-time.Hour), NotAfter: notAfter, LeafSHA256: leaf, SPKISHA256: oldLeaf}
}

// someFleet has three web servers and two certificates.
func someFleet(t *testing.T) (*world, string) {
	t.Helper()
	w := newWorld(t)
	for _, name := range []string{"web-1", "web-2", "web-3"} {
		w.agent(name, hub.ServerApproved)
	}
	w.fleet.addCertificate(&manifest.Certificate{
		Name: "example.com", Names: []string{"example.com", "www.example.com"}, KeyType: "ecdsa-p256", Issuer: "private",
		Challenge: &manifest.Challenge{Type: "dns-01", Hook: "dns_cf", Credential: "cf"},
		Renewal:   manifest.Renewal{DaysBeforeExpiry: 20, Key: "keep"},
		Deployments: []manifest.Placement{
			{Selector: "role=web", Deployer: "nginx", Target: "site"},
			{Server: "web-1", Deployer: "files", Target: "mail"},
			{Server: "web-1", Deployer: "nginx", Target: "site"}, // the selector has it already
			{Selector: "role in (", Deployer: "nginx", Target: "broken"},
		},
	}, issued(start.Add(80*24*time.Hour), webLeaf))
	w.fleet.addCertificate(&manifest.Certificate{
		Name: "new.example", Names: []string{"new.example"}, Issuer: "private",
		Deployments: []manifest.Placement{{Server: "web-1", Deployer: "files", Target: "new"}},
	}, nil)
	return w, w.person("vera", apiv1.RoleViewer)
}

func TestServerView(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	w.fleet.edit(func(f *fleet) {
		f.tips["web-1"] = &gitstore.Tip{Commit: commitA, Manifest: &manifest.Manifest{Generation: 7, Deployments: []manifest.Deployment{
			{Certificate: "example.com", Deployer: "nginx", Target: "site", LeafSHA256: oldLeaf},
			{Certificate: "gone.example", Deployer: "files", Target: "was", LeafSHA256: oldLeaf},
		}}}
		f.snap.Servers["web-1"].Hold = &manifest.Hold{Commit: commitA, Reason: "broken page", By: "otto", Since: start}
	})
	_, err := w.db.RecordReport(t.Context(), "web-1", "r1", []hub.Observation{
		{Server: "web-1", Certificate: "example.com", Target: "site", State: apiv1.DeploymentDeployed, Phase: apiv1.PhaseDone, LeafSHA256: oldLeaf, Commit: commitA, ReportedAt: start},
		{Server: "web-1", Certificate: "example.com", Target: "mail", State: apiv1.DeploymentDeployed, Phase: apiv1.PhaseDone, LeafSHA256: oldLeaf, ReportedAt: start},
		{Server: "web-1", Certificate: "gone.example", Target: "was", State: apiv1.DeploymentRolledBack, Phase: apiv1.PhaseProbe, Detail: "d", ReportedAt: start},
		{Server: "web-1", Certificate: "forgotten.example", Target: "x", State: apiv1.DeploymentDeployed, ReportedAt: start},
	})
	w.must(err)
	s := decode[apiv1.Server](t, w.get("/api/v1/servers/web-1", viewer))
	if s.Hold == nil || s.Hold.By != "otto" || s.Hold.Reason != "broken page" || s.WantGeneration != 7 || s.WantCommit != commitA {
		t.Errorf("server %+v", s)
	}
	var got []string
	for _, d := range s.Deployments {
		got = append(got, fmt.Sprintf("%s/%s by %s wants %.2s: %s %s %.2s", d.Certificate, d.Target, d.Deployer, d.WantLeafSHA256, d.State, d.Phase, d.LeafSHA256))
	}
	want := []string{
		"example.com/mail by files wants aa: pending done bb", // an earlier leaf is there
		"example.com/site by nginx wants bb: deployed done bb",
		"gone.example/was by files wants bb: rolled_back probe ",
		"new.example/new by files wants : pending  ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("deployments:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := w.get("/api/v1/servers/nobody", viewer); r.status != http.StatusNotFound || !strings.Contains(r.problem(t).Detail, "no server") {
		t.Errorf("unknown: %d %s", r.status, r.body)
	}
}

func TestServerList(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	first := decode[apiv1.List[apiv1.Server]](t, w.get("/api/v1/servers?limit=2", viewer))
	if len(first.Items) != 2 || first.Next != "web-2" || first.Items[0].Name != "web-1" || len(first.Items[1].Deployments) != 1 {
		t.Errorf("first page %+v", first)
	}
	second := decode[apiv1.List[apiv1.Server]](t, w.get("/api/v1/servers?limit=2&after=web-2", viewer))
	if len(second.Items) != 1 || second.Next != "" {
		t.Errorf("second page %+v", second)
	}
	if l := decode[apiv1.List[apiv1.Server]](t, w.get("/api/v1/servers?q=-3", viewer)); len(l.Items) != 1 || l.Items[0].Name != "web-3" {
		t.Errorf("search %+v", l)
	}
}

func TestCertificateView(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	_, err := w.db.RecordReport(t.Context(), "web-2", "r1", []hub.Observation{
		{Server: "web-2", Certificate: "example.com", Target: "site", State: apiv1.DeploymentDeployed, LeafSHA256: webLeaf, ReportedAt: start},
	})
	w.must(err)
	c := decode[apiv1.Certificate](t, w.get("/api/v1/certificates/example.com", viewer))
	if c.State != apiv1.CertificateValid || c.Issued == nil || c.Issued.Serial != "04ab" || !c.RenewAt.Equal(start.Add(50*24*time.Hour)) ||
		!c.KeepKey || c.DaysBeforeExpiry != 20 || c.Challenge.Hook != "dns_cf" || len(c.Deployments) != 4 {
		t.Errorf("certificate %+v", c)
	}
	var got []string
	for _, d := range c.Placed {
		got = append(got, fmt.Sprintf("%s/%s %s", d.Server, d.Target, d.State))
	}
	if s := strings.Join(got, ", "); s != "web-1/mail pending, web-1/site pending, web-2/site deployed, web-3/site pending" {
		t.Errorf("placed %s", s)
	}
	r := w.get("/api/v1/certificates/new.example", viewer)
	if c := decode[apiv1.Certificate](t, r); c.State != apiv1.CertificatePending || c.Issued != nil || c.RenewAt != nil || strings.Contains(string(r.body), "null") {
		t.Errorf("not issued yet: %s", r.body)
	}
	if r := w.get("/api/v1/certificates/other.example", viewer); r.status != http.StatusNotFound || r.problem(t).Detail == "" {
		t.Errorf("unknown: %d", r.status)
	}
	l := decode[apiv1.List[apiv1.Certificate]](t, w.get("/api/v1/certificates?limit=1", viewer))
	if len(l.Items) != 1 || l.Next != "example.com" {
		t.Errorf("list %+v", l)
	}
	l = decode[apiv1.List[apiv1.Certificate]](t, w.get("/api/v1/certificates?after=example.com", viewer))
	if len(l.Items) != 1 || l.Items[0].Name != "new.example" || l.Next != "" {
		t.Errorf("list %+v", l)
	}
	l = decode[apiv1.List[apiv1.Certificate]](t, w.get("/api/v1/certificates?q=WWW", viewer))
	if len(l.Items) != 1 || l.Items[0].Name != "example.com" {
		t.Errorf("search %+v", l)
	}
}

func TestCertificateStates(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for _, tc := range []struct {
		name   string
		left   time.Duration // until expiry; 0: not issued
		paused bool
		job    func(*world, string) error
		want   apiv1.CertificateState
	}{
		{"never-issued", 0, false, nil, apiv1.CertificatePending},
		{"first-order", 0, false, func(*world, string) error { return nil }, apiv1.CertificatePending},
		{"first-failed", 0, false, func(w *world, id string) error { return w.db.FailJob(t.Context(), id, "permanent", "no") }, apiv1.CertificateFailed},
		{"fresh", 60 * day, false, nil, apiv1.CertificateValid},
		{"due", 20 * day, false, nil, apiv1.CertificateExpiring},
		{"expired", -time.Second, false, nil, apiv1.CertificateExpired},
		{"expired-paused", -day, true, nil, apiv1.CertificateExpired},
		{"renewing", 20 * day, false, func(*world, string) error { return nil }, apiv1.CertificateRenewing},
		{"retrying", 20 * day, false, func(w *world, id string) error {
			return w.db.WaitJob(t.Context(), id, start.Add(time.Hour), "retryable", "later")
		}, apiv1.CertificateRenewing},
		{"failed", 20 * day, false, func(w *world, id string) error { return w.db.FailJob(t.Context(), id, "permanent", "no") }, apiv1.CertificateFailed},
		{"done", 60 * day, false, func(w *world, id string) error { return w.db.FinishJob(t.Context(), id) }, apiv1.CertificateValid},
		{"paused", 60 * day, true, nil, apiv1.CertificatePaused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			viewer := w.person("vera", apiv1.RoleViewer)
			var have *manifest.IssuedCertificate
			if tc.left != 0 {
				have = issued(start.Add(tc.left), webLeaf)
			}
			w.fleet.addCertificate(&manifest.Certificate{Name: tc.name, Renewal: manifest.Renewal{Paused: tc.paused, PausedReason: "why"}}, have)
			if tc.job != nil {
				job, _, err := w.db.EnqueueJob(t.Context(), hub.Job{Certificate: tc.name, Reason: "due"})
				w.must(err)
				w.must(tc.job(w, job.ID))
			}
			c := decode[apiv1.Certificate](t, w.get("/api/v1/certificates/"+tc.name, viewer))
			if c.State != tc.want || c.Paused != tc.paused || (c.Job != nil) != (tc.job != nil) {
				t.Errorf("got %s (%+v), want %s", c.State, c.Job, tc.want)
			}
			if tc.name == "retrying" && (c.Job.RetryAt == nil || c.Job.Error != "later" || c.Job.ErrorClass != "retryable") {
				t.Errorf("job %+v", c.Job)
			}
			stats := decode[apiv1.Status](t, w.get("/api/v1/stats", viewer))
			if stats.Certificates[tc.want] != 1 {
				t.Errorf("stats %+v", stats)
			}
		})
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	w.agent("new", hub.ServerPending)
	one := w.agent("web-1", hub.ServerApproved)
	w.send(http.MethodPost, "/api/v1/servers/heartbeat", one, apiv1.HeartbeatRequest{Status: "ok", Held: true})
	w.fleet.edit(func(f *fleet) { f.snap.Servers["web-2"].Hold = &manifest.Hold{} })
	_, _, err := w.db.EnqueueJob(t.Context(), hub.Job{Certificate: "new.example"})
	w.must(err)
	s := decode[apiv1.Status](t, w.get("/api/v1/stats", viewer))
	if got := fmt.Sprint(s.Servers, s.Certificates, s.Jobs); got != "map[approved:3 disabled:0 held:2 online:1 pending:1] map[pending:1 valid:1] map[queued:1]" {
		t.Errorf("counts %s", got)
	}
	if s.Version != "0.1.0" || s.RepoID != "repo-1" || s.MainCommit != strings.Repeat("1", 40) || !s.AsOf.Equal(start) {
		t.Errorf("stats %+v", s)
	}
}

func TestIssuersAndJobs(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	l := decode[apiv1.List[apiv1.Issuer]](t, w.get("/api/v1/issuers", viewer))
	if len(l.Items) != 2 || l.Items[0].Name != "le" || l.Items[0].Type != "acmesh" || l.Items[0].Directory != "https://acme.example/dir" || l.Items[1].Type != "privateca" {
		t.Errorf("issuers %+v", l)
	}
	var ids []string
	for _, name := range []string{"a", "b", "c"} {
		job, _, err := w.db.EnqueueJob(t.Context(), hub.Job{Certificate: name, Actor: "otto", Reason: "because"})
		w.must(err)
		ids = append(ids, job.ID)
		w.pass(time.Second)
	}
	jobs := decode[apiv1.List[apiv1.Job]](t, w.get("/api/v1/jobs?limit=2", viewer))
	if len(jobs.Items) != 2 || jobs.Items[0].ID != ids[2] || jobs.Next != ids[1] {
		t.Errorf("jobs %+v", jobs)
	}
	jobs = decode[apiv1.List[apiv1.Job]](t, w.get("/api/v1/jobs?limit=2&after="+jobs.Next, viewer))
	if len(jobs.Items) != 1 || jobs.Items[0].ID != ids[0] || jobs.Next != "" {
		t.Errorf("jobs %+v", jobs)
	}
	job := decode[apiv1.Job](t, w.get("/api/v1/jobs/"+ids[1], viewer))
	if job.Certificate != "b" || job.Kind != "issue" || job.State != apiv1.JobQueued || job.Reason != "because" {
		t.Errorf("job %+v", job)
	}
	if r := w.get("/api/v1/jobs/none", viewer); r.status != http.StatusNotFound || r.problem(t).Detail == "" {
		t.Errorf("unknown job: %d", r.status)
	}
}

func TestAuditHistory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	operator := w.person("otto", apiv1.RoleOperator)
	w.get("/api/v1/users", operator)
	w.get("/api/v1/users", "")
	first := decode[apiv1.List[apiv1.AuditEvent]](t, w.get("/api/v1/audit?limit=2", operator))
	if len(first.Items) != 2 || first.Items[0].Actor != "anonymous" || first.Items[1].Actor != "otto" || first.Items[1].Outcome != "denied" ||
		first.Items[1].Action != "list-users" || first.Items[0].Hash == "" || first.Items[0].Address != "127.0.0.1" {
		t.Errorf("page %+v", first)
	}
	rest := decode[apiv1.List[apiv1.AuditEvent]](t, w.get("/api/v1/audit?after="+first.Next, operator))
	if len(rest.Items) == 0 || rest.Items[0].Seq != first.Items[1].Seq-1 || rest.Next != "" {
		t.Errorf("next page %+v", rest)
	}
	for _, after := range []string{"x", "-1", "0", "99999999999999999999"} {
		if r := w.get("/api/v1/audit?after="+after, operator); r.status != http.StatusUnprocessableEntity || r.problem(t).Errors[0].Location != "query.after" {
			t.Errorf("after=%s: %d %s", after, r.status, r.body)
		}
	}
	w.must(w.db.VerifyAudit(t.Context()))
}

func commit(n int, message string) *gitrepo.Commit {
	h, _ := gitrepo.ParseHash(fmt.Sprintf("%040x", n))
	return &gitrepo.Commit{
		Hash: h, Message: message, Author: gitrepo.Person{Name: "otto"}, Committer: gitrepo.Person{Name: "hub", When: start.Add(time.Duration(n) * time.Minute)},
	}
}

func TestHistories(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	w.fleet.edit(func(f *fleet) {
		f.commits = []*gitrepo.Commit{
			commit(3, "renew example.com\n\nbecause it is due\n\nCertificate: example.com\nActor: otto\n"),
			commit(2, "add certificate example.com\x1b[0m\n\nthis is: no trailer\n"),
			commit(1, "begin\n"),
		}
		f.histories["web-1"] = []gitstore.ServerCommit{
			{Commit: commit(12, "deploy"), Manifest: &manifest.Manifest{Generation: 2}}, {Commit: commit(11, "deploy")},
		}
	})
	l := decode[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/certificates/example.com/history?limit=2", viewer))
	if len(l.Items) != 2 || l.Items[0].Subject != "renew example.com" || l.Items[0].Trailers["Actor"] != "otto" || l.Items[0].Author != "otto" ||
		!l.Items[0].CommittedAt.Equal(start.Add(3*time.Minute)) || l.Items[1].Trailers != nil || l.Items[1].Subject != "add certificate example.com [0m" ||
		l.Next != l.Items[1].Hash {
		t.Errorf("history %+v", l)
	}
	l = decode[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/certificates/example.com/history?limit=2&after="+l.Next, viewer))
	if len(l.Items) != 1 || l.Items[0].Subject != "begin" || l.Next != "" {
		t.Errorf("history %+v", l)
	}
	if r := w.get("/api/v1/certificates/example.com/history?after=canary", viewer); r.status != http.StatusUnprocessableEntity {
		t.Errorf("bad page: %d", r.status)
	}
	if r := w.get("/api/v1/certificates/none.example/history", viewer); r.status != http.StatusNotFound {
		t.Errorf("unknown: %d", r.status)
	}
	l = decode[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/servers/web-1/history", viewer))
	if len(l.Items) != 2 || l.Items[0].Generation != 2 || l.Items[1].Generation != 0 {
		t.Errorf("history %+v", l)
	}
	if l := decode[apiv1.List[apiv1.Commit]](t, w.get("/api/v1/servers/web-2/history", viewer)); len(l.Items) != 0 {
		t.Errorf("no branch yet: %+v", l)
	}
	if r := w.get("/api/v1/servers/none/history", viewer); r.status != http.StatusNotFound {
		t.Errorf("unknown: %d", r.status)
	}
}

// TestChanges: each change goes to the service that makes it, in the caller's name.
func TestChanges(t *testing.T) {
	t.Parallel()
	w, _ := someFleet(t)
	operator := w.person("otto", apiv1.RoleOperator)
	for _, tc := range []struct {
		path   string
		body   any
		status int
		want   string
	}{
		{"/certificates", apiv1.CertificateSpec{Name: "made.example", Names: []string{"made.example"}, Issuer: "private"}, 201, "create otto made.example"},
		{"/certificates/example.com/renew", apiv1.RenewRequest{Reason: "key leaked"}, 202, "renew otto example.com key leaked"},
		{"/certificates/example.com/renew", nil, 202, "renew otto example.com "},
		{"/certificates/example.com/rollback", apiv1.RollbackRequest{Commit: commitA, Reason: "r"}, 200, "rollback-certificate otto example.com " + commitA + " r"},
		{"/certificates/example.com/rollback", nil, 200, "rollback-certificate otto example.com  "},
		{"/certificates/example.com/resume", nil, 200, "resume-certificate otto example.com"},
		{"/servers/web-1/rollback", apiv1.RollbackRequest{Commit: "aaaaaaa"}, 200, "rollback-server otto web-1 aaaaaaa "},
		{"/servers/web-1/rollback", nil, 200, "rollback-server otto web-1  "},
		{"/servers/web-1/resume", nil, 200, "resume-server otto web-1"},
	} {
		r := w.send(http.MethodPost, "/api/v1"+tc.path, operator, tc.body)
		if r.status != tc.status || w.intent.last() != tc.want {
			t.Errorf("%s: %d %s, called %q", tc.path, r.status, r.body, w.intent.last())
		}
		if tc.status == 201 && r.header.Get("Location") != "/api/v1/certificates/made.example" || tc.status == 202 && r.header.Get("Location") != "/api/v1/jobs/job-1" {
			t.Errorf("%s: location %q", tc.path, r.header.Get("Location"))
		}
		w.intent.fail(&hub.Error{Class: hub.ErrConflict, Message: "it is busy"})
		if tc.status != 201 {
			if r := w.send(http.MethodPost, "/api/v1"+tc.path, operator, tc.body); r.status != http.StatusConflict || r.problem(t).Detail != "it is busy" {
				t.Errorf("%s, refused: %d %s", tc.path, r.status, r.body)
			}
		}
		w.intent.fail(nil)
		if strings.Contains(tc.path, "example.com") || strings.Contains(tc.path, "web-1") {
			gone := strings.NewReplacer("example.com", "none", "web-1", "none").Replace(tc.path)
			if r := w.send(http.MethodPost, "/api/v1"+gone, operator, tc.body); r.status != http.StatusNotFound {
				t.Errorf("%s: %d", gone, r.status)
			}
		}
	}
}

// TestOurFault: what fails inside is told as such; the reason is in the log and nowhere else.
func TestOurFault(t *testing.T) {
	t.Parallel()
	w, viewer := someFleet(t)
	w.fleet.edit(func(f *fleet) { f.err = errors.New("read object: canary\nforged line") })
	for _, path := range []string{"/servers", "/servers/web-1", "/certificates", "/certificates/example.com", "/certificates/example.com/history", "/issuers", "/stats"} {
		r := w.get("/api/v1"+path, viewer)
		if p := r.problem(t); r.status != http.StatusInternalServerError || strings.Contains(string(r.body), "canary") || !strings.Contains(w.log.String(), p.RequestID) {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if log := w.log.String(); !strings.Contains(log, "canary forged line") {
		t.Errorf("the log lacks the reason, or a line is forged: %s", log)
	}
}
