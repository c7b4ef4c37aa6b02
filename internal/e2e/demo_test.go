package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo runs what a newcomer runs, with the private CA and, where ACME_SH is set, through acme.sh and Pebble.
func TestDemo(t *testing.T) {
	t.Parallel()
	for issuer, needs := range map[string]string{"privateca": "", "acmesh": "ACME_SH"} {
		t.Run(issuer, func(t *testing.T) {
			t.Parallel()
			if needs != "" && os.Getenv(needs) == "" {
				t.Skipf("skipped: %s is not set", needs)
			}
			dir := t.TempDir()
			if issuer == "acmesh" {
				build := exec.Command("go", "build", "-o", bin+"/", "github.com/letsencrypt/pebble/v2/cmd/pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv")
				if out, err := build.CombinedOutput(); err != nil {
					t.Skipf("skipped: Pebble cannot be built: %v\n%s", err, out)
				}
			}
			cmd := exec.Command(filepath.Join(bin, "certferry-hub"), "demo", "--once", "--issuer", issuer)
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "demo: ok\n") {
				t.Fatalf("demo: %v\n%s", err, out)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("the demo left %v (%v)", left, err)
			}
		})
	}
}
