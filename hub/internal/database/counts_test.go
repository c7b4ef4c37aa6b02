package database_test

import (
	"maps"
	"path/filepath"
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
