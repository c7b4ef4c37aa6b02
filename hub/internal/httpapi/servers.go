// Servers as people see them.

package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// NameInput is the part of an input that names a server.
type NameInput struct {
	Name string `path:"name" maxLength:"100" pattern:"^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$" doc:"The server's name."`
}

type nameBodyInput[T any] struct {
	NameInput

	Body T
}

type nameOptionalInput[T any] struct {
	NameInput

	Body *T `required:"false"`
}

type namePageInput struct {
	NameInput
	PageInput
}

func (s *server) addServers() {
	add(s, operation{
		id: "list-servers", method: http.MethodGet, path: "/servers", tag: "servers", summary: "List servers",
	}, s.listServers)
	add(s, operation{
		id: "get-server", method: http.MethodGet, path: "/servers/{name}", tag: "servers", summary: "Show a server",
	}, s.getServer)
	add(s, operation{
		id: "list-server-history", method: http.MethodGet, path: "/servers/{name}/history", tag: "servers",
		summary: "List the commits of a server's branch, newest first",
	}, s.serverHistory)
	add(s, operation{
		id: "approve-server", method: http.MethodPost, path: "/servers/{name}/approve", tag: "servers",
		summary: "Let a server receive certificates, after comparing its key's fingerprint",
	}, s.approveServer)
	add(s, operation{
		id: "rollback-server", method: http.MethodPost, path: "/servers/{name}/rollback", tag: "servers",
		summary: "Take a server back to an earlier commit of its branch and hold it there",
	}, s.rollbackServer)
	add(s, operation{
		id: "hold-server", method: http.MethodPost, path: "/servers/{name}/hold", tag: "servers",
		summary: "Keep a server at what it has",
	}, s.holdServer)
	add(s, operation{
		id: "resume-server", method: http.MethodPost, path: "/servers/{name}/resume", tag: "servers",
		summary: "End the hold of a server",
	}, s.resumeServer)
}

func (s *server) listServers(ctx context.Context, _ *call, in *searchInput) (*listOutput[apiv1.Server], error) {
	v, err := s.newView()
	if err != nil {
		return nil, err
	}
	servers := source[hub.Server]{
		fetch: s.cfg.Data.Servers,
		key:   func(row hub.Server) string { return row.Name },
		keep:  holding(in.Query, func(row hub.Server) []string { return []string{row.Name, row.Facts.Hostname} }),
	}
	return list(ctx, servers, in.PageInput, func(row hub.Server) (apiv1.Server, error) { return v.server(ctx, row) })
}

func (s *server) getServer(ctx context.Context, _ *call, in *NameInput) (*output[apiv1.Server], error) {
	return s.showServer(ctx, in.Name)
}

// showServer reads everything anew: it also answers what changed a server.
func (s *server) showServer(ctx context.Context, name string) (*output[apiv1.Server], error) {
	row, err := s.knownServer(ctx, name)
	if err != nil {
		return nil, err
	}
	v, err := s.newView()
	if err != nil {
		return nil, err
	}
	server, err := v.server(ctx, row)
	if err != nil {
		return nil, err
	}
	return &output[apiv1.Server]{Body: server}, nil
}

func (s *server) knownServer(ctx context.Context, name string) (hub.Server, error) {
	row, err := s.cfg.Data.Server(ctx, name)
	return row, named(err, "there is no server of this name: list them, or enrol it")
}

func (s *server) serverHistory(ctx context.Context, _ *call, in *namePageInput) (*listOutput[apiv1.Commit], error) {
	if _, err := s.knownServer(ctx, in.Name); err != nil {
		return nil, err
	}
	commits, err := s.cfg.Fleet.ServerHistory(in.Name, depth(in.PageInput))
	if err = absentIsEmpty(err); err != nil {
		return nil, err
	}
	return historyPage(commits, in.PageInput, func(c gitstore.ServerCommit) apiv1.Commit {
		v := viewCommit(c.Commit)
		if c.Manifest != nil {
			v.Generation = c.Manifest.Generation
		}
		return v
	})
}

func (s *server) approveServer(ctx context.Context, c *call, in *nameBodyInput[apiv1.ApproveRequest]) (*output[apiv1.Server], error) {
	row, err := s.knownServer(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	// People compare fingerprints in groups, and copy them so.
	fingerprint := strings.ToUpper(strings.NewReplacer(" ", "", ":", "").Replace(in.Body.Fingerprint))
	if row.State != hub.ServerApproved || fingerprint != row.Fingerprint {
		event := s.event(c, row.Name, hub.OutcomeOK, "key "+row.Fingerprint)
		if err := s.cfg.Data.ApproveServer(ctx, row.Name, fingerprint, event); err != nil {
			return nil, err
		}
		s.cfg.changed()
		s.cfg.ring(row.Name)
	}
	return s.showServer(ctx, row.Name)
}

func (s *server) rollbackServer(ctx context.Context, c *call, in *nameOptionalInput[apiv1.RollbackRequest]) (*output[apiv1.Server], error) {
	if _, err := s.knownServer(ctx, in.Name); err != nil {
		return nil, err
	}
	commit, reason := rollbackOf(in.Body)
	if err := s.cfg.Intent.RollbackServer(ctx, c.principal, c.requestID, in.Name, commit, reason); err != nil {
		return nil, err
	}
	return s.showServer(ctx, in.Name)
}

func (s *server) holdServer(ctx context.Context, c *call, in *nameOptionalInput[apiv1.ReasonRequest]) (*output[apiv1.Server], error) {
	if _, err := s.knownServer(ctx, in.Name); err != nil {
		return nil, err
	}
	if err := s.cfg.Intent.HoldServer(ctx, c.principal, c.requestID, in.Name, reasonIn(in.Body)); err != nil {
		return nil, err
	}
	return s.showServer(ctx, in.Name)
}

func (s *server) resumeServer(ctx context.Context, c *call, in *NameInput) (*output[apiv1.Server], error) {
	if _, err := s.knownServer(ctx, in.Name); err != nil {
		return nil, err
	}
	if err := s.cfg.Intent.ResumeServer(ctx, c.principal, c.requestID, in.Name); err != nil {
		return nil, err
	}
	return s.showServer(ctx, in.Name)
}

// rollbackOf reads the body of both rollbacks, which may be absent.
func rollbackOf(in *apiv1.RollbackRequest) (commit, reason string) {
	if in == nil {
		return "", ""
	}
	return in.Commit, in.Reason
}
