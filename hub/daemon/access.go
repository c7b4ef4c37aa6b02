package daemon

import (
	"context"
	"errors"
	"log/slog"

	"github.com/certferry/certferry/gitstore/gitserve"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// gitAuth knows the callers of the Git door.
type gitAuth interface {
	AuthenticateGit(ctx context.Context, name, secret string) (hub.Principal, error)
}

// gitAccess says who may see what of the repository: an agent its own server's branch, people everything.
type gitAccess struct {
	auth gitAuth
	log  *slog.Logger
}

// Authorize implements gitserve.Access.
func (a gitAccess) Authorize(ctx context.Context, username, password string) (gitserve.Grant, error) {
	caller, err := a.auth.AuthenticateGit(ctx, username, password)
	switch {
	case errors.Is(err, hub.ErrUnauthenticated):
		a.log.InfoContext(ctx, "git access denied", "error", err)
		return gitserve.Grant{}, gitserve.ErrDenied
	case err != nil:
		return gitserve.Grant{}, err
	}
	switch caller.Kind {
	case hub.Agent:
		own := manifest.ServerBranch(caller.Name)
		return gitserve.Grant{Name: "agent:" + caller.Name, Refs: []string{own}, Head: own}, nil
	case hub.Person:
		pushes := caller.Role == apiv1.RoleOperator || caller.Role == apiv1.RoleAdmin
		return gitserve.Grant{Name: caller.Name, All: true, Head: manifest.MainBranch, Push: pushes, Role: string(caller.Role)}, nil
	case hub.Anonymous:
	}
	return gitserve.Grant{}, gitserve.ErrDenied
}
