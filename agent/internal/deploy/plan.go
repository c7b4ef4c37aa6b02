// This file checks what is asked for, before anything is touched: the bundle, the administrator's policy, the
// files and folders, and what is served now.

package deploy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/atomicfile"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/gitstore/bundle"
)

const (
	// parallel is how many targets are looked at in parallel.
	parallel = 16
	// clockSkew is how far the server's clock may be behind.
	clockSkew = 24 * time.Hour
)

// plan is one deployment on its way to its outcome.
type plan struct {
	deployment agent.Deployment
	target     agent.Target
	driver     agent.Deployer
	entry      journalEntry
	// previous is the leaf on disk, if the pair there is whole.
	previous *x509.Certificate
	// before are the leaves that TLS clients see now.
	before []*x509.Certificate

	started time.Time
	// outcome is set once the plan ended.
	outcome *agent.Outcome
	// culprit says that a roll back was this plan's fault.
	culprit bool
}

func (p *plan) ended() bool { return p.outcome != nil }

// end sets the outcome. seen is the leaf that a TLS client saw last.
func (p *plan) end(state agent.State, phase agent.Phase, seen, detail string) {
	p.outcome = &agent.Outcome{
		Certificate: p.deployment.Certificate,
		Target:      p.deployment.Target,
		State:       state,
		Phase:       phase,
		LeafSHA256:  seen,
		Detail:      detail,
	}
}

func (p *plan) result(now time.Time) agent.Outcome {
	if !p.ended() {
		p.end(agent.Failed, agent.PhaseVerify, "", "internal error: no outcome")
	}
	o := *p.outcome
	o.Duration = now.Sub(p.started)
	return o
}

// servedBefore is the leaf that stands for what clients saw before, or is empty.
func (p *plan) servedBefore() string {
	if len(p.entry.Served) == 0 {
		return ""
	}
	return p.entry.Served[0].LeafSHA256
}

func refuse(plans []*plan, phase agent.Phase, err error) {
	for _, p := range plans {
		p.end(agent.Refused, phase, p.servedBefore(), err.Error())
	}
}

// reset opens rolled back plans for another try.
func reset(plans []*plan) []*plan {
	for _, p := range plans {
		p.outcome, p.culprit = nil, false
	}
	return plans
}

// plan checks all deployments. Those that must not or need not be carried out have ended when it returns.
func (d *Deployer) plan(ctx context.Context, deployments []agent.Deployment) []*plan {
	plans := make([]*plan, len(deployments))
	wanted := make(map[string]int)
	for i, dep := range deployments {
		plans[i] = &plan{deployment: dep, started: d.now()}
		wanted[dep.Target]++
	}
	allowed, err := d.policy()
	if err != nil {
		refuse(plans, agent.PhaseVerify, err)
		return plans
	}
	taken := make(map[string]string)
	for _, p := range plans {
		err := d.verify(p, allowed)
		if wanted[p.deployment.Target] > 1 {
			err = fmt.Errorf("%d certificates want the target %q; it holds one", wanted[p.deployment.Target], p.deployment.Target)
		}
		for _, c := range p.entry.Files {
			if other, ok := taken[c.Path]; ok && err == nil {
				err = fmt.Errorf("%s is also a file of target %q", c.Path, other)
			}
			taken[c.Path] = p.deployment.Target
		}
		if err != nil {
			refuse([]*plan{p}, agent.PhaseVerify, err)
		}
	}
	d.observe(ctx, plans)
	return plans
}

