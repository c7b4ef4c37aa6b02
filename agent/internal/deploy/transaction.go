// This file is the way forward: from a journal to new files that are served.

package deploy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/internal/failpoint"
)

// transactionTimeout bounds everything from the first staged file to the end of a roll back.
const transactionTimeout = 5 * time.Minute

// transaction is one test, swap and reload of one server instance.
type transaction struct {
	d     *Deployer
	plans []*plan
	// dir is the journal's folder.
	dir     string
	journal journal
	// healed says that the test failed before us and passes with the new files.
	healed bool
	// recovering says that a crash lies behind, and the server perhaps has not been started yet.
	recovering bool

	// rolledBack says that the previous files are back and served.
	rolledBack bool
	// blame says that a file of ours, nobody knows which, broke the configuration.
	blame bool
}

func (d *Deployer) transaction(plans []*plan) *transaction {
	tx := &transaction{d: d, plans: plans}
	tx.journal = journal{Format: journalFormat, StartedAt: d.now().UTC()}
	return tx
}

// driver and target stand for the whole instance.
func (t *transaction) driver() agent.Deployer { return t.plans[0].driver }
func (t *transaction) target() agent.Target   { return t.plans[0].target }

// run carries the transaction out; afterwards every plan has ended.
func (t *transaction) run(ctx context.Context) {
	if err := t.baseline(ctx); err != nil {
		refuse(t.plans, agent.PhaseBaseline, err)
		return
	}
	if err := t.prepare(); err != nil {
		t.abort(err)
		return
	}
	failpoint.Hit("agent.deploy.prepared")
	if err := t.stage(); err != nil {
		t.abort(err)
		return
	}
	failpoint.Hit("agent.deploy.staged")
	if err := firstError(ctx.Err(), t.recheck()); err != nil {
		t.abort(err)
		return
	}
	// From here on the end is reached in any case: a server must not stay between two certificates because
	// the agent was asked to stop.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionTimeout)
	defer cancel()
	if err := t.write(stepCommitting); err != nil {
		t.abort(err)
		return
	}
	failpoint.Hit("agent.deploy.committing")
	if err := t.swap(); err != nil {
		t.rollback(ctx, &agent.StepError{Phase: agent.PhaseSwap, Err: err})
		return
	}
	failpoint.Hit("agent.deploy.committed")
	t.forward(ctx)
}

// firstError returns the first error that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// baseline asks whether the configuration is good before us. If it is not, and it is not because of the files
// that are to be replaced, somebody else has to mend it first.
func (t *transaction) baseline(ctx context.Context) error {
	err := t.driver().Test(ctx, t.target())
	if err == nil {
		return nil
	}
	if errors.Is(err, agent.ErrNotRunning) || errors.Is(err, agent.ErrAmbiguous) || ctx.Err() != nil {
		return err
	}
	if !slices.ContainsFunc(t.plans, func(p *plan) bool { return p.previous == nil }) {
		return fmt.Errorf("the configuration was already broken and not by this certificate; mend it, the deployment is tried again: %w", err)
	}
	t.journal.BrokenBefore = true
	return nil
}

// prepare writes the journal and copies of the files that are there: copies, for a hard link would change with
// its file.
func (t *transaction) prepare() error {
	dir, err := t.d.journals.create()
	if err != nil {
		return err
	}
	t.dir = dir
	id := rand.Text()
	n := 0
	for _, p := range t.plans {
		for i := range p.entry.Files {
			c := &p.entry.Files[i]
			n++
			c.Temp = filepath.Join(filepath.Dir(c.Path), fmt.Sprintf(".certferry-%s-%d", id, n))
			if c.Old == "" || c.same() {
				continue
			}
			c.Backup = "file-" + strconv.Itoa(n)
			if err := atomicfile.Write(filepath.Join(dir, c.Backup), c.oldData, 0o600); err != nil {
				return fmt.Errorf("back up %s: %w", c.Path, err)
			}
		}
		entry := p.entry
		entry.Files = slices.DeleteFunc(slices.Clone(entry.Files), func(c change) bool { return c.same() })
		t.journal.Items = append(t.journal.Items, entry)
	}
	return errors.Join(t.write(stepPrepared), atomicfile.SyncDir(string(t.d.journals)))
}

