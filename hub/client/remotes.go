// Git remotes.

package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// Remotes lists the hub's Git remotes and how they are doing.
func (c *Client) Remotes(ctx context.Context, p Page) (out apiv1.List[apiv1.Remote], err error) {
	return out, c.get(ctx, "/remotes", p.values(), &out)
}
