package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
)

// stepBackDepth is how many earlier states of a server are looked at for a certificate that the server may still
// have: one that was away for long meets them all at once.
const stepBackDepth = 16

// publish brings the branches of all approved servers to what main says, in one batch.
func (r *Reconciler) publish(ctx context.Context) error {
	snapshot, err := r.cfg.Store.Snapshot()
	if err != nil {
		return err
	}
	servers, err := r.servers(ctx)
	if err != nil {
		return err
	}
	placed := newPlacements(snapshot)
	changed, err := r.begin(ctx, snapshot, servers, placed)
	if err != nil {
		return err // rather nothing than everywhere at once
	}
	if changed {
		if snapshot, err = r.cfg.Store.Snapshot(); err != nil {
			return err
		}
		placed = newPlacements(snapshot)
	}
	p := &publication{r: r, snapshot: snapshot, placed: placed, bundles: map[string]opened{}, seen: map[string]bool{}}
	p.rollouts = r.rollouts(snapshot, servers, p.placed)
	var states []gitstore.ServerState
	for i := range servers {
		if servers[i].State != hub.ServerApproved {
			continue
		}
		state, needed, err := p.state(ctx, &servers[i])
		switch {
		case err != nil:
			r.tell(ctx, p.seen, "server "+servers[i].Name, err)
		case needed:
			states = append(states, state)
		}
	}
	for _, f := range snapshot.Faults {
		r.tell(ctx, p.seen, f.Path, f.Err)
	}
	if len(states) > 0 {
		if err := p.send(ctx, states); err != nil {
			return err
		}
	}
	r.told = p.seen
	return nil
}

func (r *Reconciler) ring(server string) {
	if r.cfg.Ring != nil {
		r.cfg.Ring(server)
	}
}

// publication is the work of one batch.
type publication struct {
	r        *Reconciler
	snapshot *gitstore.Snapshot
	placed   *placements
	rollouts map[string]*rollout
	bundles  map[string]opened
	seen     map[string]bool
}

// opened is a bundle of the batch, opened once however many servers hold it.
type opened struct {
	bundle *bundle.Bundle
	err    error
}

func (p *publication) send(ctx context.Context, states []gitstore.ServerState) error {
	log := p.r.cfg.Logger
	results, err := p.r.cfg.Store.Publish(ctx, p.snapshot.Commit, states)
	if err != nil {
		return err
	}
	for i := range results {
		switch result := &results[i]; {
		case result.Err != nil:
			p.r.tell(ctx, p.seen, "server "+result.Server, result.Err)
		case result.Changed:
			log.InfoContext(ctx, "server published", "server", result.Server, "commit", result.Commit, "generation", result.Generation)
			p.r.ring(result.Server)
		}
	}
	return nil
}

// slot is one certificate at one target of a server.
type slot struct {
	certificate, deployer, target string
	// keep says that the server keeps the issue that it has: the rollout of the new one has not reached it.
	keep bool
}

// state says what a server shall hold; needed is false when its branch says just that.
func (p *publication) state(ctx context.Context, server *hub.Server) (state gitstore.ServerState, needed bool, err error) {
	intent := p.snapshot.Servers[server.Name]
	if intent == nil {
		return state, false, errors.New("it has no readable intent on main")
	}
	state.Server = server.Name
	if state.Key, err = p.r.key(server); err != nil {
		return state, false, err
	}
	if err := p.r.watchHold(ctx, server.Name, intent.Hold != nil); err != nil {
		return state, false, err
	}
	if intent.Hold != nil {
		state.HoldCommit = intent.Hold.Commit
		return state, true, nil
	}
	tip, err := p.r.cfg.Store.ServerTip(server.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return state, false, err
	}
	slots := p.placed.on(server.Name, intent.Labels)
	if tip != nil {
		slots = p.keepFaulty(slots, tip.Manifest)
	}
	slots = p.distinct(ctx, server.Name, slots)
	for i := range slots {
		slots[i].keep = p.rollouts[slots[i].certificate].holdsBack(server.Name, tip, p.r.cfg.Now())
	}
	if tip != nil && p.stands(slots, tip.Manifest, server.Fingerprint) {
		return state, false, nil
	}
	state.Deployments, err = p.deployments(ctx, server.Name, slots, tip)
	return state, true, err
}

// keepFaulty keeps what a server holds of certificates whose intent cannot be read: a slip of the pen on main takes
// nothing away.
func (p *publication) keepFaulty(slots []slot, tip *manifest.Manifest) []slot {
	for i := range tip.Deployments {
		d := &tip.Deployments[i]
		path, first := manifest.CertificatePath(d.Certificate), manifest.CertificatePath(manifest.FirstName(d.Certificate))
		if slices.ContainsFunc(p.snapshot.Faults, func(f gitstore.Fault) bool { return f.Path == path || f.Path == first }) && p.snapshot.Issued[d.Certificate] != nil {
			slots = append(slots, slot{certificate: d.Certificate, deployer: d.Deployer, target: d.Target})
		}
	}
	return slots
}

