// The replacement of servers' keys: asked for by people, carried out by agents, and in haste where a key is stolen.

package httpapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/gitstore/seal"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// wholeHistory is more commits than a server's branch has.
const wholeHistory = 1 << 20

// Rotations replace the keys of servers.
type Rotations interface {
	KeyRotation(ctx context.Context, server string) (hub.KeyRotation, error)
	AskKeyRotation(ctx context.Context, server, by string, event hub.AuditEvent) error
	RotateKey(ctx context.Context, next hub.KeyRotation, replaced string, event hub.AuditEvent) (taken bool, err error)
	BlockServer(ctx context.Context, name string, token hub.JoinToken, jobs []hub.Job, event hub.AuditEvent) error
}

func (s *server) addRotations() {
	add(s, operation{
		id: "rotate-server-key", method: http.MethodPost, path: "/servers/{name}/rotate-key", tag: "servers",
		summary: "Ask a server for a new key, or shut out one whose key is stolen",
	}, s.rotateServerKey)
	add(s, operation{
		id: "offer-server-key", method: http.MethodPost, path: "/servers/rotate-key", tag: "agents",
		summary: "Offer a new key of the agent, signed by the present one",
	}, s.offerServerKey)
}

func (s *server) rotateServerKey(ctx context.Context, c *call, in *nameOptionalInput[apiv1.RotateKeyRequest]) (*output[apiv1.KeyRotation], error) {
	row, err := s.knownServer(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	var req apiv1.RotateKeyRequest
	if in.Body != nil {
		req = *in.Body
	}
	if req.Compromised {
		return s.blockServer(ctx, c, row, oneLine(req.Reason))
	}
	event := s.event(c, row.Name, hub.OutcomeOK, "in place of "+row.Fingerprint)
	if err := s.cfg.Data.AskKeyRotation(ctx, row.Name, c.principal.Name, event); err != nil {
		return nil, err
	}
	s.cfg.ring(row.Name)
	until := s.cfg.Now().UTC().Add(hub.RotationAllowed)
	return &output[apiv1.KeyRotation]{Body: apiv1.KeyRotation{Server: row.Name, State: "asked", Until: &until}}, nil
}

// blockServer shuts out a server whose key is in wrong hands. Asked again, it queues what is left to be issued anew.
func (s *server) blockServer(ctx context.Context, c *call, row hub.Server, reason string) (*output[apiv1.KeyRotation], error) {
	names, err := s.opened(ctx, row.Name)
	if err != nil {
		return nil, err
	}
	labels, err := s.labelsOf(row.Name)
	if err != nil {
		return nil, err
	}
	why := "key of server " + row.Name + " replaced"
	if reason != "" {
		why += ": " + reason
	}
	jobs := make([]hub.Job, 0, len(names))
	for _, name := range names {
		jobs = append(jobs, hub.Job{Certificate: name, Actor: c.principal.Name, Reason: why, NewKey: true})
	}
	token, hash := auth.NewToken(auth.JoinPrefix)
	now := s.cfg.Now()
	join := hub.JoinToken{
		Hash: hash, Server: row.Name, Labels: labels, CreatedBy: c.principal.Name, CreatedAt: now, ExpiresAt: now.Add(joinTokenLife),
	}
	event := s.event(c, row.Name, hub.OutcomeOK, fmt.Sprintf("key %s is compromised, %d certificates are issued again", row.Fingerprint, len(jobs)))
	if err := s.cfg.Data.BlockServer(ctx, row.Name, join, jobs, event); err != nil {
		return nil, err
	}
	s.cfg.changed()
	shown := s.shownToken(join, token)
	return &output[apiv1.KeyRotation]{Body: apiv1.KeyRotation{
		Server: row.Name, State: "blocked", JoinToken: &shown, Certificates: names,
	}}, nil
}

func (s *server) labelsOf(name string) (map[string]string, error) {
	snapshot, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	if wish := snapshot.Servers[name]; wish != nil {
		return wish.Labels, nil
	}
	return nil, nil
}

// opened lists, sorted, the certificates in force whose private keys a server was ever given. A certificate that keeps
// its key over renewals counts by that key, whichever issue the server had.
func (s *server) opened(ctx context.Context, name string) ([]string, error) {
	snapshot, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	history, err := s.cfg.Fleet.ServerHistory(name, wholeHistory)
	if err = absentIsEmpty(err); err != nil {
		return nil, err
	}
	keys, leaves := map[string]bool{}, map[string]bool{}
	for _, c := range history {
		if c.Manifest == nil {
			continue
		}
		for i := range c.Manifest.Deployments {
			keys[c.Manifest.Deployments[i].SPKISHA256] = true
		}
	}
	// The history of a branch is bounded; what the agent reported is kept.
	seen, err := s.cfg.Data.ServerObservations(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, o := range seen {
		leaves[o.LeafSHA256] = true
	}
	var names []string
	for _, certificate := range slices.Sorted(maps.Keys(snapshot.Issued)) {
		have := snapshot.Issued[certificate]
		wished := snapshot.Certificates[certificate] != nil
		if wished && have.NotAfter.After(s.cfg.Now()) && (keys[have.SPKISHA256] || leaves[have.LeafSHA256]) {
			names = append(names, certificate)
		}
	}
	return names, nil
}

func (s *server) offerServerKey(ctx context.Context, c *call, in *input[apiv1.OfferKeyRequest]) (*output[apiv1.OfferedKey], error) {
	row, err := s.cfg.Data.Server(ctx, c.principal.Name)
	if err != nil {
		return nil, err
	}
	next, err := seal.ParsePublicKey([]byte(in.Body.PublicKey))
	if err != nil {
		return nil, invalid("body.public_key", "this is not an ASCII-armored OpenPGP public key as certferry-agent makes it")
	}
	if next.Fingerprint() != row.Fingerprint {
		if err := s.checkOffer(row, in.Body); err != nil {
			return nil, err
		}
	}
	offered := hub.KeyRotation{Server: row.Name, Fingerprint: next.Fingerprint(), PublicKey: in.Body.PublicKey}
	event := s.event(c, row.Name, hub.OutcomeOK, "key "+offered.Fingerprint+" in place of "+row.Fingerprint)
	taken, err := s.cfg.Data.RotateKey(ctx, offered, row.Fingerprint, event)
	if err != nil {
		return nil, err
	}
	state := "pending"
	if taken {
		state = "taken"
		s.cfg.changed()
	}
	return &output[apiv1.OfferedKey]{Body: apiv1.OfferedKey{Fingerprint: offered.Fingerprint, State: state}}, nil
}

// checkOffer makes sure that whoever offers a key has the present one: the credential alone does not do.
func (s *server) checkOffer(row hub.Server, offer apiv1.OfferKeyRequest) error {
	present, err := seal.ParsePublicKey([]byte(row.PublicKey))
	if err != nil {
		return fmt.Errorf("read key of server %s: %w", row.Name, err)
	}
	domain := manifest.ServerKeyDomain(s.cfg.RepoID, row.Name)
	if _, err := seal.Verify(domain, []byte(offer.PublicKey), []byte(offer.Signature), []*seal.PublicKey{present}, s.cfg.Now()); err != nil {
		return &hub.Error{
			Class: hub.ErrForbidden, Message: "the new key is not signed by the server's present key: enrol the server anew with a new join token",
			Faults: []hub.Fault{{Location: "body.signature", Message: "is not one of the present key over this new key"}},
		}
	}
	return nil
}

// rotation says what replaces a server's key now: whether the agent is to make a new key, and the one that waits.
func (s *server) rotation(ctx context.Context, server string) (wanted bool, waits string, err error) {
	r, err := s.cfg.Data.KeyRotation(ctx, server)
	if errors.Is(err, hub.ErrNotFound) {
		return false, "", nil
	}
	if err != nil {
		return false, "", err
	}
	return r.Allowed(s.cfg.Now()), r.Fingerprint, nil
}
