// This file joins the hub's repository with the remotes of the configuration.

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/hub/internal/mirror"
)

// remoteTimeout bounds one conversation with a remote. A push of a thousand branches takes seconds; a host may run
// hooks.
const remoteTimeout = 5 * time.Minute

// RemoteConfig is one remote of the configuration.
type RemoteConfig struct {
	// Name is what people call it, in alerts and lists.
	Name string `yaml:"name"`

	gitrepo.RemoteSettings `yaml:",inline"`

	// Intent lets people's commits to main on the remote count. Without it the remote is a copy only.
	Intent bool `yaml:"intent"`
	// Forge is where the host takes commit statuses; nil for nowhere.
	Forge *ForgeConfig `yaml:"forge"`
}

// checkRemotes finds what is wrong with the remotes; each fault names its key.
func checkRemotes(remotes []RemoteConfig) error {
	var faults []error
	names := map[string]bool{}
	for i := range remotes {
		r := &remotes[i]
		key := func(name string) string { return fmt.Sprintf("remotes[%d].%s", i, name) }
		switch err := manifest.ValidName(r.Name); {
		case err != nil:
			faults = append(faults, fault(key("name"), err.Error()))
		case names[r.Name]:
			faults = append(faults, fault(key("name"), "another remote has this name"))
		}
		names[r.Name] = true
		if err := r.Check(); err != nil {
			faults = append(faults, errors.New(key(err.Error())))
		}
		if err := r.Forge.check(r.Intent); err != nil {
			faults = append(faults, fault(key("forge"), err.Error()))
		}
	}
	return errors.Join(faults...)
}

// newMirror makes the mirror of all remotes. Their secrets are read now, so that a mistake shows at the start.
func newMirror(cfg *Config, repo *gitrepo.Repo, wishes *intent.Service, alerts mirror.Alerts, now func() time.Time, log *slog.Logger) (*remotes, error) {
	limits := gitrepo.PushLimits
	limits.Timeout = remoteTimeout
	targets := make([]mirror.Target, 0, len(cfg.Remotes))
	for i := range cfg.Remotes {
		c := &cfg.Remotes[i]
		remote, err := c.Remote(limits)
		if err != nil {
			return nil, fmt.Errorf("open remote %s: %w", c.Name, err)
		}
		targets = append(targets, mirror.Target{Name: c.Name, URL: c.URL, Remote: remote, Intent: c.Intent})
	}
	statuses, err := newStatuses(cfg.Remotes, log)
	if err != nil {
		return nil, err
	}
	m := mirror.New(mirror.Config{
		Repo: repo, Targets: targets, Intake: intake{wishes, statuses, cfg.PublicURL}, Alerts: alerts, Now: now, Logger: log,
	})
	return &remotes{m, statuses}, nil
}
