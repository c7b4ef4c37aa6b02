// This file opens the inside of the package to its tests.

package deploy

import (
	"context"
	"os"

	"github.com/certferry/certferry/agent"
)

// Names for the tests.
var (
	Resolve   = resolve
	ManagedBy = managedBy
)

// Interrupt begins a transaction for deployments and leaves it where a kill at the step would.
func (d *Deployer) Interrupt(ctx context.Context, deployments []agent.Deployment, at string) error {
	tx := d.transaction(d.plan(ctx, deployments))
	first := func() error {
		c := tx.journal.Items[0].Files[0]
		return os.Rename(c.Temp, c.Path)
	}
	way := []struct {
		name string
		do   func() error
	}{
		{"begun", func() error { _, err := d.journals.create(); return err }},
		{"baseline", func() error { return tx.baseline(ctx) }},
		{"prepared", tx.prepare},
		{"staged", tx.stage},
		{"committing", func() error { return tx.write(stepCommitting) }},
		{"between", first},
		{"committed", func() error {
			c := tx.journal.Items[0].Files[0]
			if err := os.Rename(c.Path, c.Temp); err != nil {
				return err
			}
			return tx.swap()
		}},
		{"reloading", func() error {
			tx.journal.ReloadTried = true
			return tx.write(stepReloading)
		}},
		{"rolling_back", func() error { return tx.write(stepRollingBack) }},
		{"restaged", func() error {
			return tx.changes(func(c *change) error { _, err := tx.stagePrevious(c); return err })
		}},
	}
	for _, s := range way {
		if s.name == "begun" && at != "begun" {
			continue
		}
		if err := s.do(); err != nil || s.name == at {
			return err
		}
	}
	return nil
}
