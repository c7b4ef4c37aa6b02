// This file sends statuses in the background, so that a slow host holds up nobody.

package forge

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/sync/errgroup"
)

// waiting bounds the statuses that wait for one host. Beyond it the oldest go: the newest commit matters most.
const waiting = 100

// Reporter sends statuses to the hosts of some remotes, one after the other for each.
type Reporter struct {
	log    *slog.Logger
	queues map[string]*queue
}

// queue is what waits for one host.
type queue struct {
	client *Client
	mu     sync.Mutex
	list   []Status
	wake   chan struct{}
}

// NewReporter returns the reporter for clients, by the names of their remotes.
func NewReporter(clients map[string]*Client, log *slog.Logger) *Reporter {
	r := &Reporter{log: log, queues: map[string]*queue{}}
	for remote, c := range clients {
		r.queues[remote] = &queue{client: c, wake: make(chan struct{}, 1)}
	}
	return r
}

// Report queues a status and returns at once. A remote without a host that is known gets none.
func (r *Reporter) Report(remote string, s Status) {
	q := r.queues[remote]
	if q == nil {
		return
	}
	q.mu.Lock()
	if q.list = append(q.list, s); len(q.list) > waiting {
		q.list = q.list[1:]
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx is done. What a host refuses is logged and given up.
func (r *Reporter) Run(ctx context.Context) error {
	var group errgroup.Group
	for remote, q := range r.queues {
		group.Go(func() error {
			q.run(ctx, r.log.With(slog.String("remote", remote)))
			return nil
		})
	}
	return group.Wait()
}

func (q *queue) run(ctx context.Context, log *slog.Logger) {
	for {
		s, ok := q.next()
		if !ok {
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if err := q.client.Set(ctx, s); ctx.Err() != nil {
			return
		} else if err != nil {
			log.WarnContext(ctx, "commit status not set", slog.Any("error", err))
		}
	}
}

func (q *queue) next() (Status, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return Status{}, false
	}
	s := q.list[0]
	q.list = q.list[1:]
	return s, true
}
