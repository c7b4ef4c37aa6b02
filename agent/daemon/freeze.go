// This file finds out that the remotes hold newer states back: by what the hub says in its heartbeats, and by the time
// until which the newest state was meant to be fresh.

package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/certferry/certferry/agent/internal/state"
)

// freezeAfter is how long the remotes may show less than the hub says before that is an alarm.
const freezeAfter = 5 * time.Minute

// expect notes what the hub says the server's branch holds, and tells whether that is newer than what was seen.
func (a *Agent) expect(ctx context.Context, generation uint64) (behind bool) {
	floor, err := a.dir.Floor()
	if err != nil {
		return false
	}
	before, err := a.dir.Expected()
	if err != nil {
		a.log.WarnContext(ctx, "expected state not readable", slog.Any("error", err))
	}
	var now state.Expected
	if generation > floor.Generation {
		now = state.Expected{Generation: generation, Seen: floor.Generation, Since: before.Since}
		if before.Since.IsZero() || before.Seen != floor.Generation {
			now.Since = a.env.Now().UTC()
		}
	}
	if now != before {
		if err := a.dir.SaveExpected(now); err != nil {
			a.log.WarnContext(ctx, "expected state not stored", slog.Any("error", err))
		}
	}
	return generation > floor.Generation
}

// expectsNewer says whether the hub told of a newer state than floor.
func (a *Agent) expectsNewer(floor state.Floor) bool {
	e, err := a.dir.Expected()
	return err == nil && e.Generation > floor.Generation
}

// alarm says in one sentence that newer states are held back; empty where nothing speaks for it. The server goes on
// serving what it has.
func (a *Agent) alarm(progress state.Progress, floor state.Floor) string {
	now := a.env.Now()
	if progress.Held {
		return "" // this server's administrator wants it so
	}
	if e, err := a.dir.Expected(); err == nil && e.Generation > floor.Generation && e.Seen == floor.Generation && now.Sub(e.Since) > freezeAfter {
		return fmt.Sprintf("the hub has had generation %d since %s at the latest, the Git remotes show %d: they are behind, or hold newer states back",
			e.Generation, e.Since.Format(time.RFC3339), floor.Generation)
	}
	if !floor.FreshUntil.IsZero() && now.After(floor.FreshUntil) {
		return "the newest state seen was good until " + floor.FreshUntil.Format(time.RFC3339) +
			": the hub is down, or the remote holds newer states back"
	}
	return ""
}
