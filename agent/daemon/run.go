// This file is the agent as a service: cycles with jitter, and heartbeats whose answer the hub keeps until there is
// news: they are the doorbell.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/certferry/certferry/agent/internal/hostinfo"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	// heartbeatInterval is used until the hub names another.
	heartbeatInterval = 30 * time.Second
	// factsEvery is how many heartbeats go by between two that carry the facts.
	factsEvery = 60
	// mostGeneration is the highest that the hub takes in a heartbeat. No honest state gets there; a server to which a
	// thief showed one beyond it must still be heard.
	mostGeneration = 1<<53 - 1
)

// Run polls, deploys and sends heartbeats until ctx is done. It returns nil then; no failure of the hub, the
// remote or a deployment ends it.
func (a *Agent) Run(ctx context.Context) error {
	a.log.InfoContext(ctx, "agent started", slog.String("server", a.id.Server), slog.String("version", a.env.Version))
	s := signals{ring: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
	var both sync.WaitGroup
	both.Go(func() { a.polls(ctx, s) })
	both.Go(func() { a.beats(ctx, s) })
	both.Wait()
	a.log.InfoContext(ctx, "agent stopped")
	return nil
}

// signals are what polls and heartbeats tell each other.
type signals struct {
	// ring: the hub has a newer state for this server.
	ring chan struct{}
	// moved: what the heartbeat that waits at the hub said is no longer so.
	moved chan struct{}
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is told already
	}
}

// polls runs a cycle when one is due, and at once when the hub rings and no remote asked to be left alone.
func (a *Agent) polls(ctx context.Context, s signals) {
	poll := time.NewTimer(0)
	defer poll.Stop()
	recovered := false
	var quiet time.Time // until when the remotes ask to be left alone
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ring:
			poll.Reset(time.Until(quiet))
		case <-poll.C:
			delay, retryAfter, moved := a.cycle(ctx, &recovered)
			quiet = time.Now().Add(retryAfter)
			poll.Reset(delay)
			if moved {
				signal(s.moved)
			}
		}
	}
}

// beats sends heartbeats, each of which waits at the hub for news.
func (a *Agent) beats(ctx context.Context, s signals) {
	beat := time.NewTimer(0)
	defer beat.Stop()
	for told, beats := false, 0; ; beats++ {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		select {
		case <-s.moved: // this heartbeat will say it
		default:
		}
		within, cancel := context.WithCancelCause(ctx)
		ended := make(chan struct{})
		go func() {
			select {
			case <-s.moved:
				cancel(errMoved)
			case <-ended:
			}
		}()
		interval, behind, err := a.heartbeat(within, !told || beats%factsEvery == 0)
		close(ended)
		told = told && beats%factsEvery != 0 || err == nil
		if context.Cause(within) == errMoved { //nolint:errorlint // it is this very value
			interval = 0
		}
		cancel(nil)
		beat.Reset(jitter(interval))
		if behind {
			signal(s.ring)
		}
	}
}

// errMoved ends a heartbeat that waits while the server has moved on.
var errMoved = errors.New("the state of the server has changed")

// cycle runs one cycle under the lock and says when the next is due, how long the remotes ask to be left alone, and
// whether there is something new to tell.
func (a *Agent) cycle(ctx context.Context, recovered *bool) (next, retryAfter time.Duration, moved bool) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return jitter(a.cfg.PollInterval), 0, false
	}
	defer unlock()
	if !*recovered {
		if err := a.recover(ctx); err != nil {
			a.log.ErrorContext(ctx, "recovery failed, trying again", slog.Any("error", err))
			return jitter(a.cfg.PollInterval), 0, true
		}
		*recovered = true
	}
	_, retryAfter, err = a.sync(ctx)
	switch {
	case err == nil:
	case errors.Is(err, ErrNothingToDo):
		a.log.DebugContext(ctx, "cycle finished", slog.String("outcome", err.Error()))
	case ctx.Err() == nil:
		a.log.ErrorContext(ctx, "cycle failed", slog.Any("error", err))
	}
	a.flush(ctx)
	return max(jitter(a.cfg.PollInterval), spread(retryAfter)), retryAfter, !errors.Is(err, ErrNothingToDo)
}

// spread makes a wait that a whole fleet was told up to a fifth longer: it must not come back as a herd.
func spread(d time.Duration) time.Duration {
	return d + rand.N(max(d/5, 1)) //nolint:gosec // spreading load needs no secret randomness
}

// heartbeat tells the hub that and how the server lives. behind says that the hub has a newer state for it.
func (a *Agent) heartbeat(ctx context.Context, withFacts bool) (interval time.Duration, behind bool, err error) {
	reply, err := a.beat(ctx, withFacts)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "heartbeat not delivered", slog.Any("error", err))
		}
		return heartbeatInterval, false, err
	}
	a.flush(ctx)
	if reply.RotateKey {
		a.rotate(ctx)
	}
	a.sendRequests(ctx, reply.CertificateRequests)
	interval = heartbeatInterval
	if reply.IntervalSeconds > 0 {
		interval = time.Duration(reply.IntervalSeconds) * time.Second
	}
	return interval, a.expect(ctx, reply.Generation), nil
}

func (a *Agent) beat(ctx context.Context, withFacts bool) (apiv1.HeartbeatReply, error) {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return apiv1.HeartbeatReply{}, err
	}
	progress, err := a.dir.Progress()
	floor, ferr := a.dir.Floor()
	if err = errors.Join(err, ferr); err == nil {
		progress.Counter++
		err = a.dir.SaveProgress(progress)
	}
	unlock()
	if err != nil {
		return apiv1.HeartbeatReply{}, fmt.Errorf("count heartbeat: %w", err)
	}
	req := apiv1.HeartbeatRequest{
		Counter: progress.Counter, Commit: progress.Commit, Generation: min(progress.Generation, mostGeneration), Held: progress.Held,
		NewestGeneration: min(floor.Generation, mostGeneration), Status: progress.Status, Message: clip(progress.Message),
		Wait: true,
	}
	if req.Status == "" {
		req.Status = statusOK
	}
	if withFacts {
		facts := hostinfo.Read(a.env.Version)
		req.Facts = &facts
		req.Found = new(a.findings(ctx))
	}
	return a.hub.Heartbeat(ctx, req)
}

// jitter spreads a fleet: d and up to a fifth more or less.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + rand.N(max(2*d/5, 1)) //nolint:gosec // spreading load needs no secret randomness
}
