package intent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// minPrefix is how many digits of a commit are enough to name it.
const minPrefix = 7

// CreateCertificate writes certificates/<name>.yaml.
func (s *Service) CreateCertificate(ctx context.Context, actor hub.Principal, requestID string, spec apiv1.CertificateSpec) error {
	wish := certificateOf(spec)
	a := act{actor, requestID, "create-certificate", spec.Name, gitstore.TrailerCertificate}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		if err := check(wish, treeOf(snapshot)); err != nil {
			return gitstore.Change{}, err
		}
		path := manifest.CertificatePath(wish.Name)
		if _, ok := snapshot.Certificates[wish.Name]; ok {
			return gitstore.Change{}, conflict("a certificate of this name exists: choose another name, or look at it with certferry cert show")
		}
		if isFaulty(snapshot, path) {
			return gitstore.Change{}, conflict("a certificate of this name stands on main, but its file cannot be read: mend it there first")
		}
		if _, taken := snapshot.Certificates[wish.SecondName()]; taken && wish.SecondKeyType != "" {
			return gitstore.Change{}, conflict("the second certificate would be called like one that exists: choose another name")
		}
		data, err := wish.Encode()
		if err != nil {
			return gitstore.Change{}, fmt.Errorf("write certificate %s: %w", wish.Name, err)
		}
		return gitstore.Change{
			Subject: fmt.Sprintf("add certificate %s: %s", wish.Name, summary(wish.Names)),
			Edits:   []gitrepo.Edit{{Path: path, Data: data}},
		}, nil
	})
}

func isFaulty(snapshot *gitstore.Snapshot, path string) bool {
	return slices.ContainsFunc(snapshot.Faults, func(f gitstore.Fault) bool { return f.Path == path })
}

