package httpapi_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

type remotes []hub.RemoteStatus

func (r remotes) Status() []hub.RemoteStatus { return r }

func TestRemotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) {
		c.Remotes = remotes{
			{Name: "zulu", URL: "https://git.example.com/a.git", Intent: true, State: hub.RemoteCurrent, LastOK: start},
			{Name: "alpha", URL: "ssh://git@example.com/a.git", State: hub.RemoteFailing, Behind: 7, LastError: "down\nhard", LastErrorAt: start, Failures: 3, NextTry: start.Add(time.Minute)},
		}
	})
	token := w.person("vera", apiv1.RoleViewer)
	first := decodeAs[apiv1.List[apiv1.Remote]](t, w.get("/api/v1/remotes?limit=1", token), http.StatusOK)
	if len(first.Items) != 1 || first.Items[0].Name != "zulu" || !first.Items[0].Intent || first.Items[0].LastOK == nil || first.Next == "" {
		t.Fatalf("got %+v", first)
	}
	rest := decodeAs[apiv1.List[apiv1.Remote]](t, w.get("/api/v1/remotes?after="+first.Next, token), http.StatusOK)
	if len(rest.Items) != 1 || rest.Next != "" {
		t.Fatalf("got %+v", rest)
	}
	if r := rest.Items[0]; r.Name != "alpha" || r.State != "failing" || r.Behind != 7 || r.LastError != "down hard" || r.Failures != 3 || r.NextTry == nil || r.LastOK != nil {
		t.Errorf("got %+v", r)
	}
	none := newWorld(t)
	if got := decodeAs[apiv1.List[apiv1.Remote]](t, none.get("/api/v1/remotes", none.person("vera", apiv1.RoleViewer)), http.StatusOK); len(got.Items) != 0 {
		t.Errorf("a hub without remotes lists %+v", got)
	}
}

// freezes notes what the hub hears.
type freezes struct {
	mu   sync.Mutex
	seen []string
}

func (f *freezes) Seen(_ context.Context, server string, newest, expected uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if newest < expected {
		f.seen = append(f.seen, server)
	}
	return nil
}

// TestHeartbeatTellsOfFreezes: what counts is the newest state that an agent verified, not what it deployed.
func TestHeartbeatTellsOfFreezes(t *testing.T) {
	t.Parallel()
	f := &freezes{}
	w := newWorld(t, func(c *httpapi.Config) { c.Freezes = f })
	agent := w.agent("web-1", hub.ServerApproved)
	const tip = 7
	w.fleet.edit(func(f *fleet) {
		f.tips["web-1"] = &gitstore.Tip{Commit: strings.Repeat("a", 40), Manifest: &manifest.Manifest{Generation: tip}}
	})
	for _, tt := range []struct {
		body string
		want int
	}{
		{`{"counter":1,"status":"ok","generation":6,"newest_generation":6}`, 1},
		{`{"counter":2,"status":"failed","generation":6,"newest_generation":7}`, 0},
		{`{"counter":3,"status":"failed","generation":6}`, 0}, // an older agent: nobody knows what it verified
		{`{"counter":4,"status":"ok","generation":6}`, 1},
		{`{"counter":5,"status":"ok","generation":5,"newest_generation":5,"held":true}`, 0},
		{`{"counter":6,"status":"ok","generation":7,"newest_generation":7}`, 0},
	} {
		f.seen = nil
		reply := decodeAs[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, tt.body), http.StatusOK)
		if len(f.seen) != tt.want || reply.Generation != tip {
			t.Errorf("%s: seen %v, reply %+v", tt.body, f.seen, reply)
		}
	}
}
