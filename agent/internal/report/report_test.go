package report_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/agent/internal/report"
	"github.com/certferry/certferry/hub/apiv1"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) (*report.Outbox, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "reports")
	o, err := report.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return o, dir
}

func add(t *testing.T, o *report.Outbox, n int) {
	t.Helper()
	if err := o.Add(apiv1.ReportRequest{At: start.Add(time.Duration(n) * time.Second), Generation: uint64(n)}); err != nil {
		t.Fatal(err)
	}
}

func TestReportsGoOutInOrderAndOnce(t *testing.T) {
	t.Parallel()
	o, _ := open(t)
	for _, n := range []int{2, 1, 3, 3, 3} { // the clock is put back once, and stands still
		add(t, o, n)
	}
	var got []uint64
	ids := map[string]bool{}
	send := func(_ context.Context, r apiv1.ReportRequest) error {
		got, ids[r.ID] = append(got, r.Generation), true
		return nil
	}
	for range 2 {
		if err := o.Flush(t.Context(), send); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]uint64{2, 1, 3, 3, 3}, got); diff != "" || len(ids) != 5 {
		t.Errorf("sent %s with ids %v", diff, ids)
	}
}

func TestFailureKeepsReportsAndRejectionDropsOne(t *testing.T) {
	t.Parallel()
	o, dir := open(t)
	add(t, o, 1)
	add(t, o, 2)
	down := errors.New("down")
	if err := o.Flush(t.Context(), func(context.Context, apiv1.ReportRequest) error { return down }); !errors.Is(err, down) {
		t.Errorf("flush: %v", err)
	}
	if n, err := o.Len(); n != 2 || err != nil {
		t.Errorf("after a failure %d wait (%v), want 2", n, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "00000000000000000000-x.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	sent := 0
	err := o.Flush(t.Context(), func(_ context.Context, r apiv1.ReportRequest) error {
		if r.Generation == 1 {
			return report.ErrRejected
		}
		sent++
		return nil
	})
	if !errors.Is(err, report.ErrRejected) || sent != 1 {
		t.Errorf("flush: %v, sent %d, want the rejection and 1", err, sent)
	}
	if n, _ := o.Len(); n != 0 {
		t.Errorf("%d reports wait, want 0: a rejected or unreadable one would block the rest for ever", n)
	}
}

func TestOutboxIsBounded(t *testing.T) {
	t.Parallel()
	o, dir := open(t)
	for n := range 1000 {
		name := filepath.Join(dir, time.Duration(n).String()+".json")
		if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add(t, o, 1)
	if n, err := o.Len(); n != 1000 || err != nil {
		t.Errorf("%d reports (%v), want 1000", n, err)
	}
}

func TestFolderThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	o, dir := open(t)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Open(filepath.Join(dir, "reports")); err == nil {
		t.Error("open below a file: no error")
	}
	if err := o.Add(apiv1.ReportRequest{At: start}); err == nil {
		t.Error("add: no error, though nothing is on disk")
	}
	if _, err := o.Len(); err == nil {
		t.Error("len: no error")
	}
	if err := o.Flush(t.Context(), nil); err == nil {
		t.Error("flush: no error")
	}
}

func TestFlushSurvivesAReportThatIsGone(t *testing.T) {
	t.Parallel()
	o, dir := open(t)
	add(t, o, 1)
	add(t, o, 2)
	sent := 0
	err := o.Flush(t.Context(), func(context.Context, apiv1.ReportRequest) error {
		sent++
		return os.RemoveAll(dir) // another process of this agent was faster
	})
	if err != nil || sent != 1 {
		t.Errorf("flush: %v, sent %d", err, sent)
	}
}

func TestFlushStopsAtAReportThatCannotBeRead(t *testing.T) {
	t.Parallel()
	o, dir := open(t)
	if err := os.MkdirAll(filepath.Join(dir, "00000000000000000000-x.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := o.Flush(t.Context(), nil); err == nil {
		t.Error("flush: no error")
	}
}
