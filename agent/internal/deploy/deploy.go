// Package deploy is the deployment transaction: it alone writes, swaps and rolls back files. The deployers say
// which bytes belong where and how their software is tested and reloaded.
//
// A transaction covers all certificates of one server instance, so that there is one test and one reload:
//
//	verify     the bundle, the policy, the target's folders; nothing is touched
//	baseline   what is served and whether the configuration is good before us
//	stage      journal, backups, then every new file beside the old one, fsynced
//	swap       rename key, certificate, key, certificate …; fsync the folders
//	test       the software's own look at its configuration
//	reload     and the software's proof that it did
//	probe      TLS clients must see the new leaf
//
// Up to the swap a failure leaves the server untouched (Refused). From there on a failure puts the previous files
// back, tests, reloads if a reload was tried, and looks whether the previous leaf is served (RolledBack, else
// Failed). The journal is fsynced before each step, so that Recover can do the same after a crash.
//
// Who broke a configuration is told by comparing the test before with the test after: what was broken before us
// and not by the files that we are to replace is left alone and named.
package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/policy"
)

// Config is what New needs.
type Config struct {
	// StateDir is the agent's own folder. Journals and backups are kept below it, closed to everybody else.
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
type Deployer struct {
	deployers map[string]agent.Deployer
	prober    agent.Prober
	policy    func() (*policy.Policy, error)
	now       func() time.Time
	log       *slog.Logger
	lockPath  string
	journals  journals
}

// New checks cfg and makes the folder for journals and backups.
func New(cfg Config) (*Deployer, error) {
	switch {
	case !filepath.IsAbs(cfg.StateDir):
		return nil, fmt.Errorf("make deployer: state folder %q must be absolute", cfg.StateDir)
	case cfg.Deployers == nil || cfg.Prober == nil || cfg.Policy == nil || cfg.Now == nil || cfg.Logger == nil:
		return nil, errors.New("make deployer: deployers, prober, policy, clock and logger are needed")
	}
	dir := filepath.Join(cfg.StateDir, "deployments")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make deployer: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a folder: 0700 is closed to everybody else
		return nil, fmt.Errorf("make deployer: %w", err)
	}
	return &Deployer{
		deployers: cfg.Deployers,
		prober:    cfg.Prober,
		policy:    cfg.Policy,
		now:       cfg.Now,
		log:       cfg.Logger,
		lockPath:  filepath.Join(cfg.StateDir, "deploy.lock"),
		journals:  journals(dir),
	}, nil
}

// Deploy puts the certificates in place and answers with one outcome for each, in the order given. A second
// Deploy or Recover, in this process or another, waits for the first until ctx is done. When ctx ends in the
// middle, what has not been swapped yet is left alone and what has been is brought to its end, good or bad. The
// error says that nothing could be tried at all.
func (d *Deployer) Deploy(ctx context.Context, deployments []agent.Deployment) ([]agent.Outcome, error) {
	unlock, err := lock(ctx, d.lockPath)
	if err != nil {
		return nil, fmt.Errorf("deploy: %w", err)
	}
	defer unlock()
	// Whoever starts a transaction first clears up after the one that a crash cut off.
	if _, err := d.recover(ctx); err != nil {
		d.log.ErrorContext(ctx, "interrupted deployment not recovered", "error", err)
	}

	plans := d.plan(ctx, deployments)
	for _, group := range groups(plans) {
		d.deploy(ctx, group)
	}
	outcomes := make([]agent.Outcome, len(plans))
	for i, p := range plans {
		outcomes[i] = p.result(d.now())
		d.logOutcome(outcomes[i])
	}
	return outcomes, nil
}

// Recover finishes or undoes the deployment that a crash interrupted, and answers with its outcomes; there are
// none when there was nothing to recover. It may be called again at any time.
func (d *Deployer) Recover(ctx context.Context) ([]agent.Outcome, error) {
	unlock, err := lock(ctx, d.lockPath)
	if err != nil {
		return nil, fmt.Errorf("recover deployments: %w", err)
	}
	defer unlock()
	return d.recover(ctx)
}

func (d *Deployer) logOutcome(o agent.Outcome) {
	level := slog.LevelInfo
	if o.State != agent.Deployed {
		level = slog.LevelWarn
	}
	d.log.Log(context.Background(), level, "deployment ended", "certificate", o.Certificate, "target", o.Target,
		"state", o.State, "phase", o.Phase, "leaf", o.LeafSHA256, "detail", o.Detail, "duration", o.Duration)
}

// groups puts together what shares one server instance: one test and one reload serve them all.
func groups(plans []*plan) [][]*plan {
	var order []string
	byKey := make(map[string][]*plan)
	for _, p := range plans {
		if p.ended() {
			continue
		}
		key := p.instance()
		if _, seen := byKey[key]; !seen {
			order = append(order, key)
		}
		byKey[key] = append(byKey[key], p)
	}
	list := make([][]*plan, len(order))
	for i, key := range order {
		list[i] = byKey[key]
	}
	return list
}

// instance names the server instance of p's target: targets that are tested and reloaded in the same way. A
// target that nothing tests or reloads is an instance of its own.
func (p *plan) instance() string {
	t := p.target
	alone := ""
	if p.deployment.Deployer == "files" && t.Test == nil && t.Reload == nil {
		alone = t.Name
	}
	key, err := json.Marshal([]any{p.deployment.Deployer, t.Test, t.Reload, t.Instance, alone})
	if err != nil {
		return t.Name
	}
	return string(key)
}

// deploy runs one transaction for the group. When it was rolled back, what did not cause that is tried again
// without what did.
func (d *Deployer) deploy(ctx context.Context, group []*plan) {
	if len(group) == 0 || ctx.Err() != nil {
		refuse(group, agent.PhaseVerify, errors.New("stopped before it began"))
		return
	}
	tx := d.transaction(group)
	tx.run(ctx)
	if !tx.rolledBack || len(group) == 1 {
		return
	}
	var culprits, rest []*plan
	for _, p := range group {
		if p.culprit {
			culprits = append(culprits, p)
		} else {
			rest = append(rest, p)
		}
	}
	switch {
	case len(culprits) > 0 && len(rest) > 0:
		d.deploy(ctx, reset(rest))
	case tx.blame:
		// Some file of ours broke the configuration; halving finds it in few steps.
		d.deploy(ctx, reset(group[:len(group)/2]))
		d.deploy(ctx, reset(group[len(group)/2:]))
	}
}
