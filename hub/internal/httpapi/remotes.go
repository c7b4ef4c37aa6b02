// Remotes: how the hub's copies on other Git hosts are doing.

package httpapi

import (
	"context"
	"net/http"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// Remotes knows the hub's Git remotes.
type Remotes interface {
	// Status is in the order of the configuration.
	Status() []hub.RemoteStatus
}

func (s *server) addRemotes() {
	add(s, operation{
		id: "list-remotes", method: http.MethodGet, path: "/remotes", tag: "overview",
		summary: "List the Git remotes and how they are doing",
	}, s.listRemotes)
}

func (s *server) listRemotes(ctx context.Context, _ *call, in *PageInput) (*listOutput[apiv1.Remote], error) {
	var all []hub.RemoteStatus
	if s.cfg.Remotes != nil {
		all = s.cfg.Remotes.Status()
	}
	remotes := source[hub.RemoteStatus]{
		fetch: func(_ context.Context, after string, limit int) ([]hub.RemoteStatus, error) {
			start := 0
			for i, r := range all {
				if r.Name == after {
					start = i + 1
				}
			}
			return all[start:min(start+limit, len(all))], nil
		},
		key: func(r hub.RemoteStatus) string { return r.Name },
	}
	return list(ctx, remotes, *in, func(r hub.RemoteStatus) (apiv1.Remote, error) {
		return apiv1.Remote{
			Name: r.Name, URL: r.URL, Intent: r.Intent, State: string(r.State), Behind: r.Behind, LastOK: stamp(r.LastOK),
			LastError: oneLine(r.LastError), LastErrorAt: stamp(r.LastErrorAt), Failures: r.Failures, NextTry: stamp(r.NextTry),
		}, nil
	})
}
