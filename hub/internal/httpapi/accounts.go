// Accounts of people, and the tokens that let servers in.

package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// joinTokenLife is how long a join token may wait for its server.
const joinTokenLife = 30 * time.Minute

func (s *server) addAccounts() {
	add(s, operation{
		id: "list-users", method: http.MethodGet, path: "/users", tag: "users", summary: "List accounts",
	}, s.listUsers)
	add(s, operation{
		id: "create-user", method: http.MethodPost, path: "/users", tag: "users",
		summary: "Make an account", status: http.StatusCreated,
	}, s.createUser)
	add(s, operation{
		id: "create-join-token", method: http.MethodPost, path: "/join-tokens", tag: "servers",
		summary: "Make a token that lets one server register once", status: http.StatusCreated,
	}, s.createJoinToken)
}

func viewUser(u hub.User) apiv1.User {
	return apiv1.User{Name: u.Name, Role: u.Role, Disabled: u.Disabled, CreatedAt: u.CreatedAt.UTC()}
}

func (s *server) listUsers(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.User], error) {
	users := source[hub.User]{
		fetch: s.cfg.Data.Users,
		key:   func(u hub.User) string { return u.Name },
		keep:  holding(in.Query, func(u hub.User) []string { return []string{u.Name} }),
	}
	return list(ctx, users, in.PageInput, func(u hub.User) (apiv1.User, error) { return viewUser(u), nil })
}

func (s *server) createUser(ctx context.Context, c *call, in *input[apiv1.CreateUserRequest]) (*output[apiv1.User], error) {
	u, err := s.cfg.Auth.CreateUser(ctx, c.principal, in.Body.Name, in.Body.Password, in.Body.Role)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.User]{Body: viewUser(u)}, nil
}

func (s *server) createJoinToken(ctx context.Context, c *call, in *input[apiv1.JoinTokenRequest]) (*output[apiv1.JoinToken], error) {
	if err := manifest.ValidName(in.Body.Server); err != nil {
		return nil, invalid("body.server", err.Error())
	}
	// What is wrong with a label should be known now, not when the server registers.
	wish := manifest.Server{
		APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: in.Body.Server, Labels: in.Body.Labels,
	}
	if err := wish.Validate(); err != nil {
		return nil, invalid("body.labels", "keys and values take letters, digits, dots, hyphens, underscores and slashes, 63 at most; 64 labels at most")
	}
	token, hash := auth.NewToken(auth.JoinPrefix)
	now := s.cfg.Now()
	row := hub.JoinToken{
		Hash: hash, Server: in.Body.Server, PreApproved: in.Body.PreApproved, Labels: in.Body.Labels,
		CreatedBy: c.principal.Name, CreatedAt: now, ExpiresAt: now.Add(joinTokenLife),
	}
	event := s.event(c, in.Body.Server, hub.OutcomeOK, fmt.Sprintf("pre-approved: %t", in.Body.PreApproved))
	if err := s.cfg.Data.InsertJoinToken(ctx, row, event); err != nil {
		return nil, err
	}
	return &output[apiv1.JoinToken]{Body: s.shownToken(row, token)}, nil
}

// shownToken is a join token as it is shown this once.
func (s *server) shownToken(row hub.JoinToken, token string) apiv1.JoinToken {
	return apiv1.JoinToken{
		Server: row.Server, Token: token, ExpiresAt: row.ExpiresAt.UTC(), RootFingerprint: s.cfg.RootFingerprint,
		HubURL: s.cfg.PublicURL,
		Command: fmt.Sprintf("certferry-agent enroll --hub %s --name %s --root-fingerprint %s",
			s.cfg.PublicURL, row.Server, s.cfg.RootFingerprint),
	}
}
