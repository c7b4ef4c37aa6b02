// Setup, login, refresh, logout. The refresh token travels in a cookie that only these paths see; the access token
// in the answer's body.

package httpapi

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

const (
	// Browsers take a cookie of the first name over TLS only.
	secureCookie = "__Secure-rt"
	clearCookie  = "rt"
	cookiePath   = apiv1.Prefix + "/auth"
)

type none struct{}

type output[T any] struct{ Body T }

type input[T any] struct{ Body T }

type sessionOutput struct {
	SetCookie []http.Cookie `header:"Set-Cookie" hidden:"true"`
	Body      apiv1.Session
}

type logoutOutput struct {
	SetCookie []http.Cookie `header:"Set-Cookie" hidden:"true"`
}

func (s *server) addSessions() {
	add(s, operation{
		id: "get-setup", method: http.MethodGet, path: "/auth/setup", tag: "session",
		summary: "Does the first administrator still have to be made?",
	}, s.getSetup)
	add(s, operation{
		id: "setup", method: http.MethodPost, path: "/auth/setup", tag: "session",
		summary: "Make the first administrator with the one-time setup code, and log in",
	}, s.setup)
	add(s, operation{
		id: "login", method: http.MethodPost, path: "/auth/login", tag: "session", summary: "Log in",
	}, s.login)
	add(s, operation{
		id: "refresh", method: http.MethodPost, path: "/auth/refresh", tag: "session",
		summary: "Get a new access token by the refresh cookie",
	}, s.refresh)
	add(s, operation{
		id: "logout", method: http.MethodPost, path: "/auth/logout", tag: "session",
		summary: "End the session", status: http.StatusNoContent,
	}, s.logout)
	add(s, operation{
		id: "get-me", method: http.MethodGet, path: "/auth/me", tag: "session", summary: "Who am I?",
	}, s.getMe)
}

func (s *server) cookieName() string {
	if s.secure {
		return secureCookie
	}
	return clearCookie
}

// cookie carries a refresh token; an empty one removes it.
func (s *server) cookie(l auth.Login) http.Cookie {
	ck := http.Cookie{ //nolint:gosec // without TLS a Secure cookie would not be sent
		Name: s.cookieName(), Value: l.Refresh, Path: cookiePath, HttpOnly: true, Secure: s.secure,
		SameSite: http.SameSiteStrictMode, MaxAge: -1,
	}
	if l.Refresh != "" {
		ck.MaxAge = max(1, int(l.RefreshExpiresAt.Sub(s.cfg.Now()).Seconds()))
	}
	return ck
}

func (s *server) session(l auth.Login) *sessionOutput {
	out := &sessionOutput{Body: apiv1.Session{
		AccessToken: l.Access, ExpiresAt: l.ExpiresAt.UTC(), User: viewUser(l.User),
	}}
	if l.Refresh != "" {
		// Within the grace after a rotation there is no new refresh token: the one that another tab got stays.
		out.SetCookie = []http.Cookie{s.cookie(l)}
	}
	return out
}

func (s *server) getSetup(ctx context.Context, _ *call, _ *none) (*output[apiv1.SetupState], error) {
	needed, err := s.cfg.Auth.SetupNeeded(ctx)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.SetupState]{Body: apiv1.SetupState{Required: needed}}, nil
}

func (s *server) setup(ctx context.Context, _ *call, in *input[apiv1.SetupRequest]) (*sessionOutput, error) {
	l, err := s.cfg.Auth.Setup(ctx, in.Body.Code, in.Body.Name, in.Body.Password)
	if err != nil {
		return nil, err
	}
	return s.session(l), nil
}

func (s *server) login(ctx context.Context, c *call, in *input[apiv1.LoginRequest]) (*sessionOutput, error) {
	l, err := s.cfg.Auth.Login(ctx, in.Body.Name, in.Body.Password, c.address)
	if err != nil {
		return nil, err
	}
	return s.session(l), nil
}

func (s *server) refresh(ctx context.Context, c *call, _ *none) (*sessionOutput, error) {
	if c.refresh == "" {
		return nil, &hub.Error{Class: hub.ErrUnauthenticated, Message: "there is no session to refresh: log in"}
	}
	l, err := s.cfg.Auth.Refresh(ctx, c.refresh)
	if err != nil {
		return nil, err
	}
	return s.session(l), nil
}

func (s *server) logout(ctx context.Context, c *call, _ *none) (*logoutOutput, error) {
	if err := s.cfg.Auth.Logout(ctx, c.principal.SessionID); err != nil {
		return nil, err
	}
	return &logoutOutput{SetCookie: []http.Cookie{s.cookie(auth.Login{})}}, nil
}

func (s *server) getMe(ctx context.Context, c *call, _ *none) (*output[apiv1.User], error) {
	u, err := s.cfg.Data.User(ctx, c.principal.Name)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.User]{Body: viewUser(u)}, nil
}
