// Package deploy is the deployment transaction: it alone writes, swaps and rolls back files, under a journal.
package deploy

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/policy"
)

// Config is what New needs.
type Config struct {
	// StateDir is the agent's own folder; journals and backups are kept in its folder "deployments".
	StateDir string
	// Deployers are the drivers by name, see deployer.Registry.
	Deployers map[string]agent.Deployer
	Prober    agent.Prober
	// Policy reads the administrator's policy; it is called anew for every Deploy and Recover.
	Policy func() (*policy.Policy, error)
	Now    func() time.Time
	Logger *slog.Logger
}

// Deployer carries out deployments.
type Deployer struct{ cfg Config }

// New checks cfg.
func New(cfg Config) (*Deployer, error) { return &Deployer{cfg: cfg}, nil }

// Deploy puts the certificates in place and answers with one outcome for each, in the order given. A second
// Deploy or Recover, in this process or another, waits for the first until ctx is done. The error says that
// nothing could be tried at all.
func (d *Deployer) Deploy(ctx context.Context, deployments []agent.Deployment) ([]agent.Outcome, error) {
	return nil, errors.New("deploy: not built yet")
}

// Recover finishes or undoes the deployment that a crash interrupted, and answers with its outcomes; there are
// none when there was nothing to recover.
func (d *Deployer) Recover(ctx context.Context) ([]agent.Outcome, error) { return nil, nil }
