package gitstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/internal/failpoint"
)

// Publish brings the branches of servers to their states in one batch: one pack, one move of references. A server
// whose branch says already what it should, and said so recently, is left alone. What is wrong with one server is
// in its Published.Err and does not hinder the others.
func (s *Store) Publish(ctx context.Context, mainCommit string, states []ServerState) ([]Published, error) {
	s.write.Lock()
	defer s.write.Unlock()
	if err := s.checkMain(mainCommit); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	results := make([]Published, len(states))
	pubs := make([]*publication, len(states))
	seen := map[string]bool{}
	for i := range states {
		results[i].Server = states[i].Server
		if seen[states[i].Server] {
			results[i].Err = fmt.Errorf("%w: the batch names the server twice", ErrInvalid)
			continue
		}
		seen[states[i].Server] = true
		pubs[i] = &publication{store: s, main: mainCommit, state: &states[i]}
	}
	updates, err := s.prepare(ctx, pubs, results)
	if err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	if err := s.move(ctx, pubs, updates, results); err != nil {
		return nil, fmt.Errorf("publish: %w", err)
	}
	return results, nil
}

// prepare makes up the commits of the servers that need one. What is wrong with one server goes to its result.
func (s *Store) prepare(ctx context.Context, pubs []*publication, results []Published) ([]*gitrepo.Update, error) {
	if err := eachOpen(ctx, pubs, results, (*publication).look); err != nil {
		return nil, err
	}
	open := slices.DeleteFunc(slices.Clone(pubs), func(p *publication) bool { return p == nil || p.done })
	shared, err := s.shareBodies(ctx, open)
	if err != nil {
		return nil, err
	}
	if err := eachOpen(ctx, pubs, results, func(p *publication) error { return p.makeUpdate(shared) }); err != nil {
		return nil, err
	}
	updates := make([]*gitrepo.Update, len(pubs))
	for i, p := range pubs {
		if p == nil || results[i].Err != nil {
			continue
		}
		results[i].Commit, results[i].Generation, results[i].Changed = p.commit, p.generation, p.update != nil
		updates[i] = p.update
	}
	return updates, nil
}

