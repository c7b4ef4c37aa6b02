// Plans: what a change of main would lead to, before anybody makes it.

package httpapi

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub/apiv1"
)

// Plans is the part of Intent that looks ahead. It changes nothing.
type Plans interface {
	PlanBase(ctx context.Context, commit string) (apiv1.PlanBase, error)
	Plan(ctx context.Context, request apiv1.PlanRequest) (apiv1.Plan, error)
}

func (s *server) addPlans() {
	add(s, operation{
		id: "get-plan-base", method: http.MethodGet, path: "/plans/base", tag: "commits",
		summary: "List the files of main that people write, to compare a working tree with",
	}, s.planBase)
	add(s, operation{
		id: "create-plan", method: http.MethodPost, path: "/plans", tag: "commits",
		summary: "Say what changes of main would lead to, without making them",
	}, s.plan)
}

type planBaseInput struct {
	Commit string `query:"commit" maxLength:"40" doc:"7 to 40 digits of a commit of main; the newest by default."`
}

func (s *server) planBase(ctx context.Context, _ *call, in *planBaseInput) (*output[apiv1.PlanBase], error) {
	base, err := s.cfg.Intent.PlanBase(ctx, in.Commit)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.PlanBase]{Body: base}, nil
}

type planInput struct {
	Body apiv1.PlanRequest
}

func (s *server) plan(ctx context.Context, _ *call, in *planInput) (*output[apiv1.Plan], error) {
	plan, err := s.cfg.Intent.Plan(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	for i := range plan.Faults {
		plan.Faults[i].Path, plan.Faults[i].Message = oneLine(plan.Faults[i].Path), oneLine(plan.Faults[i].Message)
	}
	return &output[apiv1.Plan]{Body: plan}, nil
}
