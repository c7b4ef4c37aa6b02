package e2e

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	agentd "github.com/certferry/certferry/agent/daemon"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/internal/githost"
)

// TestAMirrorTakesOver stops the hub for good after a renewal went to a mirror on a stock Git host. The agents deploy it
// from there, and in the thirty days that follow nothing is removed and nothing expires.
func TestAMirrorTakesOver(t *testing.T) {
	t.Parallel()
	host := githost.Start(t, true)
	_, url := host.Create(t, "fleet.git")
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(githost.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	remote := func(user string) string {
		return fmt.Sprintf("remotes:\n  - {name: backup, url: %q, username: %s, password_file: %s, ca_file: %s}\n", url, user, secret, host.CAFile)
	}
	w := newWorld(t, remote(githost.Writer))
	w.serve(bin)
	w.login()
	// A certificate for each server: of one on both, the second would wait for the first to report.
	servers := []*server{w.site("site-1", "one.test"), w.site("site-2", "two.test")}
	first, last := map[*server]string{}, map[*server]string{}
	for _, s := range servers {
		s.enrol(nil)
		config, err := os.ReadFile(s.agent)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.agent, append(config, remote(githost.Reader)...), 0o600); err != nil {
			t.Fatal(err)
		}
		s.run(bin)
		create(t, w, apiv1.CertificateSpec{
			Name: s.name, Names: []string{s.dns}, Issuer: "private-ca",
			Deployments: []apiv1.Placement{{Server: s.name, Deployer: "files", Target: "site"}},
		})
	}
	for _, s := range servers {
		first[s] = w.deployed(s.name, "", s)
	}

	// The agents are away while the hub renews for the last time.
	for _, s := range servers {
		s.daemon.stop()
		w.renew(s.name)
	}
	for _, s := range servers {
		w.await("the renewal on the mirror", func() bool {
			x, err := w.client.Certificate(t.Context(), s.name)
			if err != nil || x.Issued == nil || x.Issued.LeafSHA256 == first[s] || len(x.Placed) != 1 || x.Placed[0].WantLeafSHA256 != x.Issued.LeafSHA256 {
				return false
			}
			last[s] = x.Issued.LeafSHA256
			list, err := w.client.Remotes(t.Context(), client.Page{})
			return err == nil && len(list.Items) == 1 && list.Items[0].State == "current" && list.Items[0].Behind == 0
		})
	}
	w.hub.stop()

	for _, s := range servers {
		if got := s.seen(); got != first[s] {
			t.Fatalf("%s serves %.12s before its agent is back, want %.12s", s.name, got, first[s])
		}
		s.run(bin)
	}
	for _, s := range servers {
		w.await(s.name+" to serve what the mirror holds", func() bool { return s.seen() == last[s] })
		s.daemon.stop()
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			thirtyDays(t, s, last[s])
		})
	}
}

// thirtyDays lets a server's agent poll each day of a month without a hub. Each poll takes a second, as the agent also
// tries to deliver its reports.
func thirtyDays(t *testing.T, s *server, leaf string) {
	t.Helper()
	cfg, err := agentd.LoadConfig(s.agent, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	a, err := agentd.New(cfg, agentd.Environment{Version: "test", Now: func() time.Time { return clock }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for day := range 30 {
		clock = clock.Add(24 * time.Hour)
		if _, err := a.Once(t.Context()); !errors.Is(err, agentd.ErrNothingToDo) {
			t.Fatalf("day %d: %v", day, err)
		}
		served, err := s.handshake()
		if err != nil || s.seen() != leaf {
			t.Fatalf("day %d: another leaf is served, %v", day, err)
		}
		if clock.After(served.NotAfter) {
			t.Fatalf("day %d: the leaf has expired at %s", day, served.NotAfter)
		}
		for _, path := range []string{s.cert, s.key} {
			if info, err := os.Stat(path); err != nil || info.Size() == 0 {
				t.Fatalf("day %d: %s is gone: %v", day, path, err)
			}
		}
	}
	status, err := a.Status()
	if err != nil || status.Remote != "backup" || status.Alarm == "" || status.Status != "degraded" {
		t.Errorf("%s after a month: %+v %v, want it to say that nothing is fresh any more", s.name, status, err)
	}
}
