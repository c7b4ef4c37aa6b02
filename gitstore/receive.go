// This file takes up what people pushed: commits on top of main, or beside it. A pushed range is applied as a whole or
// refused as a whole, main is valid at every commit, and no commit of a person is ever lost.

package gitstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// Push is commits that people made.
type Push struct {
	// Incoming holds the objects that came, Tip is the newest commit.
	Incoming *gitrepo.Incoming
	Tip      gitrepo.Hash
	// Beside says that Tip need not stand on top of main, as on a remote where people push while the hub commits: it
	// is merged by file then, and a refusal is recorded on main by a commit that keeps main's files. Without it such
	// a Tip is ErrConflict, and what is refused leaves no trace.
	Beside bool
	// Actor and Trailers are of the hub's own commit, where one is made.
	Actor    Actor
	Trailers []Trailer
	// Judge says what is wrong beyond the rules of the repository; nil accepts. after is main as it would be.
	Judge func(before, after *Snapshot, commits []*gitrepo.Commit, changes []gitrepo.FileChange) []Fault
	// BeforeRef is as in Change.
	BeforeRef func(commit string) error
}

// Verdict is what became of a Push.
type Verdict struct {
	// Commit is where main is now.
	Commit string
	// Applied says that what was pushed counts. Faults say why not.
	Applied bool
	Faults  []Fault
	// Changes are the files that the push changed, compared with what it was made on.
	Changes []gitrepo.FileChange
	// Proposals are the branches of proposals that the push merged; they are gone.
	Proposals []string
}

// TrailerRefused names, in the commit that records a refusal, the commit that was refused.
const TrailerRefused = verdictTrailer

// Receive decides about a push and, if it is applied or Beside is set, moves main. A push without anything new is
// applied and makes no commit. The error is ErrInvalid for a Tip that has nothing in common with main, or whose
// objects are incomplete or forbidden.
func (s *Store) Receive(ctx context.Context, p Push) (Verdict, error) {
	s.write.Lock()
	defer s.write.Unlock()
	v, err := s.receive(ctx, p)
	if err != nil {
		return v, fmt.Errorf("receive %s: %w", p.Tip.Short(), err)
	}
	return v, nil
}

func (s *Store) receive(ctx context.Context, p Push) (Verdict, error) {
	r, err := s.newReception(p)
	if err != nil {
		return Verdict{}, err
	}
	if r.base == p.Tip {
		return Verdict{Commit: r.head.String(), Applied: true}, nil
	}
	if !p.Beside && r.base != r.head {
		return Verdict{}, fmt.Errorf("%w: main has moved on: pull, then push again", ErrConflict)
	}
	if err := r.judge(); err != nil {
		return Verdict{}, err
	}
	v := Verdict{Commit: r.head.String(), Applied: len(r.faults) == 0, Faults: r.faults, Changes: r.changes}
	if !v.Applied && !p.Beside {
		return v, nil
	}
	updates, err := r.updates()
	if err != nil {
		return Verdict{}, err
	}
	if v.Applied {
		v.Proposals = slices.Sorted(maps.Keys(r.merged))
	}
	var before func([]gitrepo.Hash) error
	if p.BeforeRef != nil {
		before = func(hashes []gitrepo.Hash) error { return p.BeforeRef(hashes[0].String()) }
	}
	hashes, err := s.repo.Apply(ctx, updates, before)
	if err != nil {
		return Verdict{}, forbidden(err)
	}
	v.Commit = hashes[0].String()
	return v, nil
}

