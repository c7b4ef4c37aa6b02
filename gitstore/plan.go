// This file works out what a server shall hold: what is wanted, or what an earlier commit of its branch held.

package gitstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
)

// secondPrecision is how exact the times of a manifest are.
const secondPrecision = time.Second

// slot is one deployment to be, and where its bundle comes from.
type slot struct {
	deployment manifest.Deployment
	// bundle is what is to be sealed; if nil, the sealed bundle of the held commit is used.
	bundle *bundle.Bundle
	held   *branchTip
}

// plan returns the slots in the order that a manifest has.
func (p *publication) plan() ([]slot, error) {
	var slots []slot
	var err error
	if p.state.HoldCommit != "" {
		slots, err = p.planHold()
	} else {
		slots, err = p.planWanted()
	}
	slices.SortFunc(slots, func(a, b slot) int {
		x, y := &a.deployment, &b.deployment
		return cmp.Or(strings.Compare(x.Certificate, y.Certificate), strings.Compare(x.Deployer, y.Deployer),
			strings.Compare(x.Target, y.Target))
	})
	return slots, err
}

func (p *publication) planWanted() ([]slot, error) {
	slots := make([]slot, 0, len(p.state.Deployments))
	leaves := map[string]string{}
	for i := range p.state.Deployments {
		w := &p.state.Deployments[i]
		if w.Keep {
			kept, err := p.keep(w)
			if err != nil {
				return nil, err
			}
			if other, ok := leaves[w.Certificate]; ok && other != kept.deployment.LeafSHA256 {
				return nil, twoLeaves(w.Certificate)
			}
			leaves[w.Certificate] = kept.deployment.LeafSHA256
			slots = append(slots, kept)
			continue
		}
		if w.Bundle == nil || w.Bundle.Leaf == nil || (w.Bundle.Key == nil) != w.KeyOnServer {
			return nil, fmt.Errorf("%w: certificate %s: the bundle lacks its leaf or its key, or holds a key that is on the server", ErrInvalid, w.Certificate)
		}
		leaf := w.Bundle.LeafSHA256()
		if other, ok := leaves[w.Certificate]; ok && other != leaf {
			return nil, twoLeaves(w.Certificate)
		}
		leaves[w.Certificate] = leaf
		slots = append(slots, slot{bundle: w.Bundle, deployment: manifest.Deployment{
			Certificate: w.Certificate, Deployer: w.Deployer, Target: w.Target, StepBack: w.StepBack, Key: custodyOf(w),
			Names: w.Bundle.Leaf.DNSNames, LeafSHA256: leaf, SPKISHA256: w.Bundle.SPKISHA256(),
			NotBefore: w.Bundle.Leaf.NotBefore.UTC(), NotAfter: w.Bundle.Leaf.NotAfter.UTC(),
		}})
	}
	return slots, nil
}

// custodyOf says where the key is, as a manifest does.
func custodyOf(w *Wanted) string {
	if w.KeyOnServer {
		return manifest.CustodyServer
	}
	return ""
}

func twoLeaves(certificate string) error {
	return fmt.Errorf("%w: certificate %s is wanted with two leaves", ErrInvalid, certificate)
}

// keep repeats what the tip has of a certificate, at the wanted place.
func (p *publication) keep(w *Wanted) (slot, error) {
	want := manifest.Deployment{Certificate: w.Certificate, Deployer: w.Deployer, Target: w.Target}
	have := p.before(&want)
	if have == nil && p.tip != nil {
		i := slices.IndexFunc(p.tip.manifest.Deployments, func(d manifest.Deployment) bool { return d.Certificate == w.Certificate })
		if i >= 0 {
			have = &p.tip.manifest.Deployments[i]
		}
	}
	if have == nil {
		return slot{}, fmt.Errorf("%w: certificate %s is to be kept, and the server has none", ErrInvalid, w.Certificate)
	}
	d := *have
	d.Deployer, d.Target = w.Deployer, w.Target
	return slot{deployment: d, held: p.tip}, nil
}

