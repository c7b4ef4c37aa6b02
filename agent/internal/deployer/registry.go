// Package deployer lists the deployers there are, and runs programs for them: it is the agent's only door to
// os/exec.
package deployer

import (
	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer/apache"
	"github.com/certferry/certferry/agent/internal/deployer/files"
	"github.com/certferry/certferry/agent/internal/deployer/haproxy"
	"github.com/certferry/certferry/agent/internal/deployer/nginx"
)

// Registry returns the deployers by the name that policies and manifests use.
func Registry() map[string]agent.Deployer {
	return map[string]agent.Deployer{
		"apache":  apache.New(apache.Config{Run: RunEnv}),
		"files":   files.New(Run),
		"haproxy": haproxy.New(haproxy.Config{Run: RunEnv}),
		"nginx":   nginx.New(nginx.Config{Run: Run}),
	}
}

// Finders returns what finds server software on this machine.
func Finders() []agent.Finder {
	return []agent.Finder{
		apache.NewFinder(apache.Config{Run: RunEnv}),
		haproxy.NewFinder(haproxy.Config{Run: RunEnv}),
		nginx.NewFinder(nginx.Config{Run: Run}),
	}
}
