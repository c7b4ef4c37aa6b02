// This file seals one body for all servers of a publication that need the same issue of a certificate. Ten thousand
// servers with a wildcard then store it once, and about a hundred bytes each.

package gitstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
)

// sealedBundle is a bundle as a server's branch holds it. Only a body that several servers share has a key packet.
type sealedBundle struct{ body, key []byte }

// describe completes a deployment. The sum of the body is given where it is known, as a shared one is hashed once.
func (b sealedBundle) describe(d *manifest.Deployment, sum string) {
	if sum == "" {
		sum = hexSum(b.body)
	}
	d.Bundle, d.BundleSHA256, d.BundleSize = manifest.BundlePath(d.Certificate), sum, int64(len(b.body))
	d.BundleKey = b.key
}

// takeBundle lets d name the same sealed bundle as another deployment.
func takeBundle(d, from *manifest.Deployment) {
	d.Bundle, d.BundleSHA256, d.BundleSize, d.BundleKey = from.Bundle, from.BundleSHA256, from.BundleSize, from.BundleKey
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// issueOf is one issue of a certificate.
type issueOf struct{ certificate, leaf string }

// sharedBody is the body of one issue and the key packets by server.
type sharedBody struct {
	body []byte
	sum  string
	keys map[string][]byte
}

// shareBodies seals the issues that at least two of the publications need. What cannot be shared is left to each
// server: the fault is then its own.
func (s *Store) shareBodies(ctx context.Context, all []*publication) (map[issueOf]*sharedBody, error) {
	need := map[issueOf][]*publication{}
	from := map[issueOf][]*slot{}
	for _, p := range all {
		for _, slot := range p.toSeal() {
			issue := issueOf{slot.deployment.Certificate, slot.deployment.LeafSHA256}
			need[issue], from[issue] = append(need[issue], p), append(from[issue], slot)
		}
	}
	shared := map[issueOf]*sharedBody{}
	for issue, pubs := range need {
		if len(pubs) < 2 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if body, err := s.shareBody(issue, pubs, from[issue]); err == nil {
			shared[issue] = body
		}
	}
	return shared, nil
}

func (s *Store) shareBody(issue issueOf, pubs []*publication, slots []*slot) (*sharedBody, error) {
	b, err := s.anyBundle(slots)
	if err != nil {
		return nil, err
	}
	plain, err := bundle.Encode(bundle.Header{Certificate: issue.certificate, LeafSHA256: issue.leaf}, b)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	to := make([]*seal.PublicKey, len(pubs))
	for i, p := range pubs {
		to[i] = p.state.Key
	}
	body, keys, err := seal.SealShared(plain, to, s.cfg.Hub, s.cfg.Now())
	if err != nil {
		return nil, err
	}
	shared := &sharedBody{body: body, sum: hexSum(body), keys: make(map[string][]byte, len(pubs))}
	for i, p := range pubs {
		shared.keys[p.state.Server] = keys[i]
	}
	return shared, nil
}

// anyBundle returns the bundle that the slots, of one issue, want: one of them has it, or the hub's own copy.
func (s *Store) anyBundle(slots []*slot) (b *bundle.Bundle, err error) {
	for _, slot := range slots {
		if slot.bundle != nil {
			return slot.bundle, nil
		}
	}
	for _, slot := range slots {
		if b, err = s.recover(slot.held, &slot.deployment); err == nil {
			return b, nil
		}
	}
	return nil, err
}

// toSeal returns the slots whose bundles are to be sealed, one for each certificate.
func (p *publication) toSeal() []*slot {
	var out []*slot
	for i := range p.slots {
		slot := &p.slots[i]
		if i > 0 && p.slots[i-1].deployment.Certificate == slot.deployment.Certificate {
			continue
		}
		if p.sealedBefore(&slot.deployment) == nil && (slot.bundle != nil || !p.sealedAs(slot.held.manifest)) {
			out = append(out, slot)
		}
	}
	return out
}
