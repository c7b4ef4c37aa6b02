package gitstore

import (
	"fmt"
	"io/fs"
	"path"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// ServerTip returns the newest commit of a server's branch, fs.ErrNotExist if it has none yet. The manifest is
// shared: do not change it.
func (s *Store) ServerTip(server string) (*Tip, error) {
	if err := manifest.ValidName(server); err != nil {
		return nil, fmt.Errorf("read branch: %w", err)
	}
	tip, err := s.branchTip(server)
	if err != nil {
		return nil, fmt.Errorf("read branch of server %s: %w", server, err)
	}
	if tip == nil {
		return nil, fmt.Errorf("read branch of server %s: %w", server, fs.ErrNotExist)
	}
	return &Tip{Commit: tip.hash.String(), Manifest: tip.manifest}, nil
}

// ServerHistory returns the commits of a server's branch, newest first, at most limit (0 for all).
func (s *Store) ServerHistory(server string, limit int) ([]ServerCommit, error) {
	tip, err := s.ServerTip(server)
	if err != nil {
		return nil, err
	}
	h, err := gitrepo.ParseHash(tip.Commit)
	if err != nil {
		return nil, err
	}
	log, err := s.serverLog(h, limit)
	if err != nil {
		return nil, fmt.Errorf("read history of server %s: %w", server, err)
	}
	out := make([]ServerCommit, 0, len(log))
	for _, c := range log {
		at, err := s.branchCommit(c.Hash)
		if err != nil {
			return nil, fmt.Errorf("read history of server %s: %w", server, err)
		}
		out = append(out, ServerCommit{Commit: c, Manifest: at.manifest})
	}
	return out, nil
}

// CertificateHistory returns the commits of main that changed a certificate's intent or what was issued for it,
// newest first, at most limit (0 for all).
func (s *Store) CertificateHistory(name string, limit int) ([]*gitrepo.Commit, error) {
	if err := manifest.ValidName(name); err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	head, ok := s.repo.Ref(manifest.MainBranch)
	if !ok {
		return nil, fmt.Errorf("read history: main: %w", fs.ErrNotExist)
	}
	out, err := s.pathHistory(head, limit, manifest.CertificatePath(name), manifest.IssuedDir(name))
	if err != nil {
		return nil, fmt.Errorf("read history of certificate %s: %w", name, err)
	}
	return out, nil
}

// pathHistory returns the commits, from head along first parents, that changed one of paths.
func (s *Store) pathHistory(head gitrepo.Hash, limit int, paths ...string) ([]*gitrepo.Commit, error) {
	var out []*gitrepo.Commit
	now, err := s.pathHashes(head, paths)
	if err != nil {
		return nil, err
	}
	for at := head; limit <= 0 || len(out) < limit; {
		c, err := s.repo.Commit(at)
		if err != nil {
			return nil, err
		}
		before := make([]gitrepo.Hash, len(paths))
		if len(c.Parents) > 0 {
			if before, err = s.pathHashes(c.Parents[0], paths); err != nil {
				return nil, err
			}
		}
		for i := range paths {
			if now[i] != before[i] {
				out = append(out, c)
				break
			}
		}
		if len(c.Parents) == 0 {
			break
		}
		at, now = c.Parents[0], before
	}
	return out, nil
}

func (s *Store) pathHashes(commit gitrepo.Hash, paths []string) ([]gitrepo.Hash, error) {
	out := make([]gitrepo.Hash, len(paths))
	for i, path := range paths {
		h, err := s.fileHash(commit, path)
		if err != nil {
			return nil, err
		}
		out[i] = h
	}
	return out, nil
}

// maxIssueWalk bounds how far back IssueWith looks, in commits of main.
const maxIssueWalk = 50_000

// IssueWith finds the newest commit of main as of which a certificate's issue has the leaf; fs.ErrNotExist if there is
// none among the newest commits. What was replaced lately is found at once, however long the history is.
func (s *Store) IssueWith(name, leaf string) (commit string, issued *manifest.IssuedCertificate, err error) {
	if err := manifest.ValidName(name); err != nil {
		return "", nil, fmt.Errorf("find issue: %w", err)
	}
	at, _ := s.repo.Ref(manifest.MainBranch)
	file := path.Join(manifest.IssuedDir(name), certificateFile)
	var seen gitrepo.Hash
	for range maxIssueWalk {
		c, err := s.repo.Commit(at)
		if err != nil {
			return "", nil, fmt.Errorf("find issue of %s: %w", name, err)
		}
		now, err := s.fileHash(at, file)
		if err != nil {
			return "", nil, fmt.Errorf("find issue of %s: %w", name, err)
		}
		if now != seen && !now.IsZero() {
			if issued, err = s.issuedAt(at, name); err == nil && issued.LeafSHA256 == leaf {
				return at.String(), issued, nil
			}
		}
		if seen = now; len(c.Parents) == 0 {
			break
		}
		at = c.Parents[0]
	}
	return "", nil, fmt.Errorf("find issue of %s: %w", name, fs.ErrNotExist)
}
