package database_test

import (
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

func (w *world) enqueue(certificate string) hub.Job {
	w.t.Helper()
	job, created, err := w.EnqueueJob(w.t.Context(), hub.Job{Certificate: certificate, Actor: "hub", Reason: "due"})
	w.must(err)
	if !created {
		w.t.Fatalf("a job for %s is active already", certificate)
	}
	return job
}

// claim takes the next job and returns the name of its certificate, empty where none is due.
func (w *world) claim() string {
	w.t.Helper()
	job, found, err := w.ClaimJob(w.t.Context(), nil)
	w.must(err)
	if found != (job.ID != "") || found && job.State != apiv1.JobRunning {
		w.t.Fatalf("claimed %+v, found %t", job, found)
	}
	return job.Certificate
}

func (w *world) job(id string) hub.Job {
	w.t.Helper()
	job, err := w.Job(w.t.Context(), id)
	w.must(err)
	return job
}

// TestJobLife walks one job through all its states and compares the whole row at each.
func TestJobLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	want := w.enqueue("example.com")
	if want.State != apiv1.JobQueued || want.Actor != "hub" || want.Reason != "due" || !want.CreatedAt.Equal(start) || want.ID == "" {
		t.Errorf("queued %+v", want)
	}
	retry := start.Add(time.Hour)
	for _, step := range []struct {
		name   string
		do     func() error
		expect func(*hub.Job)
	}{
		{"claim", func() error { w.claim(); return nil }, func(j *hub.Job) { j.State, j.Attempts = apiv1.JobRunning, 1 }},
		{"commit", func() error { return w.SetJobCommit(ctx, want.ID, "abc") }, func(j *hub.Job) { j.Commit = "abc" }},
		{"wait", func() error { return w.WaitJob(ctx, want.ID, retry, "retryable", "CA is away") }, func(j *hub.Job) {
			j.State, j.NotBefore, j.ErrorClass, j.Error, j.Commit = apiv1.JobWaiting, retry, "retryable", "CA is away", ""
		}},
		{"nothing is due", func() error { return expectNone(w) }, nil},
		{"hurry", func() error { return w.HurryJob(ctx, want.ID, time.Time{}, "alice", "please") }, func(j *hub.Job) {
			j.NotBefore, j.Actor, j.Reason = time.Time{}, "alice", "please"
		}},
		{"claim again", func() error { w.claim(); return nil }, func(j *hub.Job) { j.State, j.Attempts = apiv1.JobRunning, 2 }},
		{"hurry does not touch a running job", func() error { return w.HurryJob(ctx, want.ID, time.Time{}, "bob", "now") }, nil},
		{"commit again", func() error { return w.SetJobCommit(ctx, want.ID, "def") }, func(j *hub.Job) { j.Commit = "def" }},
		{"requeue", func() error { return w.RequeueJob(ctx, want.ID) }, func(j *hub.Job) { j.State, j.Commit = apiv1.JobQueued, "" }},
		{"claim a third time", func() error { w.claim(); return nil }, func(j *hub.Job) { j.State, j.Attempts = apiv1.JobRunning, 3 }},
		{"last commit", func() error { return w.SetJobCommit(ctx, want.ID, "fed") }, func(j *hub.Job) { j.Commit = "fed" }},
		{"finish", func() error { return w.FinishJob(ctx, want.ID) }, func(j *hub.Job) {
			j.State, j.Error, j.ErrorClass = apiv1.JobDone, "", ""
		}},
	} {
		w.pass(time.Second)
		before := w.job(want.ID)
		w.must(step.do())
		got := w.job(want.ID)
		if step.expect != nil {
			step.expect(&want)
			if !got.UpdatedAt.Equal(w.clock()) {
				t.Errorf("%s: updated at %v", step.name, got.UpdatedAt)
			}
		} else if !got.UpdatedAt.Equal(before.UpdatedAt) {
			t.Errorf("%s: the row was touched", step.name)
		}
		want.UpdatedAt = got.UpdatedAt
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", step.name, got, want)
		}
	}
}

func expectNone(w *world) error {
	if name := w.claim(); name != "" {
		w.t.Errorf("claimed %s before its time", name)
	}
	return nil
}

// TestJobOverStaysOver holds that nothing brings a job back to life: another may be active by then.
func TestJobOverStaysOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	changes := map[string]func(id string) error{
		"SetJobCommit": func(id string) error { return w.SetJobCommit(ctx, id, "abc") },
		"FinishJob":    func(id string) error { return w.FinishJob(ctx, id) },
		"WaitJob":      func(id string) error { return w.WaitJob(ctx, id, start, "retryable", "again") },
		"FailJob":      func(id string) error { return w.FailJob(ctx, id, "permanent", "no") },
		"RequeueJob":   func(id string) error { return w.RequeueJob(ctx, id) },
	}
	done, failed := w.enqueue("done.com"), w.enqueue("failed.com")
	w.must(w.FinishJob(ctx, done.ID))
	w.must(w.FailJob(ctx, failed.ID, "permanent", "no"))
	for name, change := range changes {
		for _, id := range []string{done.ID, failed.ID} {
			before := w.job(id)
			w.fails(change(id), hub.ErrConflict)
			if after := w.job(id); !reflect.DeepEqual(after, before) {
				t.Errorf("%s: before %+v, after %+v", name, before, after)
			}
		}
		w.fails(change("absent"), hub.ErrNotFound)
	}
	if got := w.job(failed.ID); got.Error != "no" || got.ErrorClass != "permanent" || got.State != apiv1.JobFailed {
		t.Errorf("got %+v", got)
	}
}

