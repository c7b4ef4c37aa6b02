// This file is about certificates whose private key was made on their server and never leaves it. Main has their leaf
// in clear, and no sealed bundle; the bundle on the server's branch holds no key.

package gitstore

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// issueFiles writes the files of an issue, and removes the one that only the other custody of the key has.
func (s *Store) issueFiles(document *manifest.IssuedCertificate, b *bundle.Bundle) ([]gitrepo.Edit, error) {
	text, err := document.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	at := func(file string) string { return path.Join(manifest.IssuedDir(document.Name), file) }
	edits := []gitrepo.Edit{{Path: at(certificateFile), Data: text}, {Path: at(chainFile), Data: b.ChainPEM()}}
	other := at(leafFile)
	if document.KeyCustody == manifest.CustodyServer {
		other = at(bundleFile)
		edits = append(edits, gitrepo.Edit{Path: at(leafFile), Data: b.LeafPEM()})
	} else {
		sealed, err := s.seal(bundle.Header{Certificate: document.Name, LeafSHA256: b.LeafSHA256()}, b, s.cfg.Escrow.Public())
		if err != nil {
			return nil, err
		}
		edits = append(edits, gitrepo.Edit{Path: at(bundleFile), Data: sealed})
	}
	head, _ := s.repo.Ref(manifest.MainBranch)
	stands, err := s.fileHash(head, other)
	if err != nil {
		return nil, err
	}
	if !stands.IsZero() {
		edits = append(edits, gitrepo.Edit{Path: other, Delete: true})
	}
	return edits, nil
}

// readIssued reads an issue whose key is on a server.
func (s *Store) readIssued(commit gitrepo.Hash, document *manifest.IssuedCertificate) (*bundle.Bundle, error) {
	dir := manifest.IssuedDir(document.Name)
	data, err := s.repo.ReadFile(commit, path.Join(dir, leafFile))
	if err != nil {
		return nil, err
	}
	b := &bundle.Bundle{}
	if b.Leaf, err = parseLeaf(data); err != nil {
		return nil, fmt.Errorf("%w: %w", gitrepo.ErrCorrupt, err)
	}
	if b.LeafSHA256() != document.LeafSHA256 {
		return nil, fmt.Errorf("%w: %s is another leaf than %s says", gitrepo.ErrCorrupt, leafFile, certificateFile)
	}
	if data, err = s.repo.ReadFile(commit, path.Join(dir, chainFile)); err != nil {
		return nil, err
	}
	b.Chain, err = bundle.ParseChain(data)
	return b, err
}

// parseLeaf reads the one certificate of a leaf.pem.
func parseLeaf(data []byte) (*x509.Certificate, error) {
	all, err := bundle.ParseChain(data)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, errors.New("must hold one certificate")
	}
	return all[0], nil
}
