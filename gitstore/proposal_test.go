package gitstore_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

func propose(tb testing.TB, s *gitstore.Store, b *bundle.Bundle) *gitstore.Proposal {
	tb.Helper()
	commit, err := s.Propose(tb.Context(), gitstore.Issue{
		Certificate: "a", Bundle: b, Issued: manifest.IssuedCertificate{Issuer: "internal", KeyType: "ecdsa-p256"},
	})
	if err != nil {
		tb.Fatal(err)
	}
	p, err := s.Proposal("a", "")
	if err != nil || p.Commit.Hash.String() != commit || p.Tip != p.Commit.Hash || p.Issued.LeafSHA256 != b.LeafSHA256() {
		tb.Fatalf("got %+v, %v", p, err)
	}
	return p
}

// TestProposal walks one from its making over approvals to main; main has nothing of it before.
func TestProposal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	old := propose(t, s, w.bundle(30, "a.test"))
	p := propose(t, s, w.bundle(60, "a.test"))
	if _, err := s.Proposal("a", old.Serial); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want the older proposal gone", err)
	}
	if snapshot(t, s).Issued["a"] != nil {
		t.Fatal("main has it already")
	}
	w.must(s.Approve(t.Context(), p, gitstore.Change{Subject: "approve a", Actor: ada}))
	if err := s.Approve(t.Context(), p, gitstore.Change{Subject: "approve a", Actor: ada}); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("got %v, want ErrConflict for a proposal that moved", err)
	}
	p, err := s.Proposal("a", p.Serial)
	w.must(err)
	if len(p.Approvals) != 1 || p.Approvals[0].Name != "Ada" || p.Approvals[0].Commit.Author.Name != "Ada" {
		t.Fatalf("got approvals %+v", p.Approvals)
	}
	apply(t, s, "something else", certificateYAML(t, "b", "b.test"))
	commit, err := s.MergeProposal(t.Context(), p, gitstore.Change{Subject: "merge a", Actor: ada})
	w.must(err)
	snap := snapshot(t, s)
	if snap.Commit != commit || snap.Issued["a"].LeafSHA256 != p.Issued.LeafSHA256 || snap.Certificates["b"] == nil {
		t.Errorf("got %+v", snap)
	}
	if b, err := s.OpenIssued(t.Context(), commit, "a"); err != nil || b.LeafSHA256() != p.Issued.LeafSHA256 {
		t.Errorf("got %v, %v", b, err)
	}
	if all, err := s.Proposals(); err != nil || len(all) != 0 {
		t.Errorf("got open proposals %v, %v", all, err)
	}
	if out := run(t, w.dir, nil, "", "git", "log", "--oneline", "--graph", "main"); !strings.Contains(out, "approve a") {
		t.Errorf("the history does not tell who agreed:\n%s", out)
	}
	run(t, w.dir, nil, "", "git", "fsck", "--strict", "--no-progress")
}

// TestProposalSuperseded does not merge over a newer issue.
func TestProposalSuperseded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	p := propose(t, s, w.bundle(30, "a.test"))
	issue(t, s, "a", w.bundle(60, "a.test"))
	if _, err := s.MergeProposal(t.Context(), p, gitstore.Change{Subject: "merge a", Actor: ada}); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("got %v, want ErrConflict", err)
	}
}

// TestCloseProposal removes a proposal, with or without a change on main.
func TestCloseProposal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.open(1)
	apply(t, s, "start", issuerYAML(t, "internal"), certificateYAML(t, "a", "a.test"))
	p := propose(t, s, w.bundle(30, "a.test"))
	told := ""
	w.must(s.CloseProposal(t.Context(), p, gitstore.Change{
		Subject: "reject a", Actor: ada, Edits: []gitrepo.Edit{certificateYAML(t, "a", "a.test", "www.a.test")},
		BeforeRef: func(commit string) error { told = commit; return nil },
	}))
	if snap := snapshot(t, s); snap.Commit != told || len(snap.Certificates["a"].Names) != 2 {
		t.Errorf("main is at %s, told %s", snap.Commit, told)
	}
	p = propose(t, s, w.bundle(30, "a.test"))
	w.must(s.CloseProposal(t.Context(), p, gitstore.Change{}))
	if err := s.CloseProposal(t.Context(), p, gitstore.Change{}); !errors.Is(err, gitstore.ErrConflict) {
		t.Errorf("got %v, want ErrConflict for a proposal that is gone", err)
	}
}
