package database_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// waiting claims the job that is due, and puts it off for the request of web-1.
func (w *world) waiting(certificate string) (hub.Job, hub.CertificateRequest) {
	w.t.Helper()
	job := w.enqueue(certificate)
	w.claim()
	want := hub.CertificateRequest{
		Certificate: certificate, Server: "web-1", JobID: job.ID, Names: []string{certificate, "www." + certificate}, KeyType: "ecdsa-p256",
	}
	asked, err := w.AskCSR(w.t.Context(), want)
	w.must(err)
	w.must(w.PutOffForCSR(w.t.Context(), job.ID, w.clock().Add(time.Hour), "waits"))
	return job, asked
}

func (w *world) asked(server string) []hub.CertificateRequest {
	w.t.Helper()
	all, err := w.AskedCSRs(w.t.Context(), server)
	w.must(err)
	return all
}

func TestCSRLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	job, asked := w.waiting("a.example")
	if asked.ID == "" || !asked.AskedAt.Equal(start) || asked.Answered() {
		t.Errorf("asked %+v", asked)
	}
	got, err := w.CSR(ctx, asked.ID)
	if diff := cmp.Diff(asked, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if diff := cmp.Diff([]hub.CertificateRequest{asked}, w.asked("web-1")); diff != "" {
		t.Error(diff)
	}
	if len(w.asked("web-2")) != 0 || w.claim() != "" {
		t.Error("another server is asked, or the job is due")
	}
	if again, err := w.AskCSR(ctx, asked); err != nil || again.ID != asked.ID {
		t.Errorf("asked again: %+v, %v", again, err)
	}

	event := hub.AuditEvent{Actor: "agent:web-1", Action: "send-certificate-request", Object: "a.example"}
	w.must(w.RefuseCSR(ctx, asked.ID, "web-1", "no", event))
	w.must(w.RefuseCSR(ctx, asked.ID, "web-1", "no", event))
	w.must(w.PutOffForCSR(ctx, w.claimed("a.example"), w.clock().Add(time.Hour), "web-1 does not"))
	answer := hub.CertificateRequest{ID: asked.ID, Server: "web-1", CSR: []byte{1, 0, 2}, SPKISHA256: "s"}
	w.must(w.AnswerCSR(ctx, answer, event))
	w.must(w.AnswerCSR(ctx, hub.CertificateRequest{ID: asked.ID, Server: "web-1", CSR: []byte{3}, SPKISHA256: "s"}, event))
	w.fails(w.AnswerCSR(ctx, hub.CertificateRequest{ID: asked.ID, Server: "web-1", CSR: []byte{3}, SPKISHA256: "t"}, event), hub.ErrConflict)
	w.must(w.RefuseCSR(ctx, asked.ID, "web-1", "too late", event))
	w.fails(w.AnswerCSR(ctx, hub.CertificateRequest{ID: asked.ID, Server: "web-2", CSR: []byte{3}, SPKISHA256: "t"}, event), hub.ErrNotFound)
	w.fails(w.RefuseCSR(ctx, "x", "web-1", "no", event), hub.ErrNotFound)
	asked, err = w.AskCSR(ctx, asked)
	if err != nil || string(asked.CSR) != "\x01\x00\x02" || asked.SPKISHA256 != "s" || asked.Refusal != "" || asked.AnsweredAt.IsZero() {
		t.Errorf("answered %+v, %v", asked, err)
	}
	if len(w.asked("web-1")) != 0 || w.claim() != "a.example" {
		t.Error("the request is still asked for, or the job does not go on")
	}
	events, err := w.AuditEvents(ctx, 0, 10)
	if err != nil || len(events) != 2 {
		t.Errorf("%d audit events, want those of the refusal and of the answer, once each: %v", len(events), err)
	}

	// Another wish for the certificate: the answer counts no more.
	asked.NewKey = true
	other, err := w.AskCSR(ctx, asked)
	if err != nil || other.ID == asked.ID || other.Answered() {
		t.Errorf("asked otherwise: %+v, %v", other, err)
	}
	if _, err := w.CSR(ctx, asked.ID); err == nil {
		t.Error("what was asked before is still known")
	}
	w.must(w.FinishJob(ctx, job.ID))
	if len(w.asked("web-1")) != 0 {
		t.Error("asked for a job that is over")
	}
}

// claimed is claim for the job's id.
func (w *world) claimed(certificate string) string {
	w.t.Helper()
	job, found, err := w.ClaimJob(w.t.Context(), nil)
	w.must(err)
	if !found || job.Certificate != certificate {
		w.t.Fatalf("claimed %+v, want %s", job, certificate)
	}
	return job.ID
}

// An answer that comes between the order's question and its wait is not slept over.
func TestCSRComesBeforeTheWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	job := w.enqueue("a.example")
	w.claim()
	asked, err := w.AskCSR(ctx, hub.CertificateRequest{Certificate: "a.example", Server: "web-1", JobID: job.ID, Names: []string{"a.example"}, KeyType: "ecdsa-p256"})
	w.must(err)
	w.must(w.AnswerCSR(ctx, hub.CertificateRequest{ID: asked.ID, Server: "web-1", CSR: []byte{1}, SPKISHA256: "s"}, hub.AuditEvent{Action: "test"}))
	w.must(w.PutOffForCSR(ctx, job.ID, w.clock().Add(time.Hour), "waits"))
	if got := w.job(job.ID); got.State != apiv1.JobWaiting || got.Attempts != 0 || got.Error != "waits" {
		t.Errorf("job %+v", got)
	}
	if w.claim() != "a.example" {
		t.Error("the job waits for what is there")
	}
	w.fails(w.PutOffForCSR(ctx, "x", w.clock(), "waits"), hub.ErrNotFound)
}
