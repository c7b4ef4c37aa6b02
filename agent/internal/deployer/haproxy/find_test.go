package haproxy_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/haproxy"
)

// TestFind: what runs is found with its sites, and so is what is only configured.
func TestFind(t *testing.T) {
	t.Parallel()
	h := deployertest.StartHAProxy(t, deployertest.NewCA(t, time.Now()).Issue(t, deployertest.Name), deployertest.HAProxyOptions{Master: true})
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/local/etc/haproxy"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := "frontend f\n  bind :443 ssl crt /srv/x.pem\n  bind :444 ssl crt \"$UNKNOWN\"\n"
	if err := os.WriteFile(filepath.Join(root, "usr/local/etc/haproxy/haproxy.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := haproxy.NewFinder(haproxy.Config{Run: deployer.RunEnv, Root: root}).Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := slices.IndexFunc(found, func(i agent.Instance) bool { return i.Config == h.Config })
	if n < 0 {
		t.Fatalf("not found among %+v", found)
	}
	got := found[n]
	if got.Software != "haproxy" || got.PID != h.PID() || got.Root != "" || got.Binary == "" || !strings.Contains(got.Version, ".") || len(got.Faults) > 0 {
		t.Errorf("running: %+v", got)
	}
	if len(got.Sites) != 1 || got.Sites[0].Certificate != h.Certificate || got.Sites[0].Key != h.Key || got.Sites[0].Listeners[0].Address != h.Address {
		t.Errorf("sites: %+v", got.Sites)
	}
	last := found[len(found)-1]
	if last.PID != 0 || last.Root != root || last.Config != "/usr/local/etc/haproxy/haproxy.cfg" || len(last.Sites) != 1 || len(last.Faults) != 1 {
		t.Errorf("configured: %+v", last)
	}
	if _, err := haproxy.NewFinder(haproxy.Config{Run: deployer.RunEnv, Proc: filepath.Join(root, "none")}).Find(t.Context()); err == nil {
		t.Error("a missing /proc is accepted")
	}
}
