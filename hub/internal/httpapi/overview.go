// Jobs, the audit history and the hub's figures.

package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

func (s *server) addOverview() {
	add(s, operation{
		id: "list-audit", method: http.MethodGet, path: "/audit", tag: "overview",
		summary: "List the audit history, newest first",
	}, s.listAudit)
	add(s, operation{
		id: "get-stats", method: http.MethodGet, path: "/stats", tag: "overview", summary: "Show the hub at a glance",
	}, s.getStats)
}

func (s *server) listAudit(ctx context.Context, _ *call, in *PageInput) (*listOutput[apiv1.AuditEvent], error) {
	events := source[hub.AuditEvent]{
		fetch: func(ctx context.Context, after string, limit int) ([]hub.AuditEvent, error) {
			before, err := keyBefore(after)
			if err != nil {
				return nil, err
			}
			return s.cfg.Data.AuditEvents(ctx, before, limit)
		},
		key: func(e hub.AuditEvent) string { return strconv.FormatInt(e.Seq, 10) },
	}
	return list(ctx, events, *in, func(e hub.AuditEvent) (apiv1.AuditEvent, error) {
		return apiv1.AuditEvent{
			Seq: e.Seq, At: e.At.UTC(), Actor: e.Actor, Action: e.Action, Object: e.Object, Outcome: e.Outcome,
			Address: e.Address, RequestID: e.RequestID, Detail: e.Detail, Hash: e.Hash,
		}, nil
	})
}

func (s *server) getStats(ctx context.Context, _ *call, _ *none) (*output[apiv1.Status], error) {
	snap, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	out := apiv1.Status{
		Version: s.cfg.Version, RepoID: s.cfg.RepoID, MainCommit: snap.Commit, AsOf: s.cfg.Now().UTC(),
		Certificates: map[apiv1.CertificateState]int{},
	}
	if out.Servers, err = s.countServers(ctx, snap); err != nil {
		return nil, err
	}
	if out.Jobs, err = s.cfg.Data.CountJobs(ctx); err != nil {
		return nil, err
	}
	orders, err := s.cfg.Data.LatestOrders(ctx)
	if err != nil {
		return nil, err
	}
	for name, wish := range snap.Certificates {
		out.Certificates[s.stateOf(wish, snap.Issued[name], orders[name].State)]++
	}
	return &output[apiv1.Status]{Body: out}, nil
}

// countServers counts by state, and those that are online or held whatever their state.
func (s *server) countServers(ctx context.Context, snap *gitstore.Snapshot) (map[string]int, error) {
	counts := map[string]int{
		string(hub.ServerPending): 0, string(hub.ServerApproved): 0, string(hub.ServerDisabled): 0, "online": 0, "held": 0,
	}
	after := ""
	for {
		rows, err := s.cfg.Data.Servers(ctx, after, scanPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			counts[string(row.State)]++
			if s.online(row) {
				counts["online"]++
			}
			if wish := snap.Servers[row.Name]; row.Held || (wish != nil && wish.Hold != nil) {
				counts["held"]++
			}
			after = row.Name
		}
		if len(rows) < scanPage {
			return counts, nil
		}
	}
}
