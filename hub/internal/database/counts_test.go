package database_test

import (
	"maps"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/database"
)

// TestCountJobs holds that jobs are counted by state.
func TestCountJobs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := database.Open(ctx, filepath.Join(t.TempDir(), "hub.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, name := range []string{"a", "b", "c"} {
		job, _, err := db.EnqueueJob(ctx, hub.Job{Certificate: name})
		if err != nil {
			t.Fatal(err)
		}
		if name == "c" {
			if err := db.FailJob(ctx, job.ID, "permanent", "no"); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := db.CountJobs(ctx)
	if want := map[apiv1.JobState]int{apiv1.JobQueued: 2, apiv1.JobFailed: 1}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

// TestLatestOrders holds that the newest order of a certificate counts, and jobs of other kinds do not.
func TestLatestOrders(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	db, err := database.Open(ctx, filepath.Join(t.TempDir(), "hub.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	queue := func(j hub.Job, end func(id string) error) {
		t.Helper()
		job, _, err := db.EnqueueJob(ctx, j)
		if err == nil && end != nil {
			err = end(job.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fail := func(id string) error { return db.FailJob(ctx, id, "permanent", "no") }
	done := func(id string) error { return db.FinishJob(ctx, id) }
	queue(hub.Job{Certificate: "mended"}, fail)
	queue(hub.Job{Certificate: "mended"}, done)
	queue(hub.Job{Certificate: "broken"}, done)
	queue(hub.Job{Certificate: "broken"}, fail)
	queue(hub.Job{Certificate: "broken", Kind: apiv1.JobDryRun}, done)
	queue(hub.Job{Certificate: "under way"}, done)
	queue(hub.Job{Certificate: "under way"}, nil)
	queue(hub.Job{Certificate: "never ordered", Kind: apiv1.JobDryRun}, done)
	latest, err := db.LatestOrders(ctx)
	got := map[string]apiv1.JobState{}
	for name, job := range latest {
		got[name] = job.State
		if one, err := db.LatestJob(ctx, name); err != nil || !reflect.DeepEqual(job, one) {
			t.Errorf("%s: %+v, want %+v, %v", name, job, one, err)
		}
	}
	want := map[string]apiv1.JobState{"mended": apiv1.JobDone, "broken": apiv1.JobFailed, "under way": apiv1.JobQueued}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}
