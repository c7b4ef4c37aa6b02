// Plans.

package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/certferry/certferry/hub/apiv1"
)

// PlanBase lists the files of main that people write, at commit or, where that is empty, at the newest.
func (c *Client) PlanBase(ctx context.Context, commit string) (out apiv1.PlanBase, err error) {
	v := url.Values{}
	if commit != "" {
		v.Set("commit", commit)
	}
	return out, c.get(ctx, "/plans/base", v, &out)
}

// Plan says what changes would lead to. It changes nothing, and is asked again where the hub does not answer.
func (c *Client) Plan(ctx context.Context, in apiv1.PlanRequest) (out apiv1.Plan, err error) {
	return out, c.send(ctx, call{method: http.MethodPost, path: "/plans", in: in, idempotent: true}, &out)
}
