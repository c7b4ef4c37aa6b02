// Alerts: what the hub tells people without being asked.

package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// Alerts keeps alerts.
type Alerts interface {
	Raise(ctx context.Context, a hub.Alert) error
	Clear(ctx context.Context, kind hub.AlertKind, object string) error
	// Alerts lists those with ids below before (0 for all), newest first.
	Alerts(ctx context.Context, openOnly bool, before int64, limit int) ([]hub.Alert, error)
}

func (s *server) addAlerts() {
	add(s, operation{
		id: "list-alerts", method: http.MethodGet, path: "/alerts", tag: "overview", summary: "List alerts, newest first",
	}, s.listAlerts)
}

type alertsInput struct {
	PageInput

	All bool `query:"all" doc:"Lists resolved alerts too."`
}

func (s *server) listAlerts(ctx context.Context, _ *call, in *alertsInput) (*listOutput[apiv1.Alert], error) {
	alerts := source[hub.Alert]{
		fetch: func(ctx context.Context, after string, limit int) ([]hub.Alert, error) {
			before, err := keyBefore(after)
			if err != nil {
				return nil, err
			}
			return s.cfg.Data.Alerts(ctx, !in.All, before, limit)
		},
		key: func(a hub.Alert) string { return strconv.FormatInt(a.ID, 10) },
	}
	return list(ctx, alerts, in.PageInput, func(a hub.Alert) (apiv1.Alert, error) {
		return apiv1.Alert{
			ID: a.ID, Kind: string(a.Kind), Object: oneLine(a.Object), Level: string(a.Level), Message: lines(a.Message),
			State: string(a.State), Count: a.Count, FirstAt: a.FirstAt, LastAt: a.LastAt, ResolvedAt: stamp(a.ResolvedAt),
		}, nil
	})
}

// keyBefore reads the key of a listing that goes down by numbers.
func keyBefore(after string) (int64, error) {
	if after == "" {
		return 0, nil
	}
	before, err := strconv.ParseInt(after, 10, 64)
	if err != nil || before < 1 {
		return 0, invalid("query.after", "give next of the page before")
	}
	return before, nil
}