// distinct sorts slots as a manifest has them, leaves out repeated ones, and lets the first certificate by name have
// a target that two are placed at.
func (p *publication) distinct(ctx context.Context, server string, slots []slot) []slot {
	slices.SortFunc(slots, func(a, b slot) int {
		return strings.Compare(a.certificate+"\x00"+a.deployer+"\x00"+a.target, b.certificate+"\x00"+b.deployer+"\x00"+b.target)
	})
	slots = slices.Compact(slots)
	taken := map[slot]string{}
	return slices.DeleteFunc(slots, func(s slot) bool {
		place := slot{deployer: s.deployer, target: s.target}
		if first, ok := taken[place]; ok {
			p.r.tell(ctx, p.seen, "server "+server,
				fmt.Errorf("certificates %s and %s are placed at one target, %s: the second is left out", first, s.certificate, s.target))
			return true
		}
		taken[place] = s.certificate
		return false
	})
}

// stands tells whether the tip of a server's branch says all this already, was sealed to today's keys and is fresh.
func (p *publication) stands(slots []slot, tip *manifest.Manifest, fingerprint string) bool {
	age := p.r.cfg.Now().Sub(tip.IssuedAt)
	return tip.ServerKeyFpr == fingerprint && tip.KeyringVersion == p.r.cfg.KeyringVersion &&
		age < gitstore.RefreshAfter && age > -gitstore.RefreshAfter &&
		slices.EqualFunc(tip.Deployments, slots, func(d manifest.Deployment, s slot) bool {
			return d.Certificate == s.certificate && d.Deployer == s.deployer && d.Target == s.target &&
				(s.keep || d.LeafSHA256 == p.snapshot.Issued[s.certificate].LeafSHA256)
		})
}

// deployments opens what the slots need.
func (p *publication) deployments(ctx context.Context, server string, slots []slot, tip *gitstore.Tip) ([]gitstore.Wanted, error) {
	// Where a leaf stays, the store keeps its mark; only what changes is compared with what the server may have.
	var history []gitstore.ServerCommit
	if tip != nil && slices.ContainsFunc(slots, func(s slot) bool { return !s.keep && !p.holds(tip.Manifest, s) }) {
		var err error
		if history, err = p.r.cfg.Store.ServerHistory(server, stepBackDepth); err != nil {
			return nil, err
		}
	}
	wanted := make([]gitstore.Wanted, 0, len(slots))
	for _, s := range slots {
		if s.keep {
			wanted = append(wanted, gitstore.Wanted{Certificate: s.certificate, Deployer: s.deployer, Target: s.target, Keep: true})
			continue
		}
		b, err := p.open(ctx, s.certificate)
		if err != nil {
			return nil, err
		}
		back := (tip == nil || !p.holds(tip.Manifest, s)) && stepsBack(p.snapshot.Issued[s.certificate], s, history)
		wanted = append(wanted, gitstore.Wanted{
			Certificate: s.certificate, Deployer: s.deployer, Target: s.target, Bundle: b, StepBack: back,
			KeyOnServer: p.snapshot.Issued[s.certificate].KeyCustody == manifest.CustodyServer,
		})
	}
	return wanted, nil
}

// holds tells whether a manifest has the slot with the leaf that main has.
func (p *publication) holds(m *manifest.Manifest, s slot) bool {
	return slices.ContainsFunc(m.Deployments, func(d manifest.Deployment) bool {
		return d.Certificate == s.certificate && d.Deployer == s.deployer && d.Target == s.target &&
			d.LeafSHA256 == p.snapshot.Issued[s.certificate].LeafSHA256
	})
}

func (p *publication) open(ctx context.Context, certificate string) (*bundle.Bundle, error) {
	o, ok := p.bundles[certificate]
	if !ok {
		o.bundle, o.err = p.r.cfg.Store.OpenIssued(ctx, p.snapshot.Commit, certificate)
		p.bundles[certificate] = o
	}
	return o.bundle, o.err
}

// stepsBack tells whether the server had, or may have by now, a certificate at the slot's target that is newer than
// the one it shall hold. An agent refuses an older one unless told that it is meant.
func stepsBack(issued *manifest.IssuedCertificate, s slot, history []gitstore.ServerCommit) bool {
	return slices.ContainsFunc(history, func(c gitstore.ServerCommit) bool {
		return slices.ContainsFunc(c.Manifest.Deployments, func(d manifest.Deployment) bool {
			return d.Deployer == s.deployer && d.Target == s.target &&
				issued.NotBefore.Before(d.NotBefore) && issued.NotAfter.Before(d.NotAfter)
		})
	})
}

// key parses a server's public key once.
func (r *Reconciler) key(server *hub.Server) (*seal.PublicKey, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key, ok := r.keys[server.Fingerprint]; ok {
		return key, nil
	}
	key, err := seal.ParsePublicKey([]byte(server.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("parse its key: %w", err)
	}
	if key.Fingerprint() != server.Fingerprint {
		return nil, errors.New("its key is not the one that was approved")
	}
	r.keys[server.Fingerprint] = key
	return key, nil
}