// verify looks at p without any network: bundle, policy, files.
func (d *Deployer) verify(p *plan, allowed *policy.Policy) error {
	dep := p.deployment
	p.entry = journalEntry{Certificate: dep.Certificate, Deployer: dep.Deployer, Target: dep.Target, Names: dep.Names}
	var err error
	if p.target, err = allowed.Target(dep.Deployer, dep.Target); err != nil {
		return err
	}
	if err := policy.Allows(p.target, dep.Names); err != nil {
		return err
	}
	p.driver = d.deployers[dep.Deployer]
	if p.driver == nil {
		return fmt.Errorf("deployer %q is not part of this agent", dep.Deployer)
	}
	if dep.KeyOnServer && dep.Bundle != nil && dep.Bundle.Key == nil {
		return fmt.Errorf("the private key of certificate %q should be on this server and is not: renew the certificate, and a new key is made here", dep.Certificate)
	}
	if err := checkBundle(dep.Bundle, dep.Names, d.now()); err != nil {
		return err
	}
	p.entry.LeafSHA256 = dep.Bundle.LeafSHA256()
	files, err := p.driver.Files(p.target, dep.Bundle)
	if err != nil {
		return err
	}
	for _, f := range files {
		c, err := inspect(p.target, f)
		if err != nil {
			return err
		}
		p.entry.Files = append(p.entry.Files, c)
	}
	p.previous = previous(files, p.entry.Files)
	return nil
}

// previous returns the leaf on disk where all files stand and are whole. Those in PEM are read as one: the standard library
// is as lenient as a server, for foreign files hold parameters and comments.
func previous(files []agent.File, changes []change) *x509.Certificate {
	var leaf *x509.Certificate
	var all []byte
	for i, f := range files {
		if f.Open == nil {
			all = append(append(all, changes[i].oldData...), '\n')
			continue
		}
		store, err := f.Open(changes[i].oldData)
		if err != nil {
			return nil
		}
		leaf = store.Leaf
	}
	if len(all) == 0 {
		return leaf
	}
	pair, err := tls.X509KeyPair(all, all)
	if err != nil {
		return nil
	}
	return pair.Leaf
}

// checkBundle takes a clock that is up to a day behind for right: a server with a wrong clock needs its
// certificate no less.
func checkBundle(b *bundle.Bundle, names []string, now time.Time) error {
	if b == nil || b.Leaf == nil || b.Key == nil {
		return errors.New("the bundle holds no certificate or no private key")
	}
	if early := b.Leaf.NotBefore.Sub(now); early > 0 && early <= clockSkew {
		now = b.Leaf.NotBefore
	}
	return b.Check(names, now)
}

// inspect finds out where f goes and what is there.
func inspect(t agent.Target, f agent.File) (change, error) {
	uid, gid, err := wantedOwner(t)
	if err != nil {
		return change{}, err
	}
	path, err := resolve(f.Path, uid)
	if err != nil {
		return change{}, err
	}
	c := change{Path: path, data: f.Data, New: digest(f.Data)}
	c.oldData, c.OldAttr, err = atomicfile.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Attr = atomicfile.Attributes{Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
		if f.Secret {
			c.Attr.Mode = 0o600
		}
	case err != nil:
		return change{}, err
	default:
		c.Attr = c.OldAttr
		c.Old = digest(c.oldData)
		if holdsSame(f, c.oldData) {
			c.data, c.New = c.oldData, c.Old
		}
	}
	if f.Secret {
		if uid >= 0 {
			c.Attr.UID = uid
		}
		if gid >= 0 {
			c.Attr.GID = gid
		}
		// Whatever stood there: a key is never open to everybody, and nobody runs it.
		c.Attr.Mode = cmp.Or(t.Mode, c.Attr.Mode) & 0o660
	}
	return c, nil
}

// holdsSame says that old, of a kind whose bytes differ each time they are encoded, holds what f holds.
func holdsSame(f agent.File, old []byte) bool {
	if f.Open == nil {
		return false
	}
	a, err := f.Open(old)
	if err != nil {
		return false
	}
	b, err := f.Open(f.Data)
	// Each key was found to be its leaf's.
	return err == nil && bytes.Equal(a.FullChainPEM(), b.FullChainPEM())
}