// planHold repeats what HoldCommit held. A leaf that differs from the present one is a step back that is meant.
func (p *publication) planHold() ([]slot, error) {
	h, err := gitrepo.ParseHash(p.state.HoldCommit)
	if err != nil {
		return nil, fmt.Errorf("%w: commit to hold: %w", ErrInvalid, err)
	}
	foreign := func() error { return fmt.Errorf("hold: %w", p.store.notOnBranch(h, p.state.Server)) }
	held, err := p.store.branchCommit(h)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, foreign()
	}
	if err != nil {
		return nil, fmt.Errorf("commit to hold: %w", err)
	}
	if p.tip == nil || held.manifest.Server != p.state.Server {
		return nil, foreign()
	}
	if ok, err := p.store.onBranch(p.tip.hash, h); err != nil || !ok {
		return nil, errors.Join(foreign(), err)
	}
	slots := make([]slot, 0, len(held.manifest.Deployments))
	for i := range held.manifest.Deployments {
		d := held.manifest.Deployments[i]
		before := p.before(&d)
		d.StepBack = before == nil || before.LeafSHA256 != d.LeafSHA256
		slots = append(slots, slot{deployment: d, held: held})
	}
	return slots, nil
}

// onBranch tells whether h is tip or one of those before it, in earlier epochs too.
func (s *Store) onBranch(tip, h gitrepo.Hash) (bool, error) {
	log, err := s.serverLog(tip, 0)
	return slices.ContainsFunc(log, func(c *gitrepo.Commit) bool { return c.Hash == h }), err
}

// sealed returns the slot's bundle sealed to the server alone, or as the held commit has it.
func (s *slot) sealed(p *publication) (sealedBundle, error) {
	b := s.bundle
	if b == nil && p.sealedAs(s.held.manifest) {
		body, err := p.store.repo.ReadFile(s.held.hash, s.deployment.Bundle)
		return sealedBundle{body: body, key: s.deployment.BundleKey}, err
	}
	if b == nil {
		var err error
		if b, err = p.store.recover(s.held, &s.deployment); err != nil {
			return sealedBundle{}, err
		}
	}
	h := bundle.Header{Certificate: s.deployment.Certificate, Server: p.state.Server, LeafSHA256: s.deployment.LeafSHA256}
	body, err := p.store.seal(h, b, p.state.Key)
	return sealedBundle{body: body}, err
}

