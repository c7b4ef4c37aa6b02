package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestDependencies keeps the agent small and static: nothing of the hub's server side, and no cgo.
func TestDependencies(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("%d dependencies: go list answered something else", len(deps))
	}
	forbidden := []string{
		"go-sqlite3", "go-chi/chi", "golang-jwt", "certferry/hub/internal", "certferry/hub/daemon", "certferry/issuer",
		"certferry/console", "uptrace/bun", "danielgtaylor/huma", "pressly/goose", "certferry/gitstore/gitserve",
	}
	for _, dep := range deps {
		for _, f := range forbidden {
			if strings.Contains(dep, f) {
				t.Errorf("the agent depends on %s", dep)
			}
		}
		if dep == "runtime/cgo" || dep == "testing" {
			t.Errorf("the agent depends on %s", dep)
		}
	}
}
