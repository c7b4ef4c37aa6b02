package intent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
)

// trailerServer names the server that a commit of main is about.
const trailerServer = "Server"

// EnsureServer writes servers/<name>.yaml where it is absent; a server that is there stays as it is.
func (s *Service) EnsureServer(ctx context.Context, name string, labels map[string]string) error {
	wish := &manifest.Server{APIVersion: manifest.APIVersion, Kind: manifest.KindServer, Name: name, Labels: labels}
	if err := wish.Validate(); err != nil {
		return invalid("body", err.Error())
	}
	data, err := wish.Encode()
	if err != nil {
		return fmt.Errorf("write server %s: %w", name, err)
	}
	err = s.change(ctx, act{object: name, key: trailerServer}, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		path := manifest.ServerPath(name)
		if _, ok := snapshot.Servers[name]; ok || isFaulty(snapshot, path) {
			return gitstore.Change{}, errUnchanged
		}
		return gitstore.Change{Subject: "add server " + name, Edits: []gitrepo.Edit{{Path: path, Data: data}}}, nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// errUnchanged ends a change that turned out not to be needed.
var errUnchanged = errors.New("nothing to change")

// RollbackServer holds the server at commit of its own branch; empty means the newest commit before the present one
// that told the server something else.
func (s *Service) RollbackServer(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "rollback-server", name, trailerServer}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		wish, err := server(snapshot, name)
		if err != nil {
			return gitstore.Change{}, err
		}
		target, err := s.earlierState(wish, commit)
		if err != nil {
			return gitstore.Change{}, err
		}
		held := *wish
		held.Hold = &manifest.Hold{
			Commit: target.Hash.String(), Reason: reason, By: a.name(), Since: s.cfg.Now().UTC().Truncate(time.Second),
		}
		data, err := held.Encode()
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("write server %s: %w", name, err)
		}
		return gitstore.Change{
			Subject: fmt.Sprintf("hold server %s at %s", name, target.Hash.Short()),
			Body:    reason,
			Edits:   []gitrepo.Edit{{Path: manifest.ServerPath(name), Data: data}},
		}, nil
	})
}

func server(snapshot *gitstore.Snapshot, name string) (*manifest.Server, error) {
	wish, ok := snapshot.Servers[name]
	if !ok {
		return nil, notFound("there is no such server: certferry server ls lists them")
	}
	return wish, nil
}

// earlierState finds the commit of the server's branch to hold it at.
func (s *Service) earlierState(wish *manifest.Server, commit string) (gitstore.ServerCommit, error) {
	history, err := s.cfg.Store.ServerHistory(wish.Name, maxHistory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return gitstore.ServerCommit{}, fmt.Errorf("read history of server %s: %w", wish.Name, err)
	}
	if len(history) == 0 {
		return gitstore.ServerCommit{}, conflict("nothing was deployed to this server yet: there is nothing to go back to")
	}
	target, err := chooseState(history, wish.Hold, commit)
	if err != nil {
		return gitstore.ServerCommit{}, err
	}
	for _, d := range target.Manifest.Deployments {
		if !s.cfg.Now().Before(d.NotAfter) {
			return gitstore.ServerCommit{}, conflict("as of that commit the server held the certificate " + d.Certificate +
				", which expired on " + d.NotAfter.Format("2006-01-02") + ": name a later commit")
		}
	}
	return target, nil
}

// chooseState picks from the history, newest first.
func chooseState(history []gitstore.ServerCommit, hold *manifest.Hold, commit string) (gitstore.ServerCommit, error) {
	index := func(hash string) int {
		return slices.IndexFunc(history, func(c gitstore.ServerCommit) bool { return c.Hash.String() == hash })
	}
	if commit != "" {
		hashes := make([]gitrepo.Hash, len(history))
		for i, c := range history {
			hashes[i] = c.Hash
		}
		help := "certferry server show lists the commits of this server's branch"
		if since, pruned := gitstore.Pruned(history); pruned {
			help += "; its history before " + since.Format(time.DateOnly) + " was pruned (store_keep)"
		}
		found, err := findCommit(hashes, commit, help)
		if err != nil {
			return gitstore.ServerCommit{}, err
		}
		return history[index(found.String())], nil
	}
	// A server that is held already goes back from where it is held, not from the commit that repeated that state.
	start := 0
	if hold != nil {
		start = max(index(hold.Commit), 0)
	}
	for _, c := range history[start+1:] {
		if !sameState(c.Manifest, history[start].Manifest) {
			return c, nil
		}
	}
	return gitstore.ServerCommit{}, conflict("there is no earlier state of this server to go back to")
}

// sameState tells whether two manifests ask the same of a server: a refresh asks nothing new.
func sameState(a, b *manifest.Manifest) bool {
	return slices.EqualFunc(a.Deployments, b.Deployments, func(a, b manifest.Deployment) bool {
		return a.Certificate == b.Certificate && a.LeafSHA256 == b.LeafSHA256 && a.Deployer == b.Deployer && a.Target == b.Target
	})
}

// ResumeServer ends the hold of a server.
func (s *Service) ResumeServer(ctx context.Context, actor hub.Principal, requestID, name string) error {
	a := act{actor, requestID, "resume-server", name, trailerServer}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		wish, err := server(snapshot, name)
		if err != nil {
			return gitstore.Change{}, err
		}
		if wish.Hold == nil {
			return gitstore.Change{}, conflict("this server is not held")
		}
		free := *wish
		free.Hold = nil
		data, err := free.Encode()
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("write server %s: %w", name, err)
		}
		return gitstore.Change{
			Subject: "resume server " + name,
			Edits:   []gitrepo.Edit{{Path: manifest.ServerPath(name), Data: data}},
		}, nil
	})
}