// forbidden gives what a pusher can mend its class.
func forbidden(err error) error {
	if errors.Is(err, gitrepo.ErrInvalid) || errors.Is(err, gitrepo.ErrCorrupt) || errors.Is(err, gitrepo.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// reception is the work on one push.
type reception struct {
	store *Store
	push  Push
	head  gitrepo.Hash
	// base is what main and the push have in common.
	base    gitrepo.Hash
	changes []gitrepo.FileChange
	edits   []gitrepo.Edit
	faults  []Fault
	// merged are the proposals whose files the push brings, by reference.
	merged map[string]gitrepo.Hash
}

func (s *Store) newReception(p Push) (*reception, error) {
	r := &reception{store: s, push: p, merged: map[string]gitrepo.Hash{}}
	var ok bool
	if r.head, ok = s.repo.Ref(manifest.MainBranch); !ok {
		return nil, errors.New("there is no main")
	}
	base, common, err := p.Incoming.MergeBase(r.head, p.Tip)
	if err != nil {
		return nil, forbidden(err)
	}
	if !common {
		return nil, fmt.Errorf("%w: it has no commit in common with main", ErrInvalid)
	}
	r.base = base
	if r.changes, err = p.Incoming.Changes(base, p.Tip); err != nil {
		return nil, forbidden(err)
	}
	return r, nil
}

// judge collects what is wrong, first file by file, then as a whole.
func (r *reception) judge() error {
	s := r.store
	before, err := s.Snapshot()
	if err != nil {
		return err
	}
	after := &Snapshot{
		Commit: r.push.Tip.String(), Certificates: before.withoutSeconds(), Servers: maps.Clone(before.Servers),
		Issuers: maps.Clone(before.Issuers), Issued: before.Issued, Rollouts: before.Rollouts,
	}
	for _, c := range r.changes {
		if err := r.file(c, after); err != nil {
			return err
		}
	}
	if err := r.wholeProposals(); err != nil {
		return err
	}
	after.addSeconds()
	r.faults = append(r.faults, after.Faults...)
	if len(r.faults) > 0 || r.push.Judge == nil {
		return nil
	}
	commits, err := r.push.Incoming.Between(r.head, r.push.Tip)
	if err != nil {
		return forbidden(err)
	}
	r.faults = r.push.Judge(before, after, commits, r.changes)
	return nil
}

// file checks one changed file and lays it over after.
func (r *reception) file(c gitrepo.FileChange, after *Snapshot) error {
	now, err := r.store.fileHash(r.head, c.Path)
	if err != nil {
		return err
	}
	if now == c.New {
		return nil // the hub came to the same
	}
	if now != c.Old {
		r.fault(c.Path, 0, fmt.Errorf("%w; your version stays in commit %s: look at it with git show %s:%s, then bring what is missing on top of main",
			ErrConflict, r.push.Tip.Short(), r.push.Tip.Short(), c.Path))
		return nil
	}
	e := gitrepo.Edit{Path: c.Path, Delete: c.New.IsZero()}
	if !e.Delete {
		if e.Data, err = r.push.Incoming.Blob(c.New); err != nil {
			return forbidden(err)
		}
	}
	if dir, _, _ := strings.Cut(c.Path, "/"); !intentDirs[dir] && c.Path != readme {
		return r.hubFile(c, e)
	}
	if err := checkEdit(e); err != nil {
		r.faultsOf(e.Path, err)
		return nil
	}
	r.edits = append(r.edits, e)
	return layOver(after, e)
}

// intentDirs are the folders that people may change.
var intentDirs = map[string]bool{certificatesDir: true, serversDir: true, issuersDir: true}

// hubFile accepts a file that only the hub writes if it is what the hub proposed: that is how a proposal is merged on
// a Git host.
func (r *reception) hubFile(c gitrepo.FileChange, e gitrepo.Edit) error {
	ref, at, err := r.store.proposalWith(c.Path, c.New)
	if err != nil {
		return err
	}
	if ref == "" {
		r.fault(c.Path, 0, errHubOnly)
		return nil
	}
	r.merged[ref] = at
	r.edits = append(r.edits, e)
	return nil
}

var errHubOnly = errors.New("only the hub writes this file; people may change certificates/, servers/, issuers/ and " + readme)

// wholeProposals makes sure that of a proposal all files come or none: a chain without its key would be of no use.
func (r *reception) wholeProposals() error {
	for ref, at := range r.merged {
		dir := manifest.IssuedDir(manifest.ProposalOf(ref))
		files, err := r.store.repo.ReadDir(at, dir)
		if err != nil {
			return err
		}
		for _, f := range files {
			path := dir + "/" + f.Name
			have, err := r.store.fileHash(r.head, path)
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(r.changes, func(c gitrepo.FileChange) bool { return c.Path == path }); i >= 0 {
				have = r.changes[i].New
			}
			if have != f.Hash {
				r.fault(path, 0, errors.New("the proposal must be merged as a whole, and this file of it is missing"))
			}
		}
	}
	return nil
}

// proposalWith finds the proposal whose commit holds the file hash at path.
func (s *Store) proposalWith(path string, hash gitrepo.Hash) (ref string, at gitrepo.Hash, err error) {
	certificate := certificateOf(path)
	if certificate == "" || hash.IsZero() {
		return "", gitrepo.Hash{}, nil
	}
	for name, tip := range s.repo.Refs() {
		if manifest.ProposalOf(name) != certificate {
			continue
		}
		have, err := s.fileHash(tip, path)
		if err != nil {
			return "", gitrepo.Hash{}, err
		}
		if have == hash {
			return name, tip, nil
		}
	}
	return "", gitrepo.Hash{}, nil
}

// certificateOf is the certificate whose issue the file at path is part of, empty for other files.
func certificateOf(path string) string {
	parts := strings.Split(path, "/")
	switch {
	case len(parts) == 4 && parts[0] == issuedDir:
		return parts[2]
	case len(parts) == 2 && parts[0] == rolloutsDir:
		return strings.TrimSuffix(parts[1], ".yaml")
	}
	return ""
}

func (r *reception) fault(path string, line int, err error) {
	r.faults = append(r.faults, Fault{Path: path, Line: line, Err: err})
}

// faultsOf takes what is wrong with a file apart.
func (r *reception) faultsOf(path string, err error) {
	for _, f := range manifest.Faults(bare(err)) {
		r.fault(path, f.Line, errors.New(f.String()))
	}
}

// bare takes off what checkEdit puts around the reason.
func bare(err error) error {
	if list, ok := err.(interface{ Unwrap() []error }); ok && errors.Is(err, ErrInvalid) {
		if all := list.Unwrap(); len(all) == 2 {
			return all[1]
		}
	}
	return err
}

// layOver changes a snapshot as an edit that was checked does.
func layOver(snap *Snapshot, e gitrepo.Edit) error {
	dir, file, _ := strings.Cut(e.Path, "/")
	name := strings.TrimSuffix(file, ".yaml")
	switch dir {
	case certificatesDir:
		return lay(snap.Certificates, name, e, manifest.DecodeCertificate)
	case serversDir:
		return lay(snap.Servers, name, e, manifest.DecodeServer)
	case issuersDir:
		return lay(snap.Issuers, name, e, manifest.DecodeIssuer)
	}
	return nil
}

func lay[T any](to map[string]*T, name string, e gitrepo.Edit, decode func([]byte) (*T, error)) error {
	if e.Delete {
		delete(to, name)
		return nil
	}
	v, err := decode(e.Data)
	if err != nil {
		return err
	}
	to[name] = v
	return nil
}

// updates moves main to the push, to a merge with it, or to a commit that records the refusal.
func (r *reception) updates() ([]gitrepo.Update, error) {
	s, p := r.store, r.push
	if len(r.faults) == 0 && r.base == r.head {
		return r.withProposals(gitrepo.Update{Ref: manifest.MainBranch, Expect: &r.head, To: p.Tip, Incoming: p.Incoming}), nil
	}
	u := gitrepo.Update{
		Ref: manifest.MainBranch, Expect: &r.head, Base: r.head, Parents: []gitrepo.Hash{r.head, p.Tip}, Incoming: p.Incoming,
		Author: s.author(p.Actor), Committer: s.committer(),
	}
	subject, body, trailers := "merge "+p.Tip.Short(), "", p.Trailers
	if len(r.faults) > 0 {
		subject, body = refusal(p.Tip, r.faults)
		trailers = withTrailer(trailers, TrailerRefused, p.Tip.String())
	} else {
		u.Edits = r.edits
	}
	var err error
	if u.Message, err = message(subject, body, p.Actor, trailers); err != nil {
		return nil, err
	}
	if len(r.faults) > 0 {
		return []gitrepo.Update{u}, nil
	}
	return r.withProposals(u), nil
}

// withProposals removes, in the same batch, the proposals that are merged by it.
func (r *reception) withProposals(u gitrepo.Update) []gitrepo.Update {
	updates := []gitrepo.Update{u}
	for _, ref := range slices.Sorted(maps.Keys(r.merged)) {
		at := r.merged[ref]
		updates = append(updates, gitrepo.Update{Ref: ref, Expect: &at, Delete: true})
	}
	return updates
}

// refusal says what was refused and why, within what a commit message may hold.
func refusal(tip gitrepo.Hash, faults []Fault) (subject, body string) {
	first := faults[0].String()
	if len(first) > maxSubject/2 {
		first = faults[0].Path
	}
	var b strings.Builder
	for i, f := range faults {
		line := f.String() + "\n"
		if b.Len()+len(line) > maxBody/2 {
			fmt.Fprintf(&b, "and %d more\n", len(faults)-i)
			break
		}
		b.WriteString(line)
	}
	return "refuse " + tip.Short() + ": " + first, b.String()
}
