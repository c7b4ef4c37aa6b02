// This file shows commits to people: what changed, readably, and who signed.

package gitstore

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// maxDiffFile bounds the files that are compared line by line, in bytes.
const maxDiffFile = 256 << 10

// FileDiff is what a commit did to one file.
type FileDiff struct {
	Path string
	// OldSize and NewSize are in bytes, -1 where the file is absent.
	OldSize int
	NewSize int
	// Text is a unified diff; empty for what is sealed, signatures, and files that are no text or too large. JSON is
	// compared as if it were indented, as a line of a manifest tells nobody anything.
	Text string
}

// Diff says what changed between two commits, sorted by path; the zero from stands for nothing.
func (s *Store) Diff(from, to gitrepo.Hash) ([]FileDiff, error) {
	changes, err := s.repo.Changes(from, to)
	if err != nil {
		return nil, fmt.Errorf("compare commits: %w", err)
	}
	out := make([]FileDiff, 0, len(changes))
	for _, c := range changes {
		d, err := s.fileDiff(c)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", c.Path, err)
		}
		out = append(out, d)
	}
	return out, nil
}

func (s *Store) fileDiff(c gitrepo.FileChange) (FileDiff, error) {
	d := FileDiff{Path: c.Path, OldSize: -1, NewSize: -1}
	before, err := s.side(c.Old, &d.OldSize)
	if err != nil {
		return d, err
	}
	after, err := s.side(c.New, &d.NewSize)
	if err != nil {
		return d, err
	}
	if opaque(c.Path) || len(before) > maxDiffFile || len(after) > maxDiffFile || !isText(before) || !isText(after) {
		return d, nil
	}
	oldName, newName := "a/"+c.Path, "b/"+c.Path
	if d.OldSize < 0 {
		oldName = "/dev/null"
	}
	if d.NewSize < 0 {
		newName = "/dev/null"
	}
	d.Text = udiff.Unified(oldName, newName, readable(c.Path, before), readable(c.Path, after))
	return d, nil
}

// side reads one side of a change.
func (s *Store) side(h gitrepo.Hash, size *int) ([]byte, error) {
	if h.IsZero() {
		return nil, nil
	}
	data, err := s.repo.Blob(h)
	*size = len(data)
	return data, err
}

// opaque tells whether the content of a file says nothing to people.
func opaque(name string) bool {
	switch path.Ext(name) {
	case ".pgp", ".sig", ".key":
		return true
	default:
		return false
	}
}

func isText(data []byte) bool { return utf8.Valid(data) && !bytes.ContainsRune(data, 0) }

// readable lays JSON out in lines; everything else stays as it is.
func readable(name string, data []byte) string {
	var out bytes.Buffer
	if path.Ext(name) == ".json" && json.Indent(&out, data, "", "  ") == nil {
		return strings.TrimSuffix(out.String(), "\n") + "\n"
	}
	return string(data)
}

// SignatureState says what a commit's signature is worth.
type SignatureState string

// The states of a signature.
const (
	SignedByHub  SignatureState = "hub"
	SignedNot    SignatureState = "none"
	SignedByElse SignatureState = "unknown"
)

// Signature checks a commit's signature against the hub's keys, present and former; a stolen one does not count. Where
// the state is SignedByHub, fingerprint says which
// key it was; SignedByElse is a signature of another key, or one that does not verify.
func (s *Store) Signature(c *gitrepo.Commit) (state SignatureState, fingerprint string) {
	if c.Signature == "" {
		return SignedNot, ""
	}
	fingerprint, err := seal.Verify("", c.Payload, []byte(c.Signature), s.signers, s.cfg.Now())
	if err != nil {
		return SignedByElse, ""
	}
	return SignedByHub, fingerprint
}

// Branch lists the commits of a branch along first parents, newest first, at most limit (0 for all). The name is main,
// servers/<name> or proposals/<certificate>/<serial>; the error is fs.ErrNotExist where there is no such branch.
func (s *Store) Branch(name string, limit int) ([]*gitrepo.Commit, error) {
	h, ok := s.repo.Ref(strings.TrimSuffix(manifest.MainBranch, "main") + name)
	if !ok {
		return nil, fmt.Errorf("read branch %s: %w", name, fs.ErrNotExist)
	}
	log, err := s.repo.Log(h, limit)
	if err != nil {
		return nil, fmt.Errorf("read branch %s: %w", name, err)
	}
	return log, nil
}

// Commit reads the commit whose name starts with prefix; see gitrepo.Repo.Resolve for the errors.
func (s *Store) Commit(prefix string) (*gitrepo.Commit, error) {
	h, err := s.repo.Resolve(prefix)
	if err != nil {
		return nil, err
	}
	return s.repo.Commit(h)
}

// verdictTrailer marks the commit with which the hub refused what somebody pushed; its body says why.
const verdictTrailer = "Refused"

// Verdict says what became of a commit that people pushed: the commit of main with which the hub took it up, and
// whether it was refused. ok is false for commits that nobody judged, such as the hub's own.
func (s *Store) Verdict(c *gitrepo.Commit) (by *gitrepo.Commit, refused, ok bool, err error) {
	state, _ := s.Signature(c)
	if state == SignedByHub {
		return nil, false, false, nil
	}
	head, found := s.repo.Ref(manifest.MainBranch)
	if !found {
		return nil, false, false, nil
	}
	log, err := s.repo.Log(head, 0)
	if err != nil {
		return nil, false, false, err
	}
	for _, m := range log {
		if m.Hash == c.Hash {
			return nil, false, true, nil // it is itself on main
		}
		if len(m.Parents) < 2 {
			continue
		}
		within, err := s.repo.Between(m.Parents[0], m.Parents[1])
		if err != nil {
			return nil, false, false, err
		}
		for _, w := range within {
			if w.Hash == c.Hash {
				return m, hasTrailer(Trailers(m.Message), verdictTrailer, ""), true, nil
			}
		}
	}
	return nil, false, false, nil
}
