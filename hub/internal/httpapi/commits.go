// The repository as people look at it: commits, what they changed, who signed them, and what the hub said to those
// that people pushed.

package httpapi

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// maxFiles bounds how many files of a commit are shown.
const maxFiles = 300

// Commits reads the repository's history.
type Commits interface {
	Branch(name string, limit int) ([]*gitrepo.Commit, error)
	Commit(prefix string) (*gitrepo.Commit, error)
	Diff(from, to gitrepo.Hash) ([]gitstore.FileDiff, error)
	Signature(c *gitrepo.Commit) (state gitstore.SignatureState, fingerprint string)
	Verdict(c *gitrepo.Commit) (by *gitrepo.Commit, refused, ok bool, err error)
}

func (s *server) addCommits() {
	add(s, operation{
		id: "list-commits", method: http.MethodGet, path: "/commits", tag: "commits", summary: "List the commits of a branch, newest first",
	}, s.listCommits)
	add(s, operation{
		id: "get-commit", method: http.MethodGet, path: "/commits/{commit}", tag: "commits", summary: "Show a commit and what it changed",
	}, s.getCommit)
	add(s, operation{
		id: "compare-commits", method: http.MethodGet, path: "/commits/{commit}/diff", tag: "commits",
		summary: "Show what changed from one commit to another",
	}, s.compareCommits)
}

type commitsInput struct {
	PageInput

	Branch string `query:"branch" maxLength:"250" default:"main" doc:"main, servers/NAME or proposals/CERTIFICATE/SERIAL."`
}

// CommitInput names a commit.
type CommitInput struct {
	Commit string `path:"commit" maxLength:"40" doc:"7 to 40 digits of the commit."`
}

type compareInput struct {
	CommitInput

	From string `query:"from" maxLength:"40" doc:"7 to 40 digits of the commit to compare with; the parent by default."`
}

func (s *server) listCommits(_ context.Context, _ *call, in *commitsInput) (*listOutput[apiv1.Commit], error) {
	commits, err := s.cfg.Commits.Branch(in.Branch, depth(in.PageInput))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid("query.branch", "there is no such branch: give main, servers/NAME or proposals/CERTIFICATE/SERIAL")
	}
	if err != nil {
		return nil, err
	}
	return historyPage(commits, in.PageInput, viewCommit)
}

func (s *server) getCommit(_ context.Context, _ *call, in *CommitInput) (*output[apiv1.CommitDetail], error) {
	c, err := s.commit("path.commit", in.Commit)
	if err != nil {
		return nil, err
	}
	out := apiv1.CommitDetail{
		Commit: viewCommit(c), Body: bodyOf(c.Message), Committer: oneLine(c.Committer.Name), Parents: []string{},
	}
	for _, p := range c.Parents {
		out.Parents = append(out.Parents, p.String())
	}
	state, fingerprint := s.cfg.Commits.Signature(c)
	out.Signature = apiv1.CommitSignature{State: string(state), Fingerprint: fingerprint}
	if out.Verdict, err = s.verdict(c); err != nil {
		return nil, err
	}
	if out.Files, out.MoreFiles, err = s.diff(firstParent(c), c.Hash); err != nil {
		return nil, err
	}
	return &output[apiv1.CommitDetail]{Body: out}, nil
}

func (s *server) compareCommits(_ context.Context, _ *call, in *compareInput) (*output[apiv1.Comparison], error) {
	to, err := s.commit("path.commit", in.Commit)
	if err != nil {
		return nil, err
	}
	from := firstParent(to)
	if in.From != "" {
		c, err := s.commit("query.from", in.From)
		if err != nil {
			return nil, err
		}
		from = c.Hash
	}
	out := apiv1.Comparison{To: to.Hash.String()}
	if !from.IsZero() {
		out.From = from.String()
	}
	if out.Files, out.MoreFiles, err = s.diff(from, to.Hash); err != nil {
		return nil, err
	}
	return &output[apiv1.Comparison]{Body: out}, nil
}

// commit finds the commit that a caller means.
func (s *server) commit(location, prefix string) (*gitrepo.Commit, error) {
	c, err := s.cfg.Commits.Commit(prefix)
	switch {
	case errors.Is(err, gitrepo.ErrInvalid) && len(prefix) >= gitrepo.MinPrefix:
		return nil, invalid(location, "give lower-case hex digits, and more of them if several commits start alike")
	case errors.Is(err, gitrepo.ErrInvalid):
		return nil, invalid(location, "give at least 7 digits of the commit")
	case errors.Is(err, fs.ErrNotExist):
		return nil, &hub.Error{Class: hub.ErrNotFound, Message: "there is no such commit: certferry commit ls lists them"}
	}
	return c, err
}

func (s *server) diff(from, to gitrepo.Hash) (files []apiv1.FileDiff, more int, err error) {
	diffs, err := s.cfg.Commits.Diff(from, to)
	if err != nil {
		return nil, 0, err
	}
	more = max(0, len(diffs)-maxFiles)
	files = make([]apiv1.FileDiff, 0, len(diffs)-more)
	for _, d := range diffs[:len(diffs)-more] {
		files = append(files, apiv1.FileDiff{Path: d.Path, OldSize: sizeOf(d.OldSize), NewSize: sizeOf(d.NewSize), Diff: lines(d.Text)})
	}
	return files, more, nil
}

func (s *server) verdict(c *gitrepo.Commit) (*apiv1.CommitVerdict, error) {
	by, refused, ok, err := s.cfg.Commits.Verdict(c)
	if err != nil || !ok {
		return nil, err
	}
	v := &apiv1.CommitVerdict{Applied: !refused}
	if by != nil {
		v.Commit = by.Hash.String()
	}
	if refused {
		v.Reason = bodyOf(by.Message)
	}
	return v, nil
}

func firstParent(c *gitrepo.Commit) gitrepo.Hash {
	if len(c.Parents) == 0 {
		return gitrepo.Hash{}
	}
	return c.Parents[0]
}

func sizeOf(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

// bodyOf is a message without its subject and its trailers.
func bodyOf(message string) string {
	_, body, _ := strings.Cut(message, "\n")
	if len(trailers(message)) > 0 {
		body, _, _ = cutLast(strings.TrimRight(body, "\n"), "\n\n")
	}
	return lines(strings.Trim(body, "\n"))
}
