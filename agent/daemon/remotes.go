// This file joins the agent with its Git remotes: the hub's own, and those that the administrator adds.

package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// hubRemote is the name of the hub's own remote.
const hubRemote = "hub"

// RemoteConfig is one further remote.
type RemoteConfig struct {
	// Name is what people call it, in logs and in the status.
	Name string `yaml:"name"`

	gitrepo.RemoteSettings `yaml:",inline"`
}

// checkRemotes finds what is wrong with the remotes; the error names the key.
func checkRemotes(remotes []RemoteConfig) error {
	names := map[string]bool{}
	for i := range remotes {
		r := &remotes[i]
		if err := manifest.ValidName(r.Name); err != nil {
			return fmt.Errorf("remotes[%d].name: %w", i, err)
		}
		if names[r.Name] {
			return fmt.Errorf("remotes[%d].name: another remote has this name", i)
		}
		names[r.Name] = true
		if r.Name == hubRemote {
			if r.RemoteSettings != (gitrepo.RemoteSettings{}) {
				return fmt.Errorf("remotes[%d].name: hub is the hub's own remote, which needs no settings; give this one another name", i)
			}
			continue
		}
		if err := r.Check(); err != nil {
			return fmt.Errorf("remotes[%d].%w", i, err)
		}
	}
	return nil
}

// remotes lists the remotes in the order in which they are asked. One whose files cannot be read is left out and told
// of: the others serve.
func remotes(cfg *Config, id state.Identity, credential string, log *slog.Logger) ([]source.Named, error) {
	transport, err := newTransport(*cfg)
	if err != nil {
		return nil, err
	}
	own := source.Named{Name: hubRemote, Remote: &gitrepo.Remote{
		URL: id.GitURL, Username: id.Server, Password: credential,
		HTTP: &http.Client{Transport: transport}, Limits: gitrepo.DefaultLimits,
	}}
	var all []source.Named
	placed := false
	for i := range cfg.Remotes {
		c := &cfg.Remotes[i]
		if c.Name == hubRemote {
			all, placed = append(all, own), true
			continue
		}
		remote, err := c.Remote(gitrepo.DefaultLimits)
		if err != nil {
			log.Error("remote left out", slog.String("remote", c.Name), slog.Any("error", err))
			continue
		}
		all = append(all, source.Named{Name: c.Name, Mirror: true, Remote: remote})
	}
	if !placed {
		all = append([]source.Named{own}, all...)
	}
	return all, nil
}

// nextError marks an outcome after which another remote may do better.
type nextError struct{ error }

// Unwrap gives the outcome.
func (e nextError) Unwrap() error { return e.error }

func isNext(err error) bool { return errors.As(err, new(nextError)) }
