package forge

import "time"

// Hurry makes a client's pauses short.
func (c *Client) Hurry() *Client {
	c.delay = time.Millisecond
	return c
}
