// Commits and alerts.

package client

import (
	"context"
	"net/url"

	"github.com/certferry/certferry/hub/apiv1"
)

// Commits lists the commits of a branch, newest first: main where branch is empty, servers/NAME, or
// proposals/CERTIFICATE/SERIAL.
func (c *Client) Commits(ctx context.Context, branch string, p Page) (out apiv1.List[apiv1.Commit], err error) {
	v := p.values()
	if branch != "" {
		v.Set("branch", branch)
	}
	return out, c.get(ctx, "/commits", v, &out)
}

// Commit shows the commit whose name starts with prefix, of 7 to 40 digits.
func (c *Client) Commit(ctx context.Context, prefix string) (out apiv1.CommitDetail, err error) {
	return out, c.get(ctx, path("commits", prefix), nil, &out)
}

// CompareCommits shows what changed between two commits; an empty from stands for the parent of to.
func (c *Client) CompareCommits(ctx context.Context, from, to string) (out apiv1.Comparison, err error) {
	v := url.Values{}
	if from != "" {
		v.Set("from", from)
	}
	return out, c.get(ctx, path("commits", to, "diff"), v, &out)
}

// Alerts lists open alerts, newest first; with all, resolved ones too.
func (c *Client) Alerts(ctx context.Context, all bool, p Page) (out apiv1.List[apiv1.Alert], err error) {
	v := p.values()
	if all {
		v.Set("all", "true")
	}
	return out, c.get(ctx, "/alerts", v, &out)
}
