package gitstore

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

const readmeText = `# Certferry repository

This branch says what is wished and what was issued:

- certificates/, servers/, issuers/: what people wish
- issued/: what was issued, with the private key sealed to the hub's escrow key

Each server reads a branch of its own, servers/<name>. Commits are signed by the hub.
`

// begin makes the first commit of main.
func (s *Store) begin() error {
	if _, ok := s.repo.Ref(manifest.MainBranch); ok {
		return nil
	}
	text, err := message("start repository "+s.cfg.RepoID, "", Actor{}, nil)
	if err != nil {
		return err
	}
	_, err = s.repo.Apply(context.Background(), []gitrepo.Update{{
		Ref: manifest.MainBranch, Expect: &gitrepo.Hash{}, Author: s.committer(), Committer: s.committer(), Message: text,
		Edits: []gitrepo.Edit{{Path: readme, Data: []byte(readmeText)}},
	}}, nil)
	return err
}

// Apply makes a commit on main and returns it. Edits that change nothing are left out; if none is left, no commit
// is made, BeforeRef is not called, and the commit returned is main as it stands.
func (s *Store) Apply(ctx context.Context, c Change) (commit string, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	if commit, err = s.apply(ctx, c); err != nil {
		return "", fmt.Errorf("change main: %w", err)
	}
	return commit, nil
}

func (s *Store) apply(ctx context.Context, c Change) (string, error) {
	if len(c.Edits) == 0 {
		return "", fmt.Errorf("%w: no edits", ErrInvalid)
	}
	text, err := message(c.Subject, c.Body, c.Actor, c.Trailers)
	if err != nil {
		return "", err
	}
	head, ok := s.repo.Ref(manifest.MainBranch)
	if !ok {
		return "", fmt.Errorf("find main: %w", fs.ErrNotExist)
	}
	edits, err := s.settle(head, c)
	if err != nil {
		return "", err
	}
	if len(edits) == 0 {
		return head.String(), nil
	}
	var before func([]gitrepo.Hash) error
	if c.BeforeRef != nil {
		before = func(hashes []gitrepo.Hash) error { return c.BeforeRef(hashes[0].String()) }
	}
	hashes, err := s.repo.Apply(ctx, []gitrepo.Update{{
		Ref: manifest.MainBranch, Expect: &head, Base: head, Parents: []gitrepo.Hash{head}, Edits: edits,
		Author: s.author(c.Actor), Committer: s.committer(), Message: text,
	}}, before)
	switch {
	case errors.Is(err, gitrepo.ErrInvalid):
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	case err != nil:
		return "", err
	}
	return hashes[0].String(), nil
}

// settle checks the edits of a change against head and returns those that change something.
func (s *Store) settle(head gitrepo.Hash, c Change) ([]gitrepo.Edit, error) {
	expect := head
	if c.Expect != "" {
		var err error
		if expect, err = gitrepo.ParseHash(c.Expect); err != nil {
			return nil, fmt.Errorf("%w: expected commit: %w", ErrInvalid, err)
		}
		if _, err := s.repo.Commit(expect); err != nil {
			return nil, fmt.Errorf("expected commit: %w", err)
		}
	}
	var edits []gitrepo.Edit
	for _, e := range c.Edits {
		if err := checkEdit(e); err != nil {
			return nil, err
		}
		needed, err := s.needed(head, expect, e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Path, err)
		}
		if needed {
			edits = append(edits, e)
		}
	}
	return edits, nil
}

// needed tells whether an edit changes the file as it is in head. If the file is not what it was in expect, that is
// a conflict.
func (s *Store) needed(head, expect gitrepo.Hash, e gitrepo.Edit) (bool, error) {
	now, err := s.fileHash(head, e.Path)
	if err != nil {
		return false, err
	}
	then, err := s.fileHash(expect, e.Path)
	if err != nil {
		return false, err
	}
	if now != then {
		return false, ErrConflict
	}
	if e.Delete || now.IsZero() {
		return true, nil
	}
	data, err := s.repo.Blob(now)
	return !bytes.Equal(data, e.Data), err
}

// fileHash returns the hash of the file at path, zero if there is none.
func (s *Store) fileHash(commit gitrepo.Hash, path string) (gitrepo.Hash, error) {
	e, err := s.repo.Stat(commit, path)
	if errors.Is(err, fs.ErrNotExist) {
		return gitrepo.Hash{}, nil
	}
	return e.Hash, err
}

// PutIssued writes an issued certificate to main: what it is, its chain, and the bundle sealed to the escrow key.
func (s *Store) PutIssued(ctx context.Context, issue Issue) (commit string, err error) {
	s.write.Lock()
	defer s.write.Unlock()
	if commit, err = s.putIssued(ctx, issue); err != nil {
		return "", fmt.Errorf("record certificate %s: %w", issue.Certificate, err)
	}
	return commit, nil
}

func (s *Store) putIssued(ctx context.Context, issue Issue) (string, error) {
	c, _, err := s.issueChange(issue)
	if err != nil {
		return "", err
	}
	return s.apply(ctx, c)
}

