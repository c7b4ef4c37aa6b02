// This file brings a transaction to its end that a crash cut off: back where the swap was not complete, forward
// where it was.

package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/policy"
)

// errInterrupted is the cause of what Recover undoes.
var errInterrupted = errors.New("the agent was interrupted in the middle of the deployment")

func (d *Deployer) recover(ctx context.Context) ([]agent.Outcome, error) {
	list, err := d.journals.list()
	if err != nil {
		return nil, err
	}
	var outcomes []agent.Outcome
	var errs error
	for _, dir := range list {
		j, err := d.journals.read(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			// The crash came before the journal: nothing was staged.
			errs = errors.Join(errs, os.RemoveAll(dir))
		case err != nil:
			errs = errors.Join(errs, fmt.Errorf("recover deployment %s (put aside as %s): %w", filepath.Base(dir), filepath.Base(dir)+corruptSuffix, err), os.Rename(dir, dir+corruptSuffix))
		case !j.Step.ended():
			outcomes = append(outcomes, d.resume(ctx, dir, j)...)
		}
	}
	return outcomes, errs
}

// resume ends the transaction of j.
func (d *Deployer) resume(ctx context.Context, dir string, j *journal) []agent.Outcome {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionTimeout)
	defer cancel()
	d.log.WarnContext(ctx, "recovering an interrupted deployment", "journal", dir, "step", j.Step)
	tx := &transaction{d: d, dir: dir, journal: *j, recovering: true}
	allowed, err := d.policy()
	for _, e := range j.Items {
		p := &plan{
			deployment: agent.Deployment{Certificate: e.Certificate, Deployer: e.Deployer, Target: e.Target, Names: e.Names},
			entry:      e,
			started:    d.now(),
		}
		err = errors.Join(err, d.attach(p, allowed))
		tx.plans = append(tx.plans, p)
	}
	tx.resume(ctx, err)
	outcomes := make([]agent.Outcome, len(tx.plans))
	for i, p := range tx.plans {
		outcomes[i] = p.result(d.now())
		d.logOutcome(outcomes[i])
	}
	return outcomes
}

// attach finds the target and driver of p in today's policy.
func (d *Deployer) attach(p *plan, allowed *policy.Policy) (err error) {
	if allowed == nil {
		return nil // The caller has the reason already.
	}
	if p.target, err = allowed.Target(p.entry.Deployer, p.entry.Target); err != nil {
		return err
	}
	if p.driver = d.deployers[p.entry.Deployer]; p.driver == nil {
		return fmt.Errorf("deployer %q is not part of this agent", p.entry.Deployer)
	}
	return nil
}

// resume goes back or forward. unattached says why no server can be asked.
func (t *transaction) resume(ctx context.Context, unattached error) {
	switch {
	case len(t.plans) == 0:
		t.finish(stepRolledBack)
	case t.journal.Step == stepPrepared || t.journal.Step == stepStaged:
		for _, p := range t.plans {
			p.end(agent.RolledBack, agent.PhaseStage, p.servedBefore(), errInterrupted.Error()+"; nothing had been changed")
		}
		t.finish(stepRolledBack)
	case unattached != nil:
		err := errors.Join(unattached, t.restore())
		for _, p := range t.plans {
			p.end(agent.Failed, agent.PhaseSwap, "", fmt.Sprintf("%v; the previous files were put back without a test: %v", errInterrupted, err))
		}
		t.finish(stepFailed)
	case t.journal.Step == stepCommitted || t.journal.Step == stepReloading:
		t.forward(ctx)
	default:
		t.rollback(ctx, &agent.StepError{Phase: agent.PhaseSwap, Err: errInterrupted})
	}
}
