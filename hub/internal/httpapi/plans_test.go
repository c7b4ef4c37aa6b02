package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

func (i *intentLog) PlanBase(_ context.Context, commit string) (apiv1.PlanBase, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return apiv1.PlanBase{Commit: commit, Files: map[string]string{"README.md": strings.Repeat("ab", 20)}}, i.err
}

func (i *intentLog) Plan(_ context.Context, in apiv1.PlanRequest) (apiv1.Plan, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	plan := apiv1.Plan{Commit: strings.Repeat("1", 40), Changed: len(in.Files), Certificates: []apiv1.PlanCertificate{}, Servers: []string{}, Summary: []string{}}
	for _, f := range in.Files {
		plan.Faults = append(plan.Faults, apiv1.PlanFault{Path: f.Path, Line: 3, Message: "no\x1b[2Jsuch\nthing"})
	}
	return plan, i.err
}

// TestPlans passes plans through, and keeps what was submitted from moving the cursor of who reads the answer.
func TestPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.person("vera", apiv1.RoleViewer)
	base := decode[apiv1.PlanBase](t, w.get("/api/v1/plans/base?commit=1a2b3c4", token))
	if base.Commit != "1a2b3c4" || len(base.Files) != 1 {
		t.Errorf("got %+v", base)
	}
	plan := decode[apiv1.Plan](t, w.send(http.MethodPost, "/api/v1/plans", token, apiv1.PlanRequest{
		Files: []apiv1.PlanFile{{Path: "certificates/\x1b.yaml", Content: "x"}},
	}))
	if len(plan.Faults) != 1 || strings.ContainsAny(plan.Faults[0].Path+plan.Faults[0].Message, "\x1b\n") || plan.Faults[0].Line != 3 {
		t.Errorf("got %+v", plan)
	}
	for name, body := range map[string]any{
		"no files":       `{}`,
		"a long path":    apiv1.PlanRequest{Files: []apiv1.PlanFile{{Path: strings.Repeat("x", 251)}}},
		"too many files": apiv1.PlanRequest{Files: make([]apiv1.PlanFile, 5001)},
		"unknown key":    `{"files":[{"path":"a","mode":1}]}`,
	} {
		if r := w.send(http.MethodPost, "/api/v1/plans", token, body); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if r := w.send(http.MethodPost, "/api/v1/plans", token, `{"files":[{"path":"a","content":"`+strings.Repeat("x", 1<<20)+`"}]}`); r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", r.status)
	}
	w.intent.fail(&hub.Error{Class: hub.ErrInvalid, Message: "give another commit"})
	for _, r := range []reply{w.get("/api/v1/plans/base?commit=zz", token), w.send(http.MethodPost, "/api/v1/plans", token, apiv1.PlanRequest{Files: []apiv1.PlanFile{}})} {
		if r.status != http.StatusUnprocessableEntity || r.problem(t).Detail != "give another commit" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
}
