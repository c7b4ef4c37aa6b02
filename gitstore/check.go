// This file checks at start what hashes cannot tell: that each reference still has the name that it was given.

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// checkRefs refuses a repository in which main is lost, or a server's branch has another's name: a flipped bit in
// packed-refs does that, and a fresh main, or a history that starts over, would tell servers to drop what they serve.
// Reading all manifests warms the cache that the first publication needs.
func (s *Store) checkRefs(ctx context.Context) error {
	refs := s.repo.Refs()
	if _, ok := refs[manifest.MainBranch]; !ok && len(refs) > 0 {
		return fmt.Errorf("%w: there are %d references but no main: bring back packed-refs from a copy", gitrepo.ErrCorrupt, len(refs))
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for ref, tip := range refs {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.checkRef(ref, tip); err != nil {
				return fmt.Errorf("check %s: %w", ref, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s *Store) checkRef(ref string, tip gitrepo.Hash) error {
	server, isServer := strings.CutPrefix(ref, manifest.ServerBranch(""))
	if isServer {
		if err := manifest.ValidName(server); err != nil {
			return fmt.Errorf("%w: the name is not one of a server: bring back packed-refs from a copy", gitrepo.ErrCorrupt)
		}
		at, err := s.branchTip(server)
		if errors.Is(err, gitrepo.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: it holds no manifest: bring back packed-refs from a copy: %w", gitrepo.ErrCorrupt, err)
		}
		if err != nil {
			return nil //nolint:nilerr // a manifest that this program cannot read is told when the server's turn comes
		}
		if at.manifest.Server != server {
			return fmt.Errorf("%w: it holds the manifest of server %s: bring back packed-refs from a copy", gitrepo.ErrCorrupt, at.manifest.Server)
		}
		return nil
	}
	if certificate := manifest.ProposalOf(ref); certificate != "" {
		issued, err := s.issuedAt(tip, certificate)
		if err != nil || ref != manifest.ProposalBranch(certificate, issued.Serial) {
			return errors.Join(fmt.Errorf("%w: it holds no proposal of this name: bring back packed-refs from a copy", gitrepo.ErrCorrupt), err)
		}
		return nil
	}
	if !strings.HasPrefix(ref, "refs/heads/") && !strings.HasPrefix(ref, "refs/tags/") && ref != epochsRef {
		return fmt.Errorf("%w: nothing of this name belongs here: bring back packed-refs from a copy", gitrepo.ErrCorrupt)
	}
	_, err := s.repo.Stat(tip, manifest.File)
	if err == nil {
		return fmt.Errorf("%w: it holds a server's manifest: bring back packed-refs from a copy", gitrepo.ErrCorrupt)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
