// This file is the way back: the previous files, tested, loaded where the new ones may have been, and seen by a
// TLS client.

package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

// oldSuffix marks a previous file staged for the way back.
const oldSuffix = ".old"

// wayBack is what was found out on the way back.
type wayBack struct {
	restore, test, reload error
	// reloaded says that the server was told to load the previous files.
	reloaded bool
}

// rollback puts the previous files back because of cause. Afterwards every plan has ended.
func (t *transaction) rollback(ctx context.Context, cause *agent.StepError) {
	t.d.log.WarnContext(ctx, "rolling back", "phase", cause.Phase, "error", cause)
	if err := t.write(stepRollingBack); err != nil {
		t.d.log.WarnContext(ctx, "roll back not noted", "journal", t.dir, "error", err)
	}
	back := wayBack{restore: t.restore()}
	back.test = t.driver().Test(ctx, t.target())
	if back.test == nil && (t.journal.ReloadTried || !t.servesPrevious(ctx)) {
		back.reloaded = true
		back.reload = t.driver().Reload(ctx, t.target())
	}
	t.blame = cause.Phase == agent.PhaseTest && back.test == nil
	t.conclude(ctx, cause, back)
}

// conclude decides what became of each plan: rolled back only where the previous state is proven.
func (t *transaction) conclude(ctx context.Context, cause *agent.StepError, back wayBack) {
	stopped := errors.Is(back.test, agent.ErrNotRunning)
	errs := make([]error, len(t.plans))
	if !stopped {
		each(len(t.plans), func(i int) { errs[i] = t.await(ctx, t.plans[i], t.plans[i].entry.Served) })
	}
	t.rolledBack = true
	for i, p := range t.plans {
		state := agent.RolledBack
		said := []string{cause.Error()}
		if problem := t.unproven(p, back, errs[i], stopped); problem != "" {
			state = agent.Failed
			t.rolledBack = false
			said = append(said, problem)
		} else {
			said = append(said, "the previous files are back")
			if len(p.entry.Served) > 0 && !stopped {
				said[len(said)-1] += " and served"
			}
			if back.test != nil {
				said = append(said, "now for another reason: "+back.test.Error())
			}
		}
		p.end(state, cause.Phase, t.seen(ctx, p), strings.Join(said, "; "))
	}
	if t.rolledBack {
		t.finish(stepRolledBack)
		return
	}
	t.finish(stepFailed)
}

// unproven says why the previous state of p is not proven to be back, or nothing.
func (t *transaction) unproven(p *plan, back wayBack, served error, stopped bool) string {
	switch {
	case back.restore != nil:
		return fmt.Sprintf("the previous files could not be put back, copies are in %s: %v", t.dir, back.restore)
	case stopped && t.recovering:
		return "" // The machine is starting: the server will load the previous files when its turn comes.
	case stopped:
		return "the previous files are back, but " + back.test.Error()
	case served != nil:
		return "the previous files are back, but not served: " + served.Error()
	case len(p.entry.Served) > 0:
		return ""
	case back.reload != nil:
		return "the previous files are back, but not loaded: " + back.reload.Error()
	case back.test != nil && t.journal.ReloadTried:
		return "the previous files are back, but not loaded: " + back.test.Error()
	}
	return ""
}

// restore puts the previous files back, as new inodes with a fresh time. What somebody else changed meanwhile is
// left alone. It does nothing where the previous file stands already, and so may be repeated.
func (t *transaction) restore() error {
	var errs error
	var ready []*change
	_ = t.changes(func(c *change) error {
		needed, err := t.stagePrevious(c)
		if needed && err == nil {
			ready = append(ready, c)
		}
		errs = errors.Join(errs, err)
		return nil
	})
	for _, c := range ready {
		if c.Old == "" {
			errs = errors.Join(errs, os.Remove(c.Path))
			continue
		}
		errs = errors.Join(errs, os.Rename(c.Temp+oldSuffix, c.Path))
	}
	return errors.Join(errs, t.syncFolders())
}

// stagePrevious lays the previous file beside the new one. It answers whether there is something to put back.
func (t *transaction) stagePrevious(c *change) (needed bool, err error) {
	now, err := current(c.Path)
	switch {
	case err != nil:
		return false, err
	case now == c.Old:
		return false, nil
	case now != c.New:
		return false, fmt.Errorf("%s was changed by somebody else meanwhile and is left alone", c.Path)
	case c.Old == "":
		return true, nil
	}
	data, _, err := atomicfile.Read(filepath.Join(t.dir, c.Backup))
	if err != nil {
		return false, err
	}
	if digest(data) != c.Old {
		return false, fmt.Errorf("the copy of %s is damaged", c.Path)
	}
	temp := c.Temp + oldSuffix
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return true, atomicfile.Stage(temp, data, c.OldAttr)
}

// servesPrevious looks once whether clients see what they saw before. They do unless somebody else reloaded the
// server while the new files stood there.
func (t *transaction) servesPrevious(ctx context.Context) bool {
	for _, p := range t.plans {
		for _, s := range p.entry.Served {
			leaf, err := probe.Leaf(ctx, t.d.prober, s.Endpoint)
			if err != nil || bundle.LeafSHA256(leaf) != s.LeafSHA256 {
				return false
			}
		}
	}
	return true
}

// seen looks once more at what a client of p's target sees.
func (t *transaction) seen(ctx context.Context, p *plan) string {
	for _, e := range probe.Endpoints(p.target, p.entry.Names) {
		if leaf, err := probe.Leaf(ctx, t.d.prober, e); err == nil {
			return bundle.LeafSHA256(leaf)
		}
	}
	return ""
}
