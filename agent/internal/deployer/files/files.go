// Package files is the deployer for software that has none of its own: two files, and the two programs that the
// administrator's policy names to test and to reload whatever reads them.
package files

import (
	"context"
	"fmt"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/gitstore/bundle"
)

// Runner runs a program and returns the tail of its output; see deployer.Run.
type Runner func(ctx context.Context, dir string, argv []string) (output string, err error)

// Deployer is the deployer "files".
type Deployer struct{ run Runner }

// New returns a deployer that runs programs with run.
func New(run Runner) *Deployer { return &Deployer{run: run} }

// Files implements agent.Deployer.
func (d *Deployer) Files(t agent.Target, b *bundle.Bundle) ([]agent.File, error) {
	return agent.Outputs(t, b)
}

// Test implements agent.Deployer. Without a test in the policy, what the transaction checks itself is all.
func (d *Deployer) Test(ctx context.Context, t agent.Target) error {
	return d.step(ctx, agent.PhaseTest, t.Test)
}

// Reload implements agent.Deployer. Without a reload in the policy, the software watches its files itself.
func (d *Deployer) Reload(ctx context.Context, t agent.Target) error {
	return d.step(ctx, agent.PhaseReload, t.Reload)
}

func (d *Deployer) step(ctx context.Context, phase agent.Phase, argv []string) error {
	if len(argv) == 0 {
		return nil
	}
	output, err := d.run(ctx, "", argv)
	if err != nil {
		return &agent.StepError{Phase: phase, Output: output, Err: fmt.Errorf("the policy's program: %w", err)}
	}
	return nil
}