// TestOneActiveJobPerCertificate holds that a certificate is never ordered twice at once.
func TestOneActiveJobPerCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	var mu sync.Mutex
	var wg sync.WaitGroup
	ids, created := map[string]bool{}, 0
	for range 50 {
		wg.Go(func() {
			job, isNew, err := w.EnqueueJob(ctx, hub.Job{Certificate: "example.com"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			ids[job.ID] = true
			if isNew {
				created++
			}
		})
	}
	wg.Wait()
	if len(ids) != 1 || created != 1 {
		t.Fatalf("%d jobs, %d created", len(ids), created)
	}
	for id := range ids {
		w.claim()
		if job, isNew, err := w.EnqueueJob(ctx, hub.Job{Certificate: "example.com"}); err != nil || isNew || job.ID != id {
			t.Errorf("beside a running job: %+v, %t, %v", job, isNew, err)
		}
		w.must(w.WaitJob(ctx, id, start.Add(time.Hour), "retryable", "again"))
		if job, isNew, err := w.EnqueueJob(ctx, hub.Job{Certificate: "example.com"}); err != nil || isNew || job.ID != id {
			t.Errorf("beside a waiting job: %+v, %t, %v", job, isNew, err)
		}
		w.must(w.FinishJob(ctx, id))
	}
	w.enqueue("example.com")
	if err := w.exec(`INSERT INTO jobs SELECT 'x', certificate, actor, reason, state, attempts, not_before, error, error_class, commit_hash, created_at, updated_at FROM jobs WHERE state = 'queued'`); err == nil {
		t.Error("the schema took a second active job")
	}
}

// TestClaimJobIsExclusive lets many workers claim at once.
func TestClaimJobIsExclusive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const jobs = 20
	for i := range jobs {
		w.enqueue("c" + strconv.Itoa(i))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	claimed := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for {
				job, found, err := w.ClaimJob(t.Context(), nil)
				if err != nil {
					t.Error(err)
				}
				if !found {
					return
				}
				mu.Lock()
				claimed[job.ID]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for id, n := range claimed {
		if n != 1 {
			t.Errorf("%s was claimed %d times", id, n)
		}
	}
	if len(claimed) != jobs {
		t.Errorf("%d of %d jobs were claimed", len(claimed), jobs)
	}
	running, err := w.RunningJobs(t.Context())
	if err != nil || len(running) != jobs {
		t.Errorf("%d running, %v", len(running), err)
	}
}

// TestClaimJobTakesDueOnesInOrder holds that the oldest due job is next.
func TestClaimJobTakesDueOnesInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	later, _, err := w.EnqueueJob(ctx, hub.Job{Certificate: "later", NotBefore: start.Add(time.Hour)})
	w.must(err)
	w.enqueue("first")
	w.pass(time.Second)
	w.enqueue("second")
	var got []string
	for name := w.claim(); name != ""; name = w.claim() {
		got = append(got, name)
	}
	if order := strings.Join(got, " "); order != "first second" {
		t.Errorf("claimed %s", order)
	}
	w.pass(time.Hour)
	if name := w.claim(); name != "later" {
		t.Errorf("claimed %q after its time", name)
	}
	if job := w.job(later.ID); job.Attempts != 1 {
		t.Errorf("%d attempts", job.Attempts)
	}
}

// TestNewestJob holds that the newest job is the one queued last, within a millisecond and across a clock set back.
func TestNewestJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, err := w.LatestJob(ctx, "example.com")
	w.fails(err, hub.ErrNotFound)
	_, err = w.Job(ctx, "absent")
	w.fails(err, hub.ErrNotFound)
	var last hub.Job
	for _, turn := range []time.Duration{0, 0, 0, time.Minute, -24 * time.Hour, 0, time.Second} {
		w.pass(turn)
		last = w.enqueue("example.com")
		if got, err := w.LatestJob(ctx, "example.com"); err != nil || got.ID != last.ID {
			t.Errorf("got %s, %v, want %s", got.ID, err, last.ID)
		}
		w.must(w.FinishJob(ctx, last.ID))
	}
	first, err := w.Jobs(ctx, "", "", 3)
	w.must(err)
	if len(first) != 3 || first[0].ID != last.ID {
		t.Errorf("the first page is %+v", first)
	}
	rest, err := w.Jobs(ctx, "", first[2].ID, 10)
	w.must(err)
	if len(rest) != 4 || rest[0].ID >= first[2].ID {
		t.Errorf("the second page is %+v", rest)
	}
}

