//go:build failpoints

package deploy_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/bundle"
)

// TestFailpointChild is the agent that TestKill kills: it deploys what its folder says, and dies at the failpoint
// that its environment names.
func TestFailpointChild(t *testing.T) {
	dir := os.Getenv("CERTFERRY_TEST_DIR")
	if dir == "" {
		t.Skip("SKIP: only TestKill starts this")
	}
	policyText, err := os.ReadFile(filepath.Join(dir, "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "bundle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Parse(pem)
	if err != nil {
		t.Fatal(err)
	}
	outcomes, err := realDeployer(t, filepath.Join(dir, "state"), string(policyText), nil).Deploy(t.Context(), []agent.Deployment{{
		Certificate: name, Deployer: os.Getenv("CERTFERRY_TEST_DEPLOYER"), Target: "web", Names: []string{name}, Bundle: b,
	}})
	t.Fatalf("the failpoint was not reached: %+v, %v", outcomes, err)
}
