//go:build failpoints

package daemon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/certferry/certferry/agent/daemon"
)

// TestRotationChild is the agent that TestKilledWhileKeyIsReplaced kills.
func TestRotationChild(t *testing.T) {
	dir := os.Getenv("CERTFERRY_TEST_DIR")
	if dir == "" {
		t.Skip("SKIP: only TestKilledWhileKeyIsReplaced starts this")
	}
	cfg := daemon.Config{
		StateDir: filepath.Join(dir, "state"), Policy: filepath.Join(dir, "policy.yaml"), PollInterval: time.Minute,
		LogLevel: "info", LogFormat: "text",
	}
	w := &world{t: t}
	w.clock.Store(time.Now().UnixNano())
	a, err := daemon.New(cfg, w.env())
	w.must(err)
	if strings.HasSuffix(os.Getenv("CERTFERRY_FAILPOINT"), "made") || strings.HasSuffix(os.Getenv("CERTFERRY_FAILPOINT"), "offered") {
		_, err = a.RotateKey(t.Context())
	} else {
		_, err = a.Once(t.Context())
	}
	t.Fatalf("the failpoint was not reached: %v", err)
}

// TestKilledWhileKeyIsReplaced kills the agent at each step of the replacement of its key. It works afterwards, and the
// replacement comes to its end.
func TestKilledWhileKeyIsReplaced(t *testing.T) {
	t.Parallel()
	points := []string{"made", "offered", "served", "kept", "named", "promoted"}
	survived := 0
	for _, point := range points {
		if t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			w.takeOffers = true
			a := w.agent()
			b := w.issue()
			w.deployed(a, w.publish(b), b)
			if point != "made" && point != "offered" {
				w.rotate(a, "taken")
				w.publish(w.issue())
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRotationChild$")
			cmd.Env = append(os.Environ(), "CERTFERRY_TEST_DIR="+filepath.Dir(w.cfg.StateDir), "CERTFERRY_FAILPOINT=agent.rotate."+point)
			if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			a, err := daemon.New(w.cfg, w.env())
			w.must(err)
			b = w.issue()
			w.deployed(a, w.publish(b), b)
			if point == "made" { // the hub, which heard nothing, asks again
				w.rotate(a, "taken")
				b = w.issue()
				w.deployed(a, w.publish(b), b)
			}
			w.wantKey(a, w.offered.Fingerprint())
		}) {
			survived++
		}
	}
	t.Logf("FAULT agent.kill-while-key-is-replaced tried=%d survived=%d", len(points), survived)
}