// issueChange is the change that writes an issue down.
func (s *Store) issueChange(issue Issue) (Change, *manifest.IssuedCertificate, error) {
	name, b := issue.Certificate, issue.Bundle
	if err := manifest.ValidName(name); err != nil {
		return Change{}, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if b == nil || b.Leaf == nil || (b.Key == nil) != (issue.Issued.KeyCustody == manifest.CustodyServer) {
		return Change{}, nil, fmt.Errorf("%w: the bundle lacks its leaf or its key, or holds a key that is on a server", ErrInvalid)
	}
	document := describeIssued(issue)
	files, err := s.issueFiles(document, b)
	if err != nil {
		return Change{}, nil, err
	}
	c := issue.Change
	if c.Subject == "" {
		if c.Subject, err = s.issueSubject(document); err != nil {
			return Change{}, nil, err
		}
	}
	c.Trailers = withTrailer(c.Trailers, TrailerCertificate, name)
	c.Edits = append(slices.Clip(c.Edits), files...)
	return c, document, nil
}

// describeIssued fills in what the bundle says.
func describeIssued(issue Issue) *manifest.IssuedCertificate {
	d, leaf := issue.Issued, issue.Bundle.Leaf
	d.APIVersion, d.Kind, d.Name = manifest.APIVersion, manifest.KindIssuedCertificate, issue.Certificate
	d.Names = leaf.DNSNames
	d.Serial = fmt.Sprintf("%02x", leaf.SerialNumber.Bytes())
	d.NotBefore, d.NotAfter = leaf.NotBefore.UTC(), leaf.NotAfter.UTC()
	d.LeafSHA256, d.SPKISHA256 = issue.Bundle.LeafSHA256(), issue.Bundle.SPKISHA256()
	return &d
}

// issueSubject says in one line what was issued.
func (s *Store) issueSubject(d *manifest.IssuedCertificate) (string, error) {
	head, _ := s.repo.Ref(manifest.MainBranch)
	before, err := s.issuedAt(head, d.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	verb := "renew"
	switch {
	case before == nil:
		verb = "issue"
	case before.NotAfter.After(d.NotAfter):
		verb = "restore"
	}
	return fmt.Sprintf("%s %s: serial %s until %s", verb, d.Name, shorten(d.Serial, 8), d.NotAfter.Format("2006-01-02")), nil
}

// shorten cuts a long number for people.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n] + "…"
}

// IssuedAt returns what was issued for a certificate as of a commit of main.
func (s *Store) IssuedAt(commit, name string) (*manifest.IssuedCertificate, error) {
	h, err := gitrepo.ParseHash(commit)
	if err != nil {
		return nil, err
	}
	d, err := s.issuedAt(h, name)
	if err != nil {
		return nil, fmt.Errorf("read issued certificate %s: %w", name, err)
	}
	return d, nil
}

func (s *Store) issuedAt(commit gitrepo.Hash, name string) (*manifest.IssuedCertificate, error) {
	if err := manifest.ValidName(name); err != nil {
		return nil, err
	}
	data, err := s.repo.ReadFile(commit, path.Join(manifest.IssuedDir(name), certificateFile))
	if err != nil {
		return nil, err
	}
	return decodeIssued(name, data)
}

// IssuedChain returns the CA certificates above what was issued for a certificate as of a commit of main, the leaf's own
// issuer first. The leaf itself is in the sealed bundle.
func (s *Store) IssuedChain(commit, name string) ([]*x509.Certificate, error) {
	h, err := gitrepo.ParseHash(commit)
	if err != nil {
		return nil, err
	}
	if err := manifest.ValidName(name); err != nil {
		return nil, fmt.Errorf("read chain of %s: %w", name, err)
	}
	data, err := s.repo.ReadFile(h, path.Join(manifest.IssuedDir(name), chainFile))
	if err != nil {
		return nil, fmt.Errorf("read chain of %s: %w", name, err)
	}
	return bundle.ParseChain(data)
}

// OpenIssued opens the escrow copy of a certificate's bundle as of a commit of main. The bundle has no key where that is
// on a server.
func (s *Store) OpenIssued(ctx context.Context, commit, name string) (*bundle.Bundle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.openIssued(commit, name)
	if err != nil {
		return nil, fmt.Errorf("open bundle of %s: %w", name, err)
	}
	return b, nil
}

func (s *Store) openIssued(commit, name string) (*bundle.Bundle, error) {
	h, err := gitrepo.ParseHash(commit)
	if err != nil {
		return nil, err
	}
	document, err := s.issuedAt(h, name)
	if err != nil {
		return nil, err
	}
	if document.KeyCustody == manifest.CustodyServer {
		return s.readIssued(h, document)
	}
	sealed, err := s.repo.ReadFile(h, path.Join(manifest.IssuedDir(name), bundleFile))
	if err != nil {
		return nil, err
	}
	plain, err := s.openEscrow(sealed)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	header, b, err := bundle.Decode(plain)
	if err != nil {
		return nil, err
	}
	want := bundle.Header{Certificate: name, LeafSHA256: document.LeafSHA256}
	if header != want || b.Key == nil {
		return nil, fmt.Errorf("%w: the sealed bundle is another one than %s says", gitrepo.ErrCorrupt, certificateFile)
	}
	return b, nil
}

// seal seals a bundle under its header.
func (s *Store) seal(h bundle.Header, b *bundle.Bundle, to *seal.PublicKey) ([]byte, error) {
	plain, err := bundle.Encode(h, b)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return seal.Seal(plain, to, s.cfg.Hub, s.cfg.Now())
}

// openEscrow opens what was sealed to the hub's own key, or to a former one.
func (s *Store) openEscrow(sealed []byte) ([]byte, error) {
	plain, err := seal.Open(sealed, s.cfg.Escrow, s.sealers, s.cfg.Now())
	for _, former := range s.cfg.RetiredEscrow {
		if !errors.Is(err, seal.ErrNotForUs) {
			break
		}
		plain, err = seal.Open(sealed, former, s.sealers, s.cfg.Now())
	}
	return plain, err
}
