package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/certferry/certferry/hub"
)

// Before the end of what a held server serves, people are told: a hold is meant to be short, and nothing renews under it.
const (
	holdWarning  = 14 * day
	holdCritical = 3 * day
)

// watchHold tells people of a server that is held while what it has comes to its end, and that it no longer is.
func (r *Reconciler) watchHold(ctx context.Context, server string, held bool) error {
	level, message, err := r.holdLevel(server, held)
	if err != nil {
		return err
	}
	r.mu.Lock()
	told := r.holds[server]
	if level == "" {
		delete(r.holds, server)
	} else {
		r.holds[server] = level
	}
	r.mu.Unlock()
	if level == told {
		return nil
	}
	if level == "" {
		return r.cfg.Alerts.Clear(ctx, hub.AlertHoldExpiring, server)
	}
	return r.cfg.Alerts.Raise(ctx, hub.Alert{Kind: hub.AlertHoldExpiring, Object: server, Level: level, Message: message})
}

func (r *Reconciler) holdLevel(server string, held bool) (level hub.AlertLevel, message string, err error) {
	if !held {
		return "", "", nil
	}
	tip, err := r.cfg.Store.ServerTip(server)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	var certificate string
	var end time.Time
	for i := range tip.Manifest.Deployments {
		if d := &tip.Manifest.Deployments[i]; end.IsZero() || d.NotAfter.Before(end) {
			certificate, end = d.Certificate, d.NotAfter
		}
	}
	switch left := end.Sub(r.cfg.Now()); {
	case end.IsZero() || left > holdWarning:
		return "", "", nil
	case left > holdCritical:
		level = hub.AlertWarning
	default:
		level = hub.AlertCritical
	}
	return level, fmt.Sprintf("server %s is held and does not get renewals: its certificate %s ends on %s; certferry server resume %s",
		server, certificate, end.UTC().Format(time.DateOnly), server), nil
}