// recover opens the hub's own copy of a bundle that a server held under another key. The commits of main that the
// held state, and those before it, were made from are searched for the leaf.
func (s *Store) recover(held *branchTip, d *manifest.Deployment) (*bundle.Bundle, error) {
	log, err := s.serverLog(held.hash, 0)
	if err != nil {
		return nil, err
	}
	for _, c := range log {
		at, err := s.branchCommit(c.Hash)
		if err != nil {
			return nil, err
		}
		issued, err := s.IssuedAt(at.manifest.MainCommit, d.Certificate)
		if err == nil && issued.LeafSHA256 == d.LeafSHA256 {
			return s.openIssued(at.manifest.MainCommit, d.Certificate)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("escrow copy of leaf %s: %w", shorten(d.LeafSHA256, 8), fs.ErrNotExist)
}

// message says what the commit changes, and who did it: signing the same state again is the hub's own act.
func (p *publication) message(m *manifest.Manifest) (text string, actor Actor, err error) {
	changed, removed := p.difference(m)
	subject, actor := p.state.Subject, p.state.Actor
	if subject == "" {
		subject = p.subject(m, changed, removed)
	}
	if subject == subjectRefresh {
		actor = Actor{}
	}
	var body strings.Builder
	if len(changed)+len(removed) > 1 {
		for _, d := range changed {
			body.WriteString(describeDeployment(d) + "\n")
		}
		for _, name := range removed {
			body.WriteString("remove " + name + "\n")
		}
	}
	trailers := p.state.Trailers
	if len(changed)+len(removed) <= maxListed {
		for _, d := range changed {
			trailers = withTrailer(trailers, TrailerCertificate, d.Certificate)
		}
		for _, name := range removed {
			trailers = withTrailer(trailers, TrailerCertificate, name)
		}
	}
	trailers = withTrailer(trailers, TrailerGeneration, fmt.Sprint(m.Generation))
	trailers = withTrailer(trailers, TrailerHold, p.state.HoldCommit)
	list := body.String()
	if len(list) > maxBody {
		list = list[:strings.LastIndexByte(list[:maxBody-4], '\n')+1] + "…"
	}
	text, err = message(shorten(subject, maxSubject-8), list, actor, trailers)
	return text, actor, err
}

// subjectRefresh is the subject of a commit that only signs the same state again.
const subjectRefresh = "refresh"

// maxListed is how many certificates a commit names one by one.
const maxListed = 16

// difference returns the deployments that put a leaf where it was not, one for each certificate, and the
// certificates that are gone.
func (p *publication) difference(m *manifest.Manifest) (changed []*manifest.Deployment, removed []string) {
	now := map[string]bool{}
	for i := range m.Deployments {
		d := &m.Deployments[i]
		now[d.Certificate] = true
		if n := len(changed); n > 0 && changed[n-1].Certificate == d.Certificate {
			continue
		}
		if before := p.before(d); before == nil || before.LeafSHA256 != d.LeafSHA256 {
			changed = append(changed, d)
		}
	}
	if p.tip == nil {
		return changed, nil
	}
	for i := range p.tip.manifest.Deployments {
		if name := p.tip.manifest.Deployments[i].Certificate; !now[name] && !slices.Contains(removed, name) {
			removed = append(removed, name)
		}
	}
	return changed, removed
}

// subject is the first line for what changed.
func (p *publication) subject(m *manifest.Manifest, changed []*manifest.Deployment, removed []string) string {
	held := p.heldBefore()
	switch {
	case p.state.HoldCommit != "" && p.state.HoldCommit != held:
		return "hold at " + p.state.HoldCommit[:7]
	case p.state.HoldCommit == "" && held != "":
		return "resume"
	case len(changed) == 1 && len(removed) == 0:
		return describeDeployment(changed[0])
	case len(changed) > 0:
		return fmt.Sprintf("deploy %d certificates", len(changed))
	case len(removed) == 1:
		return "remove " + removed[0]
	case len(removed) > 1:
		return fmt.Sprintf("remove %d certificates", len(removed))
	case p.tip == nil:
		return "begin without certificates"
	case p.tip.manifest.ServerKeyFpr != m.ServerKeyFpr:
		return "seal to key " + m.ServerKeyFpr
	case p.tip.manifest.KeyringVersion != m.KeyringVersion:
		return fmt.Sprintf("take keyring version %d", m.KeyringVersion)
	case !slices.EqualFunc(p.tip.manifest.Deployments, m.Deployments, func(a, b manifest.Deployment) bool { return samePlace(&a, &b) }):
		return "change targets"
	default:
		return subjectRefresh
	}
}

// heldBefore returns the commit at which the tip holds the server, as its trailers say.
func (p *publication) heldBefore() string {
	if p.tip == nil {
		return ""
	}
	c, err := p.store.repo.Commit(p.tip.hash)
	if err != nil {
		return ""
	}
	for _, t := range Trailers(c.Message) {
		if t.Key == TrailerHold {
			return t.Value
		}
	}
	return ""
}

func describeDeployment(d *manifest.Deployment) string {
	verb := "deploy"
	if d.StepBack {
		verb = "step back to"
	}
	return fmt.Sprintf("%s %s: leaf %s until %s", verb, d.Certificate, shorten(d.LeafSHA256, 6), d.NotAfter.Format("2006-01-02"))
}
