package files_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/deployer/deployertest"
	"github.com/certferry/certferry/agent/internal/deployer/files"
	"github.com/certferry/certferry/gitstore/bundle"
)

// TestConformance on the example site.
func TestConformance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	build := sync.OnceValues(func() (string, error) {
		binary := filepath.Join(dir, "tlssite")
		out, err := exec.Command("go", "build", "-o", binary, "github.com/certferry/certferry/examples/tlssite").CombinedOutput()
		if err != nil {
			return "", errors.New(string(out))
		}
		return binary, nil
	})
	deployertest.Run(t, func(tb testing.TB, b *bundle.Bundle) *deployertest.Harness {
		tb.Helper()
		binary, err := build()
		if err != nil {
			tb.Fatal(err)
		}
		s := deployertest.StartTLSSite(tb, binary, b)
		return &deployertest.Harness{
			Deployer: files.New(deployer.Run),
			Server:   s,
			Target: agent.Target{
				Name: "site", Deployer: "files", Certificate: s.Certificate, Key: s.Key,
				Test: s.TestCommand(), Reload: s.ReloadCommand(),
			},
		}
	})
}

// TestNoCommands: without commands there is nothing to do.
func TestNoCommands(t *testing.T) {
	t.Parallel()
	d := files.New(nil)
	if err := errors.Join(d.Test(t.Context(), agent.Target{}), d.Reload(t.Context(), agent.Target{})); err != nil {
		t.Error(err)
	}
}
