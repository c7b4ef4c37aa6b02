package gitserve_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/gitserve"
)

// slowRepo holds each pack back until it is let go.
type slowRepo struct {
	*gitrepo.Repo
	hold    chan struct{}
	atOnce  atomic.Int64
	highest atomic.Int64
}

func (r *slowRepo) WritePack(w io.Writer, objects []gitrepo.Hash) error {
	n := r.atOnce.Add(1)
	defer r.atOnce.Add(-1)
	for {
		high := r.highest.Load()
		if n <= high || r.highest.CompareAndSwap(high, n) {
			break
		}
	}
	<-r.hold
	return r.Repo.WritePack(w, objects)
}

// TestHerd: after an outage all agents fetch at once. Few packs are made at a time, as many wait as there is room
// for, the others are asked to come again at different times, polls are answered meanwhile, and all get their state.
func TestHerd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	slow := &slowRepo{Repo: f.repo, hold: make(chan struct{})}
	const slots, queue, herd = 4, 100, 300
	server := httptest.NewServer(gitserve.New(gitserve.Config{
		Repo: slow, Access: access{}, Logger: slog.New(slog.DiscardHandler), Packs: slots, Queue: queue,
	}))
	t.Cleanup(server.Close)
	const branch = "refs/heads/servers/web-1"
	tip, _ := f.repo.Ref(branch)
	remote := &gitrepo.Remote{URL: server.URL, Username: "web-1", Password: "secret of web-1", Limits: gitrepo.DefaultLimits}
	var served, refused atomic.Int64
	var group sync.WaitGroup
	for range herd {
		group.Go(func() {
			for {
				_, err := remote.Fetch(t.Context(), branch, tip)
				if err == nil {
					served.Add(1)
					return
				}
				if !strings.Contains(err.Error(), "503") {
					t.Error(err)
					return
				}
				if refused.Add(1) == herd-slots-queue {
					close(slow.hold) // the others wait or work
				}
			}
		})
	}
	<-slow.hold
	if _, err := remote.Poll(t.Context(), branch, ""); err != nil {
		t.Errorf("a poll while the herd waits: %v", err)
	}
	group.Wait()
	if served.Load() != herd || slow.highest.Load() > slots {
		t.Errorf("served %d of %d, at most %d at once", served.Load(), herd, slow.highest.Load())
	}
}

// TestBusyAnswer: who is sent away is told when to come again, and not all at the same time.
func TestBusyAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	slow := &slowRepo{Repo: f.repo, hold: make(chan struct{})}
	server := httptest.NewServer(gitserve.New(gitserve.Config{
		Repo: slow, Access: access{}, Logger: slog.New(slog.DiscardHandler), Packs: 1, Queue: 1,
	}))
	t.Cleanup(server.Close)
	tip, _ := f.repo.Ref("refs/heads/servers/web-1")
	body := pkt("want "+tip.String()+" side-band-64k\n") + "0000" + pkt("done\n")
	// ask answers the Retry-After of a caller that is sent away.
	ask := func() (retry string, away bool, err error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/git-upload-pack", strings.NewReader(body))
		if err != nil {
			return "", false, err
		}
		req.SetBasicAuth("web-1", "secret of web-1")
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", false, err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		return answer.Header.Get("Retry-After"), answer.StatusCode == http.StatusServiceUnavailable, errors.Join(err, answer.Body.Close())
	}
	var group sync.WaitGroup
	waits := map[int]bool{}
	var mu sync.Mutex
	var refused atomic.Int64
	deadline := time.Now().Add(20 * time.Second)
	for range 20 {
		group.Go(func() {
			retry, away, err := ask()
			if err != nil {
				t.Error(err)
			}
			if !away {
				return
			}
			seconds, err := strconv.Atoi(retry)
			if err != nil || seconds < 1 || seconds > 60 {
				t.Errorf("Retry-After %q", retry)
			}
			mu.Lock()
			waits[seconds] = true
			mu.Unlock()
			if refused.Add(1) == 18 {
				close(slow.hold)
			}
		})
	}
	group.Wait()
	if len(waits) < 3 || time.Now().After(deadline) {
		t.Errorf("18 callers are asked to come again after %v seconds", waits)
	}
}

func pkt(text string) string { return strconv.FormatInt(int64(len(text)+4)|0x10000, 16)[1:] + text }