// summary names the first of some names and counts the others.
func summary(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

// RollbackCertificate brings back an earlier issue of the certificate and pauses its renewal. commit is one of main,
// as of which the issue is taken; empty means the issue before the present one.
func (s *Service) RollbackCertificate(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error {
	reason, err := reasonOf(reason)
	if err != nil {
		return err
	}
	a := act{actor, requestID, "rollback-certificate", name, gitstore.TrailerCertificate}
	return s.change(ctx, a, func(snapshot *gitstore.Snapshot) (gitstore.Change, error) {
		if _, err := certificate(snapshot, name); err != nil {
			return gitstore.Change{}, err
		}
		have, ok := snapshot.Issued[name]
		if !ok {
			return gitstore.Change{}, conflict("this certificate was never issued: there is nothing to go back to")
		}
		from, then, err := s.earlierIssue(name, commit, have)
		if err != nil {
			return gitstore.Change{}, err
		}
		edits, err := s.goBack(snapshot, name, from, then, strings.TrimSuffix("rolled back by "+a.name()+": "+reason, ": "))
		if err != nil {
			return gitstore.Change{}, err
		}
		return gitstore.Change{
			Subject: fmt.Sprintf("roll back %s: leaf %s… until %s", name, then.LeafSHA256[:6], shortDate(then.NotAfter)),
			Body:    reason,
			Edits:   edits,
		}, nil
	})
}

func certificate(snapshot *gitstore.Snapshot, name string) (*manifest.Certificate, error) {
	wish, ok := snapshot.Certificates[name]
	if !ok {
		return nil, notFound("there is no such certificate: certferry cert ls lists them")
	}
	return wish, nil
}

// earlierIssue finds the commit whose issue is to be brought back, and that issue.
func (s *Service) earlierIssue(name, commit string, have *manifest.IssuedCertificate) (gitrepo.Hash, *manifest.IssuedCertificate, error) {
	history, err := s.cfg.Store.CertificateHistory(name, maxHistory)
	if err != nil {
		return gitrepo.Hash{}, nil, fmt.Errorf("read history of certificate %s: %w", name, err)
	}
	if commit != "" {
		return s.namedIssue(name, commit, have, history)
	}
	// The history is walked from new to old. The present issue may stand in it twice, as after a rollback; what came
	// before it first was issued is the issue before it.
	var from gitrepo.Hash
	var then *manifest.IssuedCertificate
	revoked := map[string]bool{}
	for _, c := range history {
		issued, err := s.issuedAt(name, c.Hash)
		if err == nil && issued.Revoked != nil {
			revoked[issued.LeafSHA256] = true
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return gitrepo.Hash{}, nil, err
		case revoked[issued.LeafSHA256]:
			// nobody trusts it any more
		case issued.LeafSHA256 == have.LeafSHA256:
			then = nil
		case then == nil:
			from, then = c.Hash, issued
		}
	}
	if then == nil {
		return gitrepo.Hash{}, nil, conflict("there is no earlier issue of this certificate to go back to")
	}
	return from, then, nil
}

// namedIssue is the issue as of the commit that somebody named.
func (s *Service) namedIssue(
	name, commit string, have *manifest.IssuedCertificate, history []*gitrepo.Commit,
) (gitrepo.Hash, *manifest.IssuedCertificate, error) {
	hashes := make([]gitrepo.Hash, len(history))
	for i, c := range history {
		hashes[i] = c.Hash
	}
	from, err := findCommit(hashes, commit, "certferry cert show lists the commits of this certificate")
	if err != nil {
		return gitrepo.Hash{}, nil, err
	}
	then, err := s.issuedAt(name, from)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gitrepo.Hash{}, nil, conflict("as of that commit the certificate was not issued yet")
	case err != nil:
		return gitrepo.Hash{}, nil, err
	case then.LeafSHA256 == have.LeafSHA256:
		return gitrepo.Hash{}, nil, conflict("that commit holds the issue that is in use now")
	}
	for _, hash := range hashes {
		if issued, err := s.issuedAt(name, hash); err == nil && issued.Revoked != nil && issued.LeafSHA256 == then.LeafSHA256 {
			return gitrepo.Hash{}, nil, conflict("the issue of that commit was revoked: name an earlier or a later one")
		}
	}
	return from, then, nil
}

// findCommit finds the one commit that starts with text.
func findCommit(hashes []gitrepo.Hash, text, help string) (gitrepo.Hash, error) {
	if len(text) < minPrefix {
		return gitrepo.Hash{}, invalid("body.commit", "give at least 7 digits of the commit")
	}
	var found gitrepo.Hash
	for _, h := range hashes {
		if !strings.HasPrefix(h.String(), text) || h == found {
			continue
		}
		if !found.IsZero() {
			return gitrepo.Hash{}, invalid("body.commit", "more than one commit starts like this: give more digits")
		}
		found = h
	}
	if found.IsZero() {
		return gitrepo.Hash{}, notFound("no such commit in the history: " + help)
	}
	return found, nil
}

func (s *Service) issuedAt(name string, commit gitrepo.Hash) (*manifest.IssuedCertificate, error) {
	data, err := s.cfg.Files.ReadFile(commit, manifest.IssuedDir(name)+"/certificate.yaml")
	if err != nil {
		return nil, fmt.Errorf("read issue of %s at %s: %w", name, commit.Short(), err)
	}
	return manifest.DecodeIssued(data)
}

// restore makes the edits that bring issued/<xx>/<name>/ back to what it was at commit.
func (s *Service) restore(name string, commit gitrepo.Hash) ([]gitrepo.Edit, error) {
	issued, err := s.issuedAt(name, commit)
	if err != nil {
		return nil, err
	}
	// A key that is on its server has no sealed bundle here, and its leaf beside the chain.
	files, other := []string{"certificate.yaml", "chain.pem", "bundle.pgp"}, "leaf.pem"
	if issued.KeyCustody == manifest.CustodyServer {
		files[2], other = other, files[2]
	}
	var edits []gitrepo.Edit
	for _, file := range files {
		path := manifest.IssuedDir(name) + "/" + file
		data, err := s.cfg.Files.ReadFile(commit, path)
		if err != nil {
			return nil, fmt.Errorf("read issue of %s at %s: %w", name, commit.Short(), err)
		}
		edits = append(edits, gitrepo.Edit{Path: path, Data: data})
	}
	return s.without(edits, manifest.IssuedDir(name)+"/"+other)
}

// without adds the removal of a file, where main has it.
func (s *Service) without(edits []gitrepo.Edit, path string) ([]gitrepo.Edit, error) {
	snapshot, err := s.cfg.Store.Snapshot()
	if err != nil {
		return nil, err
	}
	head, err := gitrepo.ParseHash(snapshot.Commit)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Files.ReadFile(head, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return edits, nil
	case err != nil:
		return nil, err
	}
	return append(edits, gitrepo.Edit{Path: path, Delete: true}), nil
}
