// Package deployer lists the deployers there are, and runs programs for them: it is the agent's only door to
// os/exec.
package deployer

import (
	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/files"
	"github.com/certferry/certferry/agent/internal/deployer/nginx"
)

// Registry returns the deployers by the name that policies and manifests use.
func Registry() map[string]agent.Deployer {
	return map[string]agent.Deployer{
		"files": files.New(Run),
		"nginx": nginx.New(nginx.Config{Run: Run}),
	}
}
