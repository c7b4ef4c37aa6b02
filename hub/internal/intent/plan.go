// This file says what a change of main would lead to, before it is made.

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
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// maxPlanServers bounds the names of servers in a plan.
const maxPlanServers = 100

// planDirs are the folders that people write, beside README.md.
var planDirs = []string{"certificates", "issuers", "servers"}

// PlanBase lists the files of main that people write, as they are at commit; an empty commit stands for the newest.
func (s *Service) PlanBase(_ context.Context, commit string) (apiv1.PlanBase, error) {
	at, err := s.planCommit("query.commit", commit)
	if err != nil {
		return apiv1.PlanBase{}, err
	}
	base := apiv1.PlanBase{Commit: at.String(), Files: map[string]string{}}
	for _, dir := range append([]string{""}, planDirs...) {
		entries, err := s.cfg.Files.ReadDir(at, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return apiv1.PlanBase{}, fmt.Errorf("list files of %s: %w", at.Short(), err)
		}
		for _, e := range entries {
			path := strings.TrimPrefix(dir+"/"+e.Name, "/")
			if !e.Dir && gitstore.IsIntent(path) {
				base.Files[path] = e.Hash.String()
			}
		}
	}
	return base, nil
}

// planCommit finds a commit by its first digits.
func (s *Service) planCommit(location, prefix string) (gitrepo.Hash, error) {
	if prefix == "" {
		snapshot, err := s.cfg.Store.Snapshot()
		if err != nil {
			return gitrepo.Hash{}, fmt.Errorf("read main: %w", err)
		}
		return gitrepo.ParseHash(snapshot.Commit)
	}
	c, err := s.cfg.Files.Resolve(prefix)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return gitrepo.Hash{}, invalid(location, "the hub has no such commit: give one of its main, which git merge-base origin/main HEAD finds")
	case errors.Is(err, gitrepo.ErrInvalid):
		return gitrepo.Hash{}, invalid(location, "give 7 to 40 lower-case hex digits of one commit")
	case err != nil:
		return gitrepo.Hash{}, fmt.Errorf("find commit: %w", err)
	}
	return c, nil
}

// Plan says what files would change if somebody pushed them to main now. Nothing is changed.
func (s *Service) Plan(_ context.Context, request apiv1.PlanRequest) (apiv1.Plan, error) {
	before, err := s.cfg.Store.Snapshot()
	if err != nil {
		return apiv1.Plan{}, fmt.Errorf("read main: %w", err)
	}
	base, err := s.planCommit("body.base", request.Base)
	if err != nil {
		return apiv1.Plan{}, err
	}
	head, err := gitrepo.ParseHash(before.Commit)
	if err != nil {
		return apiv1.Plan{}, fmt.Errorf("read main: %w", err)
	}
	edits, faults, err := s.planEdits(base, head, request.Files)
	if err != nil {
		return apiv1.Plan{}, err
	}
	plan := apiv1.Plan{
		Commit: before.Commit, Changed: len(edits) + len(faults),
		Faults: []apiv1.PlanFault{}, Certificates: []apiv1.PlanCertificate{}, Servers: []string{}, Summary: []string{},
	}
	after, more := before.With(edits)
	if faults = append(faults, more...); len(faults) == 0 {
		j := s.newJudgement(before, after)
		for _, e := range edits {
			j.file(e.Path, e.Data)
		}
		faults = j.faults
	}
	if len(faults) > 0 {
		plan.Faults = viewFaults(faults)
		return plan, nil
	}
	changes := make([]gitrepo.FileChange, 0, len(edits))
	for _, e := range edits {
		changes = append(changes, gitrepo.FileChange{Path: e.Path})
	}
	e := s.effectsOf(before, after, changes)
	plan.Certificates = append(plan.Certificates, e.Certificates...)
	plan.ServerCount = len(e.Servers)
	plan.Servers = append(plan.Servers, e.Servers[:min(len(e.Servers), maxPlanServers)]...)
	if plan.Changed > 0 {
		plan.Summary = append(plan.Summary, e.lines()...)
	}
	return plan, nil
}

// planEdits keeps of the files those that differ from main at head. A file that changed on main since base, and
// otherwise here, is a fault.
func (s *Service) planEdits(base, head gitrepo.Hash, files []apiv1.PlanFile) (edits []gitrepo.Edit, faults []gitstore.Fault, err error) {
	seen := map[string]bool{}
	for i, f := range files {
		if seen[f.Path] {
			return nil, nil, invalid(fmt.Sprintf("body.files[%d].path", i), "stands there twice")
		}
		seen[f.Path] = true
		if f.Removed && f.Content != "" {
			return nil, nil, invalid(fmt.Sprintf("body.files[%d]", i), "give either content or removed")
		}
		was, err := s.planFile(base, f.Path)
		if err != nil {
			return nil, nil, err
		}
		now, err := s.planFile(head, f.Path)
		if err != nil {
			return nil, nil, err
		}
		wish := &f.Content
		if f.Removed {
			wish = nil
		}
		switch {
		case same(now, wish):
		case !same(now, was):
			faults = append(faults, gitstore.Fault{Path: f.Path, Err: errors.New("somebody else changed this file on main: pull, then look again")})
		default:
			edits = append(edits, gitrepo.Edit{Path: f.Path, Delete: f.Removed, Data: dataOf(wish)})
		}
	}
	slices.SortFunc(edits, func(a, b gitrepo.Edit) int { return strings.Compare(a.Path, b.Path) })
	return edits, faults, nil
}

func same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// dataOf is nil for a file that is removed, and only then.
func dataOf(content *string) []byte {
	if content == nil {
		return nil
	}
	return append([]byte{}, *content...)
}

// planFile reads a file; nil where there is none, or none by such a name.
func (s *Service) planFile(commit gitrepo.Hash, path string) (*string, error) {
	if !gitstore.IsIntent(path) {
		return nil, nil //nolint:nilnil // what the hub alone writes is refused later, whatever it holds
	}
	data, err := s.cfg.Files.ReadFile(commit, path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, gitrepo.ErrInvalid) {
		return nil, nil //nolint:nilnil // see above
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	content := string(data)
	return &content, nil
}

func viewFaults(faults []gitstore.Fault) []apiv1.PlanFault {
	slices.SortStableFunc(faults, func(a, b gitstore.Fault) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	all := make([]apiv1.PlanFault, 0, len(faults))
	for _, f := range faults {
		text := f.Err.Error()
		if known := new(hub.Error); errors.As(f.Err, &known) {
			text = known.Message
		}
		all = append(all, apiv1.PlanFault{Path: f.Path, Line: f.Line, Message: text})
	}
	return all
}
