// This file tells Git hosts, by commit statuses, what became of commits that people made there.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub/internal/forge"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/hub/internal/mirror"
)

// ForgeConfig is the API of the host of a remote, for commit statuses.
type ForgeConfig struct {
	// Kind is github, gitlab or gitea; Forgejo is a gitea.
	Kind string `yaml:"kind"`
	// API is its base URL, such as https://git.example.com/api/v1; empty for the public GitHub or GitLab.
	API string `yaml:"api"`
	// Repository is owner/name.
	Repository string `yaml:"repository"`
	// TokenFile holds an access token that may set commit statuses, mode 0600.
	TokenFile string `yaml:"token_file"`
}

// client checks the configuration; ca is the file of the CA that the remote's certificate chains to.
func (f *ForgeConfig) client(ca string) (*forge.Client, error) {
	if f.TokenFile != "" && !filepath.IsAbs(f.TokenFile) {
		return nil, errors.New("token_file: must be an absolute path")
	}
	return forge.New(forge.Config{Kind: forge.Kind(f.Kind), API: f.API, Repository: f.Repository, TokenFile: f.TokenFile, CAFile: ca})
}

// check says what is wrong with the forge of a remote.
func (f *ForgeConfig) check(intent bool) error {
	if f == nil {
		return nil
	}
	if !intent {
		return errors.New("only commits that count get a status: set intent, or remove forge")
	}
	_, err := f.client("")
	return err
}

// newStatuses opens the APIs of all remotes that have one.
func newStatuses(configs []RemoteConfig, log *slog.Logger) (*forge.Reporter, error) {
	clients := map[string]*forge.Client{}
	for i := range configs {
		r := &configs[i]
		if r.Forge == nil {
			continue
		}
		client, err := r.Forge.client(r.CAFile)
		if err == nil {
			err = client.Ready()
		}
		if err != nil {
			return nil, fmt.Errorf("open remote %s: %w", r.Name, err)
		}
		clients[r.Name] = client
	}
	return forge.NewReporter(clients, log), nil
}

// remotes are the remotes of the configuration at work, with the hosts that hear what became of commits.
type remotes struct {
	*mirror.Mirror

	statuses *forge.Reporter
}

// Run works until ctx is done.
func (r *remotes) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { return r.Mirror.Run(ctx) })
	group.Go(func() error { return r.statuses.Run(ctx) })
	return group.Wait()
}

// taker decides about commits that people made on a remote.
type taker interface {
	Take(ctx context.Context, remote string, in *gitrepo.Incoming, tip gitrepo.Hash) (intent.Pushed, error)
}

// reporter is the part of a forge.Reporter that is told.
type reporter interface {
	Report(remote string, s forge.Status)
}

// intake gives people's commits to the service that decides about them, which tells of what it refuses by itself, and
// has the remote's host show the answer.
type intake struct {
	wishes   taker
	statuses reporter
	url      string // the hub's
}

// Take implements mirror.Intake.
func (i intake) Take(ctx context.Context, remote string, in *gitrepo.Incoming, tip gitrepo.Hash) error {
	out, err := i.wishes.Take(ctx, remote, in, tip)
	if status, told := i.status(out, err); told {
		status.Commit, status.TargetURL = tip.String(), i.url+"/commits/"+tip.String()
		i.statuses.Report(remote, status)
	}
	return err
}

// status puts an answer into one. An error that may pass gets none: the same commit is taken again.
func (i intake) status(out intent.Pushed, err error) (s forge.Status, told bool) {
	switch {
	case errors.Is(err, gitstore.ErrInvalid):
		return forge.Status{State: forge.Failure, Description: "refused: this history cannot be taken; the hub's alerts say why"}, true
	case out.Commit == "":
		return forge.Status{}, false
	case out.Applied:
		return forge.Status{State: forge.Success, Description: summary("applied", out.Lines)}, true
	}
	return forge.Status{State: forge.Failure, Description: summary("refused", out.Lines)}, true
}

// summary is the first line, and how many more there are.
func summary(verdict string, lines []string) string {
	if len(lines) == 0 {
		return verdict
	}
	if len(lines) == 1 {
		return verdict + ": " + lines[0]
	}
	more := fmt.Sprintf(" (and %d more)", len(lines)-1)
	first := []rune(lines[0])
	if room := forge.MaxDescription - len([]rune(verdict+": "+more)); len(first) > room {
		first = append(first[:room-1], '…')
	}
	return verdict + ": " + string(first) + more
}
