package intent_test

import (
	"slices"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

func TestRenewAllOfAnAuthority(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"a.example", "b.example", "c.example", "never.example"} {
		f.create(name, nil)
	}
	for _, name := range []string{"a.example", "b.example", "c.example"} {
		f.issue(name)
	}
	f.must(f.service.PauseCertificate(t.Context(), ada, "", "c.example", "freeze"))
	before := f.head()

	_, err := f.service.RenewAll(t.Context(), ada, "", apiv1.RenewAllRequest{})
	f.refused(err, hub.ErrInvalid, before, "either issuer or authority")
	other, err := f.service.RenewAll(t.Context(), ada, "", apiv1.RenewAllRequest{Authority: "Another CA"})
	f.must(err)
	listed, err := f.service.RenewAll(t.Context(), ada, "", apiv1.RenewAllRequest{Authority: "Test CA", DryRun: true})
	f.must(err)
	want := []string{"a.example", "b.example"}
	if len(other.Certificates) != 0 || !slices.Equal(listed.Certificates, want) || !slices.Equal(listed.Paused, []string{"c.example"}) {
		t.Errorf("another authority: %+v; this one: %+v", other, listed)
	}
	if jobs, err := f.db.Jobs(t.Context(), "", "", 10); err != nil || len(jobs) != 0 {
		t.Fatalf("a dry run queued %+v, %v", jobs, err)
	}

	done, err := f.service.RenewAll(t.Context(), ada, "request-9", apiv1.RenewAllRequest{
		Authority: "Test CA", SpreadSeconds: 3600, NewKey: true, Reason: "incident 7",
	})
	f.must(err)
	jobs, err := f.db.Jobs(t.Context(), "", "", 10)
	f.must(err)
	if !slices.Equal(done.Certificates, want) || len(jobs) != 2 {
		t.Fatalf("renewed %+v, jobs %+v", done, jobs)
	}
	for _, j := range jobs {
		if !j.NewKey || j.Reason != "incident 7" || j.Actor != "ada" || j.NotBefore.Before(f.clock.Now().Truncate(time.Millisecond)) || j.NotBefore.After(f.clock.Now().Add(time.Hour)) {
			t.Errorf("job: %+v", j)
		}
	}
	events, err := f.db.AuditEvents(t.Context(), 0, 1)
	f.must(err)
	if events[0].Action != "renew-all" || events[0].Object != "Test CA" || events[0].Detail != "2 certificates: incident 7" || events[0].RequestID != "request-9" {
		t.Errorf("audit: %+v", events[0])
	}
}

func TestRenewAllHurriesWhatWaits(t *testing.T) {
	t.Parallel()
	for name, spread := range map[string]time.Duration{"at once": 0, "spread": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.create("a.example", nil)
			f.issue("a.example")
			job, _, err := f.db.EnqueueJob(t.Context(), hub.Job{Certificate: "a.example", Actor: "hub", Reason: "its renewal time came"})
			f.must(err)
			_, _, err = f.db.ClaimJob(t.Context(), nil)
			f.must(err)
			f.must(f.db.WaitJob(t.Context(), job.ID, f.clock.Now().Add(6*time.Hour), "retryable", "the CA is away"))
			_, err = f.service.RenewAll(t.Context(), ada, "", apiv1.RenewAllRequest{
				Authority: "Test CA", SpreadSeconds: int64(spread.Seconds()), Reason: "incident 7",
			})
			f.must(err)
			// It is ada's from now on: one of the hub's own would end where nothing is due.
			got, err := f.db.Job(t.Context(), job.ID)
			f.must(err)
			if got.Actor != "ada" || got.Reason != "incident 7" || got.NotBefore.After(f.clock.Now().Add(spread)) || spread > 0 && got.NotBefore.Before(f.clock.Now().Truncate(time.Millisecond)) {
				t.Errorf("job: %+v", got)
			}
		})
	}
}

func TestPausingASecondCertificatePausesItsFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create("shop", func(s *apiv1.CertificateSpec) { s.SecondKeyType = "rsa-2048" })
	f.must(f.service.PauseCertificate(t.Context(), ada, "", "shop.rsa", ""))
	if all := f.snapshot().Certificates; !all["shop"].Renewal.Paused || all["shop.rsa"].Renewal.PausedReason != "paused by ada" {
		t.Errorf("%+v", all)
	}
	before := f.head()
	f.refused(f.service.PauseCertificate(t.Context(), ada, "", "shop", ""), hub.ErrConflict, before, "paused already")
	f.must(f.service.ResumeCertificate(t.Context(), ada, "", "shop.rsa"))
	if f.snapshot().Certificates["shop"].Renewal.Paused {
		t.Error("still paused")
	}
	// Its name belongs to it.
	before = f.head()
	f.refused(f.service.CreateCertificate(t.Context(), ada, "", spec("shop.rsa", nil)), hub.ErrConflict, before, "exists")
	f.create("taken.rsa", nil)
	before = f.head()
	f.refused(f.service.CreateCertificate(t.Context(), ada, "", spec("taken", func(s *apiv1.CertificateSpec) { s.SecondKeyType = "rsa-2048" })),
		hub.ErrConflict, before, "second")
}