// wantedOwner returns the policy's owner and group of the key, -1 where it names none.
func wantedOwner(t agent.Target) (uid, gid int, err error) {
	uid, gid = -1, -1
	if t.Owner != "" {
		u, err := user.Lookup(t.Owner)
		if err != nil {
			if u, err = user.LookupId(t.Owner); err != nil {
				return 0, 0, fmt.Errorf("target %q: find owner %q: %w", t.Name, t.Owner, err)
			}
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return 0, 0, fmt.Errorf("target %q: owner %q: %w", t.Name, t.Owner, err)
		}
	}
	if t.Group != "" {
		g, err := user.LookupGroup(t.Group)
		if err != nil {
			if g, err = user.LookupGroupId(t.Group); err != nil {
				return 0, 0, fmt.Errorf("target %q: find group %q: %w", t.Name, t.Group, err)
			}
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return 0, 0, fmt.Errorf("target %q: group %q: %w", t.Name, t.Group, err)
		}
	}
	return uid, gid, nil
}

// same says that the file stands as it should.
func (c *change) same() bool {
	return c.Old == c.New && c.Attr.Mode == c.OldAttr.Mode && c.Attr.UID == c.OldAttr.UID && c.Attr.GID == c.OldAttr.GID
}

func (p *plan) unchanged() bool {
	for i := range p.entry.Files {
		if !p.entry.Files[i].same() {
			return false
		}
	}
	return true
}

// observe looks at what is served now, and ends the plans that this makes unwanted or needless.
func (d *Deployer) observe(ctx context.Context, plans []*plan) {
	each(len(plans), func(i int) {
		p := plans[i]
		if p.ended() {
			return
		}
		shown := d.look(ctx, p)
		if err := p.checkAge(); err != nil {
			refuse([]*plan{p}, agent.PhaseVerify, err)
			return
		}
		if p.unchanged() && shown {
			p.deployed("nothing had to change")
		}
	})
}

// deployed ends the plan well. Where the policy says that nothing can be looked at, the leaf is the one that was put
// there, and that is said.
func (p *plan) deployed(detail string) {
	if len(p.target.Probe.Addresses) == 0 {
		detail += "; nobody looked at what is served, as the policy says that nothing can"
	}
	p.end(agent.Deployed, agent.PhaseDone, p.entry.LeafSHA256, detail)
}

// look notes what each endpoint serves, and answers whether all of them serve the wanted leaf.
func (d *Deployer) look(ctx context.Context, p *plan) bool {
	endpoints := probe.Endpoints(p.target, p.deployment.Names)
	leaves := make([]*x509.Certificate, len(endpoints))
	each(len(endpoints), func(i int) {
		if leaf, err := probe.Leaf(ctx, d.prober, endpoints[i]); err == nil {
			leaves[i] = leaf
		}
	})
	all := true
	for i, leaf := range leaves {
		if leaf == nil {
			all = false
			continue
		}
		hash := bundle.LeafSHA256(leaf)
		p.before = append(p.before, leaf)
		p.entry.Served = append(p.entry.Served, served{Endpoint: endpoints[i], LeafSHA256: hash})
		all = all && hash == p.entry.LeafSHA256
	}
	return all
}

// checkAge refuses to step back to a certificate that was issued earlier and expires earlier than the one that
// stands or is served, unless the manifest says that this is meant. A self-signed certificate is a placeholder
// that any real one may replace.
func (p *plan) checkAge() error {
	if p.deployment.StepBack {
		return nil
	}
	leaf := p.deployment.Bundle.Leaf
	for _, old := range append([]*x509.Certificate{p.previous}, p.before...) {
		if old == nil || string(old.RawIssuer) == string(old.RawSubject) || !sameNames(old, p.deployment.Names) {
			continue
		}
		if leaf.NotBefore.Before(old.NotBefore) && leaf.NotAfter.Before(old.NotAfter) {
			return fmt.Errorf("certificate %q is older than the one in use: it expires %s, the other %s; roll back on the hub if that is meant",
				p.deployment.Certificate, leaf.NotAfter.UTC().Format(time.RFC3339), old.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// sameNames says that c is an earlier or later issue of the same certificate, not one that happens to be served
// for one of the names.
func sameNames(c *x509.Certificate, names []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(c.DNSNames)), slices.Sorted(slices.Values(names)))
}

// each calls fn for 0 to n-1, a few at a time, and returns when all have returned.
func each(n int, fn func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
