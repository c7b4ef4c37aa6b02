package httpapi_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/httpapi"
)

// waiting starts a heartbeat that waits, and answers where its reply will come. It is at the hub when waiting returns.
func (w *world) waiting(agent string, beat apiv1.HeartbeatRequest) <-chan apiv1.HeartbeatReply {
	w.tb.Helper()
	beat.Status, beat.Wait = "ok", true
	replies := make(chan apiv1.HeartbeatReply, 1)
	go func() {
		replies <- decode[apiv1.HeartbeatReply](w.tb, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, beat))
	}()
	for deadline := time.Now().Add(20 * time.Second); !w.cfg.Bell.Waits("web-1"); {
		if time.Now().After(deadline) {
			w.tb.Fatal("the heartbeat does not wait")
		}
		time.Sleep(time.Millisecond)
	}
	return replies
}

func (w *world) noReply(replies <-chan apiv1.HeartbeatReply) {
	w.tb.Helper()
	select {
	case reply := <-replies:
		w.tb.Fatalf("answered without news: %+v", reply)
	default:
	}
}

// TestHeartbeatWaitsForNews: a heartbeat that waits is answered when the bell rings for its server, and not before.
func TestHeartbeatWaitsForNews(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.Bell = &httpapi.Bell{} })
	agent := w.agent("web-1", hub.ServerApproved)
	replies := w.waiting(agent, apiv1.HeartbeatRequest{Counter: 1})
	w.cfg.Bell.Ring("web-2")
	w.noReply(replies)
	w.fleet.edit(func(f *fleet) {
		f.tips["web-1"] = &gitstore.Tip{Commit: commitA, Manifest: &manifest.Manifest{Generation: 4}}
	})
	w.cfg.Bell.Ring("web-1")
	if reply := <-replies; reply.Generation != 4 || reply.Commit != commitA {
		t.Errorf("reply %+v", reply)
	}
	// What is news already is told at once; what the agent verified is none.
	reply := decode[apiv1.HeartbeatReply](t, w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent,
		apiv1.HeartbeatRequest{Counter: 2, NewestGeneration: 3, Status: "ok", Wait: true}))
	if reply.Generation != 4 || reply.IntervalSeconds != 60 {
		t.Errorf("reply %+v", reply)
	}
	replies = w.waiting(agent, apiv1.HeartbeatRequest{Counter: 3, NewestGeneration: 4})
	second := w.waiting(agent, apiv1.HeartbeatRequest{Counter: 4, NewestGeneration: 4})
	<-replies // the agent asked anew
	w.noReply(second)
	w.cfg.Bell.Close()
	if reply := <-second; reply.IntervalSeconds != 1 {
		t.Errorf("after waiting: %+v", reply)
	}
	w.send(http.MethodPost, "/api/v1/servers/heartbeat", agent, apiv1.HeartbeatRequest{Counter: 5, NewestGeneration: 4, Status: "ok", Wait: true})
}

// TestApprovalRings: a server that waits to be approved hears of it at once.
func TestApprovalRings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *httpapi.Config) { c.Bell = &httpapi.Bell{} })
	operator := w.person("otto", apiv1.RoleOperator)
	agent := w.agent("web-1", hub.ServerPending)
	replies := w.waiting(agent, apiv1.HeartbeatRequest{Counter: 1})
	row, err := w.db.Server(t.Context(), "web-1")
	w.must(err)
	w.send(http.MethodPost, "/api/v1/servers/web-1/approve", operator, apiv1.ApproveRequest{Fingerprint: row.Fingerprint})
	if reply := <-replies; reply.State != "approved" {
		t.Errorf("reply %+v", reply)
	}
	replies = w.waiting(agent, apiv1.HeartbeatRequest{Counter: 2})
	w.send(http.MethodPost, "/api/v1/servers/web-1/rotate-key", operator, apiv1.RotateKeyRequest{})
	if reply := <-replies; !reply.RotateKey {
		t.Errorf("reply %+v", reply)
	}
}
