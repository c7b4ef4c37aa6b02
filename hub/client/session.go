// A person's session: it starts with a login, is refreshed through the cookie jar and ends with a logout.

package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/certferry/certferry/hub/apiv1"
)

// startSession sends a login or the setup and keeps the session that comes of it.
func (c *Client) startSession(ctx context.Context, path string, in any) (apiv1.Session, error) {
	var out apiv1.Session
	if err := c.send(ctx, call{method: http.MethodPost, path: path, in: in, bare: true}, &out); err != nil {
		return apiv1.Session{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return out, c.keep(out)
}

// Refresh gets a new access token by the refresh token in the jar.
func (c *Client) Refresh(ctx context.Context) (apiv1.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refreshLocked(ctx)
}

// refresh gets a new access token unless another request did so since stale was read.
func (c *Client) refresh(ctx context.Context, stale string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil && c.session.AccessToken != stale {
		return nil
	}
	_, err := c.refreshLocked(ctx)
	return err
}

func (c *Client) refreshLocked(ctx context.Context) (apiv1.Session, error) {
	var out apiv1.Session
	if err := c.send(ctx, call{method: http.MethodPost, path: refreshPath, bare: true}, &out); err != nil {
		return apiv1.Session{}, fmt.Errorf("refresh session: %w", err)
	}
	return out, c.keep(out)
}

// keep stores a new session; c.mu is held.
func (c *Client) keep(s apiv1.Session) error {
	c.session = &Session{
		AccessToken: s.AccessToken, ExpiresAt: s.ExpiresAt, RefreshToken: c.refreshToken(), User: s.User.Name,
	}
	return c.tell(*c.session)
}

// forget drops the session.
func (c *Client) forget() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = nil
	c.setRefreshToken("")
	return c.tell(Session{})
}

func (c *Client) tell(s Session) error {
	if c.onSession == nil {
		return nil
	}
	if err := c.onSession(s); err != nil {
		return fmt.Errorf("store session: %w", err)
	}
	return nil
}

func (c *Client) canRefresh() bool { return c.refreshToken() != "" }

func (c *Client) refreshURL() *url.URL {
	u := *c.base
	u.Path += apiv1.Prefix + refreshPath
	return &u
}

// refreshToken answers the token in the jar, or "".
func (c *Client) refreshToken() string {
	for _, ck := range c.jar.Cookies(c.refreshURL()) {
		for _, name := range refreshCookies {
			if ck.Name == name {
				return ck.Value
			}
		}
	}
	return ""
}

// setRefreshToken puts a stored token into the jar; "" removes it.
func (c *Client) setRefreshToken(token string) {
	name := refreshCookies[1]
	secure := c.base.Scheme == "https"
	if secure {
		name = refreshCookies[0]
	}
	ck := &http.Cookie{ //nolint:gosec // without TLS a Secure cookie would not be sent
		Name: name, Value: token, Path: apiv1.Prefix + authPath, HttpOnly: true, Secure: secure,
		SameSite: http.SameSiteStrictMode,
	}
	if token == "" {
		ck.MaxAge = -1
	}
	c.jar.SetCookies(c.refreshURL(), []*http.Cookie{ck})
}

// GitCredential answers the name and the password that the hub's Git door takes: the account and an access token, which
// is refreshed where it has expired.
func (c *Client) GitCredential(ctx context.Context) (user, password string, err error) {
	me, err := c.Me(ctx) // refreshes an expired token
	if err != nil {
		return "", "", err
	}
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	if session != nil {
		return me.Name, session.AccessToken, nil
	}
	password, err = c.token(ctx)
	return me.Name, password, err
}
