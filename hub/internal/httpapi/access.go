// Who may call what. The table below is the whole of it: what is not in it is denied, and New refuses to start with
// a route that it does not name.

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// who is a set of callers.
type who uint8

const (
	viewer who = 1 << iota
	operator
	admin
	agent
	// anonymous routes do not look at credentials; what is in the body or cookie is their authority.
	anonymous

	viewers   = viewer | operator | admin
	operators = operator | admin
	admins    = admin
)

// access is the authorization table: operation id to callers. An agent's operations act on the server of its
// credential and on no other, as they take no server's name.
var access = map[string]who{
	"get-setup": anonymous,
	"setup":     anonymous,
	"login":     anonymous,
	"refresh":   anonymous,
	"logout":    viewers,
	"get-me":    viewers,

	"list-users":  admins,
	"create-user": admins,

	"create-join-token": operators,
	"register-server":   anonymous,
	"heartbeat":         agent,
	"report":            agent,
	"offer-server-key":  agent,

	"send-certificate-request": agent,

	"rotate-server-key": operators,

	"list-servers":        viewers,
	"get-server":          viewers,
	"list-server-history": viewers,
	"approve-server":      operators,
	"rollback-server":     operators,
	"resume-server":       operators,

	"list-certificates":        viewers,
	"create-certificate":       operators,
	"get-certificate":          viewers,
	"list-certificate-history": viewers,
	"renew-certificate":        operators,
	"rollback-certificate":     operators,
	"renew-all":                operators,
	"pause-certificate":        operators,
	"revoke-certificate":       operators,
	"resume-certificate":       operators,

	"preflight-certificate": operators,
	"preflight":             operators,

	"list-rollouts":    viewers,
	"get-rollout":      viewers,
	"pause-rollout":    operators,
	"resume-rollout":   operators,
	"promote-rollout":  operators,
	"abort-rollout":    operators,
	"list-proposals":   viewers,
	"get-proposal":     viewers,
	"approve-proposal": operators,
	"reject-proposal":  operators,
	"rollback-fleet":   operators,
	"resume-fleet":     operators,
	"hold-server":      operators,

	"list-commits":    viewers,
	"get-commit":      viewers,
	"compare-commits": viewers,
	"list-alerts":     viewers,
	"get-plan-base":   viewers,
	"create-plan":     viewers,
	"list-remotes":    viewers,

	"list-watches":           viewers,
	"list-endpoints":         viewers,
	"create-endpoint":        operators,
	"delete-endpoint":        operators,
	"get-certificate-stats":  viewers,
	"get-certificate-report": viewers,

	"list-dns-providers":  viewers,
	"list-credentials":    viewers,
	"get-credential":      viewers,
	"create-credential":   admins,
	"replace-credential":  admins,
	"delete-credential":   admins,
	"test-credential":     operators,
	"get-credential-test": viewers,

	"list-issuers":       viewers,
	"get-issuer":         viewers,
	"create-issuer":      admins,
	"replace-issuer":     admins,
	"delete-issuer":      admins,
	"get-issuer-account": operators,
	"deactivate-account": admins,

	"list-jobs":   viewers,
	"get-job":     viewers,
	"get-job-log": viewers,
	"cancel-job":  operators,
	"list-audit":  operators,
	"get-stats":   viewers,

	// Outside of the versioned API. The Git handler asks for credentials itself, by its own protocol.
	"healthz": anonymous,
	"readyz":  anonymous,
	"openapi": anonymous,
	"crl":     anonymous,
	"root":    anonymous,
	"git":     anonymous,
}

// allows says whether p is among w.
func (w who) allows(p hub.Principal) bool {
	switch p.Kind {
	case hub.Agent:
		return w&agent != 0 && p.Name != ""
	case hub.Person:
		switch p.Role {
		case apiv1.RoleViewer:
			return w&viewer != 0
		case apiv1.RoleOperator:
			return w&operator != 0
		case apiv1.RoleAdmin:
			return w&admin != 0
		}
	case hub.Anonymous:
	}
	return false
}

// guard runs before each operation, before its body is read.
func (s *server) guard(ctx huma.Context, next func(huma.Context)) {
	c := callOf(ctx.Context())
	c.operation = ctx.Operation().OperationID
	allowed, known := access[c.operation]
	if known && allowed&anonymous != 0 {
		next(ctx)
		return
	}
	principal, err := s.authenticate(ctx.Context(), ctx.Header("Authorization"))
	if err == nil {
		c.principal = principal
		if !known || !allowed.allows(principal) {
			err = &hub.Error{Class: hub.ErrForbidden, Message: forbiddenText(principal, allowed)}
		}
	}
	if err == nil {
		next(ctx)
		return
	}
	s.deny(ctx, c, err)
}

// deny answers a caller that may not.
func (s *server) deny(ctx huma.Context, c *call, err error) {
	p := problemOf(err, c.requestID)
	if isDenial(p.Status) {
		p = s.refuse(ctx.Context(), c, objectOf(ctx), p)
	} else {
		s.logFault(ctx.Context(), c, err)
	}
	_, w := unwrap(ctx)
	writeProblem(w, p)
}

// authenticate finds out who sends a request.
func (s *server) authenticate(ctx context.Context, header string) (hub.Principal, error) {
	if header == "" {
		return hub.Principal{}, &hub.Error{Class: hub.ErrUnauthenticated, Message: sentences[http.StatusUnauthorized]}
	}
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return hub.Principal{}, &hub.Error{
			Class: hub.ErrUnauthenticated, Message: "the Authorization header must read: Bearer and the token",
		}
	}
	p, err := s.cfg.Auth.Authenticate(ctx, token)
	if err != nil {
		return hub.Principal{}, err
	}
	if p.Kind != hub.Person && p.Kind != hub.Agent {
		return hub.Principal{}, errors.New("authenticate: nobody was named")
	}
	return p, nil
}

func forbiddenText(p hub.Principal, allowed who) string {
	switch {
	case p.Kind == hub.Agent:
		return "an agent's credential may report for its own server only"
	case allowed&viewers == 0:
		return "only agents may call this"
	case allowed&operator != 0:
		return "this needs the role operator or admin"
	}
	return "this needs the role admin"
}

// objectOf names what a request is about for the audit history, where the name can be one.
func objectOf(ctx huma.Context) string {
	name := ctx.Param("name")
	if name == "" {
		name = ctx.Param("id")
	}
	if manifest.ValidName(name) != nil {
		return ""
	}
	return name
}
