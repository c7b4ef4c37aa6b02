package daemon

import (
	"context"
	"time"
)

// How long records are kept that nobody needs for ever: the logs of orders, orders themselves, of which each
// certificate's newest stays, and what was spent of the CAs' limits, of which the longest counts a week.
const (
	keepJobLogs   = 90 * 24 * time.Hour
	keepJobs      = 400 * 24 * time.Hour
	keepSpendings = 30 * 24 * time.Hour
	pruneRecords  = 24 * time.Hour
)

// keepRecords removes old records once a day. A failure is logged: the next day is early enough.
func (h *Hub) keepRecords(ctx context.Context) error {
	ticker := time.NewTicker(pruneRecords)
	defer ticker.Stop()
	for {
		now := h.opt.Now()
		if n, err := h.db.PruneJobLogs(ctx, now.Add(-keepJobLogs)); err != nil && ctx.Err() == nil {
			h.opt.Logger.ErrorContext(ctx, "logs of orders not pruned", "error", err)
		} else if n > 0 {
			h.opt.Logger.InfoContext(ctx, "logs of orders pruned", "lines", n)
		}
		if n, err := h.db.PruneJobs(ctx, now.Add(-keepJobs)); err != nil && ctx.Err() == nil {
			h.opt.Logger.ErrorContext(ctx, "orders not pruned", "error", err)
		} else if n > 0 {
			h.opt.Logger.InfoContext(ctx, "orders pruned", "orders", n)
		}
		if err := h.db.PruneSpendings(ctx, now.Add(-keepSpendings)); err != nil && ctx.Err() == nil {
			h.opt.Logger.ErrorContext(ctx, "ledger not pruned", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
