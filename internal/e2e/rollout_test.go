package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// TestRollout takes a renewal to three servers in waves. One that cannot deploy it stops the rollout: the others keep
// what they serve, an operator takes all back, and the next try goes through.
func TestRollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "rollout_waves: [1, 2]\n")
	w.serve(bin)
	w.login()
	servers := []*server{w.site("web-1", "shop.test"), w.site("web-2", "shop.test"), w.site("web-3", "shop.test")}
	for _, s := range servers {
		s.enrol(map[string]string{"role": "edge"})
		s.run(bin)
	}
	create(t, w, apiv1.CertificateSpec{
		Name: "shop", Names: []string{"shop.test"}, Issuer: "private-ca",
		Deployments: []apiv1.Placement{{Selector: "role=edge", Deployer: "files", Target: "site"}},
	})
	first := w.deployed("shop", "", servers...)
	stops := make([]func() (int64, int64), len(servers))
	for i, s := range servers {
		stops[i] = s.load(1)
	}

	// Whichever server comes first, its reload does nothing.
	for _, s := range servers {
		w.write(strings.TrimPrefix(s.stuck, w.dir+"/"), "")
	}
	w.renew("shop")
	w.await("the rollout to stop", func() bool {
		ro, err := w.client.Rollout(t.Context(), "shop")
		return err == nil && ro.State == "failed"
	})
	ro, err := w.client.Rollout(t.Context(), "shop")
	if err != nil || ro.Wave != 1 || len(ro.Waves) != 3 || ro.Waves[0].Servers[0].State != "failed" || ro.Waves[1].Servers[0].State != "later" {
		t.Fatalf("got %+v, %v", ro, err)
	}
	for _, s := range servers {
		if s.seen() != first {
			t.Errorf("%s serves something else while the rollout stands still", s.name)
		}
		if err := os.Remove(s.stuck); err != nil {
			t.Fatal(err)
		}
	}
	program, session := filepath.Join(bin, "certferry"), filepath.Join(w.dir, "session.json")
	w.do(password+"\n", program, "--session", session, "--hub", w.url, "login", "--name", "ops")
	if out := w.do("", program, "--session", session, "alert", "ls"); !strings.Contains(out, "rollout_stopped") {
		t.Errorf("nobody is told:\n%s", out)
	}
	w.do("", program, "--session", session, "rollout", "abort", "--reason", "broken reload", "shop")
	w.deployed("shop", "", servers...) // the old issue is the wanted one again
	if out := w.do("", program, "--session", session, "cert", "show", "shop"); !strings.Contains(out, "rollout aborted by ops: broken reload") {
		t.Errorf("got\n%s", out)
	}

	// The second try goes through, one server after the other.
	w.do("", program, "--session", session, "cert", "resume", "shop")
	w.renew("shop")
	second := w.deployed("shop", first, servers...)
	out := w.do("", program, "--session", session, "commit", "ls", "--limit", "30")
	for _, want := range []string{"abort rollout of shop", "begin rollout of shop", "roll out shop: wave 2 of 3, 1 server", "roll out shop: wave 3 of 3, 1 server"} {
		if !strings.Contains(out, want) {
			t.Errorf("the history does not tell %q:\n%s", want, out)
		}
	}
	w.await("the end of the rollout", func() bool {
		all, err := w.client.Commits(t.Context(), "", client.Page{Limit: 1})
		return err == nil && slices.ContainsFunc(all.Items, func(c apiv1.Commit) bool { return strings.HasPrefix(c.Subject, "complete rollout of shop") })
	})
	for i, stop := range stops {
		if tried, failed := stop(); failed > 0 || tried < 50 {
			t.Errorf("%s: %d of %d handshakes failed", servers[i].name, failed, tried)
		}
	}
	if second == first {
		t.Error("nothing was renewed")
	}
}