// TestPruneJobs holds that jobs that are over go in their time, but what is known of a certificate.
func TestPruneJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	end := func(j hub.Job) string {
		t.Helper()
		job, _, err := w.EnqueueJob(ctx, j)
		w.must(err)
		w.must(w.FinishJob(ctx, job.ID))
		return job.ID
	}
	gone := []string{end(hub.Job{Certificate: "a"}), end(hub.Job{Certificate: "a", Kind: apiv1.JobDryRun})}
	kept := []string{end(hub.Job{Certificate: "a", Kind: apiv1.JobDryRun}), end(hub.Job{Certificate: "a"}), end(hub.Job{Certificate: "b"})}
	active := w.enqueue("c")
	w.pass(time.Hour)
	kept = append(kept, active.ID, end(hub.Job{Certificate: "d"}), end(hub.Job{Certificate: "d"}))
	if n, err := w.PruneJobs(ctx, start); err != nil || n != 0 {
		t.Fatalf("%d pruned before their time, %v", n, err)
	}
	if n, err := w.PruneJobs(ctx, start.Add(time.Minute)); err != nil || n != int64(len(gone)) {
		t.Errorf("%d pruned, %v, want %d", n, err, len(gone))
	}
	for _, id := range gone {
		_, err := w.Job(ctx, id)
		w.fails(err, hub.ErrNotFound)
	}
	for _, id := range kept {
		w.job(id)
	}
}

// TestHurryJobOnlyHurries holds that a job that a person asks for begins by a time, and never later than it would have.
func TestHurryJobOnlyHurries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		by, want time.Duration
		newKey   bool
	}{
		"sooner": {by: time.Hour, want: time.Hour}, "later": {by: 4 * time.Hour, want: 3 * time.Hour},
		"sooner with a new key": {time.Hour, time.Hour, true}, "later with a new key": {4 * time.Hour, 3 * time.Hour, true},
	} {
		w := newWorld(t)
		job := w.enqueue("example.com")
		w.claim()
		w.must(w.WaitJob(t.Context(), job.ID, start.Add(3*time.Hour), "retryable", "again"))
		wish := hub.Job{Certificate: "example.com", Actor: "alice", NotBefore: start.Add(c.by), NewKey: c.newKey}
		if c.newKey {
			_, _, err := w.EnqueueJob(t.Context(), wish)
			w.must(err)
		} else {
			w.must(w.HurryJob(t.Context(), job.ID, wish.NotBefore, "alice", ""))
		}
		if got := w.job(job.ID); !got.NotBefore.Equal(start.Add(c.want)) || got.Actor != "alice" || got.NewKey != c.newKey {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestPutOffJobIsNoAttempt holds that a job that is put off keeps what is known of its last attempt.
func TestPutOffJobIsNoAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	job := w.enqueue("example.com")
	for _, c := range []struct {
		class    string // of an attempt that failed before, if one did
		want     string
		attempts int
	}{{"", "rate_limited", 0}, {"validation_failed", "validation_failed", 1}} {
		if c.class != "" {
			w.pass(time.Hour)
			w.claim()
			w.must(w.WaitJob(ctx, job.ID, w.clock(), c.class, "failed"))
		}
		w.claim()
		w.must(w.PutOffJob(ctx, job.ID, w.clock().Add(time.Hour), "rate_limited", "a limit is spent"))
		got := w.job(job.ID)
		if got.ErrorClass != c.want || got.Attempts != c.attempts || got.Error != "a limit is spent" || got.State != apiv1.JobWaiting {
			t.Errorf("after %q: %+v", c.class, got)
		}
	}
}

// TestCancelJobKeepsSettingsWithIt holds that neither happens without the other.
func TestCancelJobKeepsSettingsWithIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	w.must(w.SetSetting(ctx, "mark", "old"))
	job := w.enqueue("example.com")
	w.must(w.exec(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk is full'); END`))
	if _, err := w.CancelJob(ctx, job.ID, map[string]string{"mark": "new"}, event("cancel", "example.com")); err == nil {
		t.Error("cancelled without a row in the audit history")
	}
	if mark, err := w.Setting(ctx, "mark"); err != nil || mark != "old" {
		t.Errorf("mark %q, %v", mark, err)
	}
	w.must(w.exec(`DROP TRIGGER full`))
	got, err := w.CancelJob(ctx, job.ID, map[string]string{"mark": "new"}, event("cancel", "example.com"))
	w.must(err)
	if mark, err := w.Setting(ctx, "mark"); err != nil || mark != "new" || got.State != apiv1.JobCancelled {
		t.Errorf("mark %q, %v, job %+v", mark, err, got)
	}
	_, err = w.CancelJob(ctx, job.ID, map[string]string{"mark": "newer"}, event("cancel", "example.com"))
	w.fails(err, hub.ErrConflict)
	if mark, err := w.Setting(ctx, "mark"); err != nil || mark != "new" {
		t.Errorf("mark %q, %v", mark, err)
	}
}