// write notes the next step, lasting through a power cut.
func (t *transaction) write(s step) error {
	t.journal.Step = s
	data, err := t.journal.encode()
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(t.dir, journalFile), data, 0o600); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// changes calls fn for each file that is replaced, keys before their certificates, until it fails.
func (t *transaction) changes(fn func(*change) error) error {
	for i := range t.journal.Items {
		for k := range t.journal.Items[i].Files {
			if err := fn(&t.journal.Items[i].Files[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// stage writes all new files beside the old ones. A full disk shows here, where nothing has changed yet.
func (t *transaction) stage() error {
	err := t.changes(func(c *change) error {
		if err := atomicfile.Stage(c.Temp, c.data, c.Attr); err != nil {
			return fmt.Errorf("stage %s: %w", c.Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.write(stepStaged)
}

// recheck makes sure that nobody changed a file since it was backed up.
func (t *transaction) recheck() error {
	return t.changes(func(c *change) error {
		now, err := current(c.Path)
		if err != nil {
			return err
		}
		if now != c.Old {
			return fmt.Errorf("%s was changed by somebody else just now; the deployment is tried again", c.Path)
		}
		return nil
	})
}

// swap renames everything into place. All is staged, so that the time between key and certificate is that of one
// system call.
func (t *transaction) swap() error {
	between := func() { failpoint.Hit("agent.deploy.between") }
	err := t.changes(func(c *change) error {
		if err := os.Rename(c.Temp, c.Path); err != nil {
			if errors.Is(err, syscall.EBUSY) {
				return fmt.Errorf("%w (the file is a mount of its own; mount its folder instead)", err)
			}
			return err
		}
		between()
		between = func() {}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.syncFolders(); err != nil {
		return err
	}
	return t.write(stepCommitted)
}

func (t *transaction) syncFolders() error {
	done := make(map[string]bool)
	return t.changes(func(c *change) error {
		dir := filepath.Dir(c.Path)
		if done[dir] {
			return nil
		}
		done[dir] = true
		return atomicfile.SyncDir(dir)
	})
}

// forward goes from new files on disk to the new leaf in a TLS client's hands. Recover enters here too.
func (t *transaction) forward(ctx context.Context) {
	if err := t.driver().Test(ctx, t.target()); err != nil {
		t.testFailed(ctx, asStep(agent.PhaseTest, err))
		return
	}
	t.healed = t.journal.BrokenBefore
	t.journal.ReloadTried = true
	if err := t.write(stepReloading); err != nil {
		t.journal.ReloadTried = false
		t.failed(ctx, asStep(agent.PhaseReload, err))
		return
	}
	failpoint.Hit("agent.deploy.reloading")
	if err := t.driver().Reload(ctx, t.target()); err != nil {
		t.failed(ctx, asStep(agent.PhaseReload, err))
		return
	}
	failpoint.Hit("agent.deploy.reloaded")
	if err := t.probe(ctx); err != nil {
		t.failed(ctx, asStep(agent.PhaseProbe, err))
		return
	}
	failpoint.Hit("agent.deploy.verified")
	detail := "deployed"
	if t.healed {
		detail = "deployed; the files that were there before could not be loaded"
	}
	if t.recovering {
		detail = "deployed after an interruption"
	}
	for _, p := range t.plans {
		p.deployed(detail)
	}
	t.finish(stepDone)
}

// testFailed tells whose fault a failing test is.
func (t *transaction) testFailed(ctx context.Context, err *agent.StepError) {
	if t.journal.BrokenBefore {
		// The pair on disk was unusable and is whole now; something else is broken as well, and the running
		// server is best left alone.
		t.keep(ctx, err, "the new files are on disk, but something else in the configuration is broken; nothing was reloaded")
		return
	}
	t.rollback(ctx, err)
}

// failed undoes a step after the test, unless that would put back files that could not be loaded.
func (t *transaction) failed(ctx context.Context, err *agent.StepError) {
	if t.journal.BrokenBefore {
		t.keep(ctx, err, "the new files were kept, for those before could not be loaded")
		return
	}
	t.rollback(ctx, err)
}

// keep ends with the new files on disk and a failure that somebody must look at.
func (t *transaction) keep(ctx context.Context, err *agent.StepError, why string) {
	for _, p := range t.plans {
		p.end(agent.Failed, err.Phase, t.seen(ctx, p), err.Error()+"; "+why)
	}
	t.finish(stepFailed)
}

// probe waits until TLS clients see every new leaf.
func (t *transaction) probe(ctx context.Context) error {
	errs := make([]error, len(t.plans))
	each(len(t.plans), func(i int) {
		p := t.plans[i]
		var want []served
		for _, e := range probe.Endpoints(p.target, p.entry.Names) {
			want = append(want, served{Endpoint: e, LeafSHA256: p.entry.LeafSHA256})
		}
		errs[i] = t.await(ctx, p, want)
		p.culprit = errs[i] != nil
	})
	return errors.Join(errs...)
}

// await waits for all of want within the target's budget.
func (t *transaction) await(ctx context.Context, p *plan, want []served) error {
	ctx, cancel := context.WithTimeout(ctx, probe.Budget(p.target))
	defer cancel()
	errs := make([]error, len(want))
	each(len(want), func(i int) {
		_, errs[i] = probe.Await(ctx, t.d.prober, want[i].Endpoint, want[i].LeafSHA256)
	})
	return firstError(errs...)
}

// abort ends a transaction that changed nothing but staged files, which it removes.
func (t *transaction) abort(err error) {
	t.dropStaged()
	if t.dir != "" {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	refuse(t.plans, agent.PhaseStage, fmt.Errorf("nothing was changed: %w", err))
}

// dropStaged removes what lies beside the files, of the way forward and of the way back.
func (t *transaction) dropStaged() {
	_ = t.changes(func(c *change) error {
		for _, temp := range []string{c.Temp, c.Temp + oldSuffix} {
			if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.d.log.Warn("staged file not removed", "path", temp, "error", err)
			}
		}
		return nil
	})
}

// finish notes the end and removes what is no longer needed. An end that cannot be noted is harmless: Recover
// would find everything as it should be.
func (t *transaction) finish(s step) {
	t.dropStaged()
	if err := t.write(s); err != nil {
		t.d.log.Warn("end of deployment not noted", "journal", t.dir, "error", err)
	}
	if err := t.d.journals.prune(); err != nil {
		t.d.log.Warn("old deployments not pruned", "error", err)
	}
}

// current returns the hash of the file at path, empty if there is none.
func current(path string) (string, error) {
	data, _, err := atomicfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return digest(data), nil
}

func asStep(phase agent.Phase, err error) *agent.StepError {
	if step, ok := errors.AsType[*agent.StepError](err); ok {
		return step
	}
	return &agent.StepError{Phase: phase, Err: err}
}