// eachOpen runs do for each publication that is not done, on all processors.
func eachOpen(ctx context.Context, pubs []*publication, results []Published, do func(*publication) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range pubs {
		if p == nil || p.done {
			continue
		}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := do(p); err != nil {
				p.done, results[i].Err = true, fmt.Errorf("publish to %s: %w", p.state.Server, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// checkMain makes sure that the manifests name a commit that exists.
func (s *Store) checkMain(commit string) error {
	h, err := gitrepo.ParseHash(commit)
	if err != nil {
		return fmt.Errorf("%w: commit of main: %w", ErrInvalid, err)
	}
	_, err = s.repo.Commit(h)
	return err
}

// move makes the commits of all servers that need one.
func (s *Store) move(ctx context.Context, pubs []*publication, updates []*gitrepo.Update, results []Published) error {
	var batch []gitrepo.Update
	var place []int
	for i, u := range updates {
		if u != nil {
			batch, place = append(batch, *u), append(place, i)
		}
	}
	if len(batch) == 0 {
		return nil
	}
	hashes, err := s.repo.Apply(ctx, batch, func([]gitrepo.Hash) error {
		failpoint.Hit("hub.publish.packed")
		return nil
	})
	if err != nil {
		return err
	}
	failpoint.Hit("hub.publish.moved")
	for n, h := range hashes {
		results[place[n]].Commit = h.String()
		made := pubs[place[n]].made
		made.hash = h
		s.tips.put(results[place[n]].Server, made) // or the next look would read it back
	}
	return nil
}

// publication is the work for one server.
type publication struct {
	store *Store
	main  string
	state *ServerState

	branch string
	tip    *branchTip // nil on the first publication
	slots  []slot
	// done says that nothing is left to do: the server is left alone, or something is wrong with it.
	done bool

	commit     string
	generation uint64
	update     *gitrepo.Update // nil if the server is left alone
	made       *branchTip      // what update will be
}

// branchTip is a commit of a server's branch with its manifest. It is shared and never changed.
type branchTip struct {
	hash     gitrepo.Hash
	manifest *manifest.Manifest
	sum      string // SHA-256 of manifest.json
}

// look decides what the server shall hold, and whether a commit is needed for that.
func (p *publication) look() error {
	if err := manifest.ValidName(p.state.Server); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if p.state.Key == nil {
		return fmt.Errorf("%w: the server has no key", ErrInvalid)
	}
	p.branch = manifest.ServerBranch(p.state.Server)
	var err error
	if p.tip, err = p.store.branchTip(p.state.Server); err != nil {
		return fmt.Errorf("read its branch: %w", err)
	}
	if p.slots, err = p.plan(); err != nil {
		return err
	}
	p.inheritStepBack()
	if p.unchanged() {
		p.done, p.commit, p.generation = true, p.tip.hash.String(), p.tip.manifest.Generation
	}
	return nil
}

// inheritStepBack keeps the mark for as long as a leaf stays in its place: a server that was away when it was put
// there must be let back to it just as the others were.
func (p *publication) inheritStepBack() {
	for i := range p.slots {
		d := &p.slots[i].deployment
		if before := p.before(d); before != nil && before.LeafSHA256 == d.LeafSHA256 && before.StepBack {
			d.StepBack = true
		}
	}
}

// before returns what the tip has in the place of d.
func (p *publication) before(d *manifest.Deployment) *manifest.Deployment {
	if p.tip == nil {
		return nil
	}
	for i := range p.tip.manifest.Deployments {
		if t := &p.tip.manifest.Deployments[i]; samePlace(t, d) {
			return t
		}
	}
	return nil
}

func samePlace(a, b *manifest.Deployment) bool {
	return a.Certificate == b.Certificate && a.Deployer == b.Deployer && a.Target == b.Target
}

// unchanged tells whether the tip says all that it should and is young enough.
func (p *publication) unchanged() bool {
	if p.tip == nil {
		return false
	}
	m := p.tip.manifest
	age := p.store.cfg.Now().Sub(m.IssuedAt)
	return m.RepoID == p.store.cfg.RepoID && p.sealsStand() && age < RefreshAfter && age > -RefreshAfter &&
		slices.EqualFunc(m.Deployments, p.slots, func(d manifest.Deployment, s slot) bool {
			return samePlace(&d, &s.deployment) && d.LeafSHA256 == s.deployment.LeafSHA256 &&
				d.StepBack == s.deployment.StepBack && slices.Equal(d.Names, s.deployment.Names)
		})
}

// sealsStand tells whether what the tip's bundles were sealed to, and who is trusted to have signed them, is the
// same today.
func (p *publication) sealsStand() bool { return p.tip != nil && p.sealedAs(p.tip.manifest) }

func (p *publication) sealedAs(m *manifest.Manifest) bool {
	return m.ServerKeyFpr == p.state.Key.Fingerprint() && m.KeyringVersion == p.store.keyring.Version
}

// makeUpdate builds the next generation's commit.
func (p *publication) makeUpdate(shared map[issueOf]*sharedBody) error {
	edits, err := p.bundleEdits(shared)
	if err != nil {
		return err
	}
	s := p.store
	now := s.cfg.Now().UTC()
	m := &manifest.Manifest{
		Format: manifest.Format, RepoID: s.cfg.RepoID, Server: p.state.Server, ServerKeyFpr: p.state.Key.Fingerprint(),
		Generation: 1, IssuedAt: now.Truncate(secondPrecision), FreshUntil: now.Add(FreshFor).Truncate(secondPrecision),
		KeyringVersion: s.keyring.Version, MainCommit: p.main, Deployments: make([]manifest.Deployment, 0, len(p.slots)),
	}
	u := &gitrepo.Update{Ref: p.branch, Expect: new(gitrepo.Hash), Committer: s.committer()}
	if p.tip != nil {
		m.Generation, m.PrevManifestSHA256 = p.tip.manifest.Generation+1, p.tip.sum
		*u.Expect, u.Base, u.Parents = p.tip.hash, p.tip.hash, []gitrepo.Hash{p.tip.hash}
	}
	for i := range p.slots {
		m.Deployments = append(m.Deployments, p.slots[i].deployment)
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	sig, err := seal.SignBinary(manifest.SignatureDomain, data, s.cfg.Hub, s.cfg.Now())
	if err != nil {
		return err
	}
	u.Edits = append(edits,
		gitrepo.Edit{Path: manifest.File, Data: data},
		gitrepo.Edit{Path: manifest.SignatureFile, Data: sig},
		gitrepo.Edit{Path: manifest.KeyringFile, Data: s.cfg.Keyring},
		gitrepo.Edit{Path: manifest.KeyringSigFile, Data: s.cfg.KeyringSig})
	var actor Actor
	if u.Message, actor, err = p.message(m); err != nil {
		return err
	}
	u.Author = s.author(actor)
	p.generation, p.update, p.made = m.Generation, u, &branchTip{manifest: m, sum: hexSum(data)}
	return nil
}

// bundleEdits writes the bundles that are new and removes those that are not wanted any more. It completes the
// deployments with each bundle's size and hash.
func (p *publication) bundleEdits(shared map[issueOf]*sharedBody) ([]gitrepo.Edit, error) {
	var edits []gitrepo.Edit
	first := map[string]int{} // certificate to its first slot
	for i := range p.slots {
		slot := &p.slots[i]
		d := &slot.deployment
		if j, ok := first[d.Certificate]; ok {
			takeBundle(d, &p.slots[j].deployment)
			continue
		}
		first[d.Certificate] = i
		if have := p.sealedBefore(d); have != nil {
			takeBundle(d, have)
			continue
		}
		sealed, err := p.seal(slot, shared[issueOf{d.Certificate, d.LeafSHA256}])
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", d.Certificate, err)
		}
		edits = append(edits, gitrepo.Edit{Path: d.Bundle, Data: sealed.body})
	}
	return append(edits, p.leftovers()...), nil
}

// seal returns the bundle of a slot and completes the slot's deployment.
func (p *publication) seal(slot *slot, shared *sharedBody) (sealedBundle, error) {
	if shared != nil && shared.keys[p.state.Server] != nil {
		sealed := sealedBundle{body: shared.body, key: shared.keys[p.state.Server]}
		sealed.describe(&slot.deployment, shared.sum)
		return sealed, nil
	}
	sealed, err := slot.sealed(p)
	if err == nil {
		sealed.describe(&slot.deployment, "")
	}
	return sealed, err
}

// leftovers removes the files of bundles that the tip has and the new state does not.
func (p *publication) leftovers() []gitrepo.Edit {
	if p.tip == nil {
		return nil
	}
	stays := map[string]bool{}
	for i := range p.slots {
		stays[p.slots[i].deployment.Bundle] = true
	}
	var edits []gitrepo.Edit
	for i := range p.tip.manifest.Deployments {
		if path := p.tip.manifest.Deployments[i].Bundle; !stays[path] {
			stays[path] = true // once
			edits = append(edits, gitrepo.Edit{Path: path, Delete: true})
		}
	}
	return edits
}

// sealedBefore returns a deployment of the tip whose bundle serves for d as it is.
func (p *publication) sealedBefore(d *manifest.Deployment) *manifest.Deployment {
	if !p.sealsStand() {
		return nil
	}
	for i := range p.tip.manifest.Deployments {
		t := &p.tip.manifest.Deployments[i]
		if t.Certificate == d.Certificate && t.LeafSHA256 == d.LeafSHA256 {
			return t
		}
	}
	return nil
}

// tipCache keeps the newest commit of each branch: most servers are unchanged each time they are looked at.
type tipCache struct {
	mu   sync.Mutex
	tips map[string]*branchTip // by server
}

// branchTip reads the newest commit of a server's branch; nil if there is no such branch.
func (s *Store) branchTip(server string) (*branchTip, error) {
	h, ok := s.repo.Ref(manifest.ServerBranch(server))
	if !ok {
		return nil, nil //nolint:nilnil // no branch is no error: each server starts so
	}
	s.tips.mu.Lock()
	tip := s.tips.tips[server]
	s.tips.mu.Unlock()
	if tip != nil && tip.hash == h {
		return tip, nil
	}
	tip, err := s.branchCommit(h)
	if err != nil {
		return nil, err
	}
	s.tips.put(server, tip)
	return tip, nil
}

func (c *tipCache) put(server string, tip *branchTip) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tips == nil {
		c.tips = map[string]*branchTip{}
	}
	c.tips[server] = tip
}

// branchCommit reads the manifest of a commit of a server's branch.
func (s *Store) branchCommit(h gitrepo.Hash) (*branchTip, error) {
	data, err := s.repo.ReadFile(h, manifest.File)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h.Short(), err)
	}
	sum := sha256.Sum256(data)
	return &branchTip{hash: h, manifest: m, sum: hex.EncodeToString(sum[:])}, nil
}
