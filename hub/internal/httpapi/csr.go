// Certificate requests of servers that make and keep their own private keys: asked for in the answer to a heartbeat,
// and taken here.

package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
)

// maxWanted bounds how many requests one answer asks for; the next heartbeat asks for the others.
const maxWanted = 16

// Keys are those of servers: the ones by which they are known, and the ones of their certificates.
type Keys interface {
	Rotations
	Requests
}

// Requests are what servers with keys of their own are asked for.
type Requests interface {
	AskedCSRs(ctx context.Context, server string) ([]hub.CertificateRequest, error)
	CSR(ctx context.Context, id string) (hub.CertificateRequest, error)
	AnswerCSR(ctx context.Context, answer hub.CertificateRequest, event hub.AuditEvent) error
	RefuseCSR(ctx context.Context, id, server, reason string, event hub.AuditEvent) error
}

func (s *server) addRequests() {
	add(s, operation{
		id: "send-certificate-request", method: http.MethodPost, path: "/servers/csr", tag: "agents",
		summary: "Send the certificate request that the hub asked for, of a key that stays on the server", status: http.StatusNoContent,
	}, s.takeRequest)
}

// wanted lists the requests that a server is asked for now.
func (s *server) wanted(ctx context.Context, row hub.Server) ([]apiv1.WantedRequest, error) {
	if row.State != hub.ServerApproved {
		return nil, nil
	}
	asked, err := s.cfg.Data.AskedCSRs(ctx, row.Name)
	if err != nil || len(asked) == 0 {
		return nil, err
	}
	snapshot, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	var all []apiv1.WantedRequest
	for i := range asked {
		wish := stillWished(snapshot, &asked[i])
		if wish == nil || len(all) == maxWanted {
			continue
		}
		w := apiv1.WantedRequest{
			ID: asked[i].ID, Certificate: wish.Name, Names: asked[i].Names, KeyType: asked[i].KeyType,
			NewKey: asked[i].Reuse == "", SPKISHA256: asked[i].Reuse,
		}
		for _, d := range wish.Deployments {
			w.Targets = append(w.Targets, apiv1.WantedTarget{Deployer: d.Deployer, Target: d.Target})
		}
		all = append(all, w)
	}
	return all, nil
}

// stillWished is the wish that a request is for, nil where main says something else by now.
func stillWished(snapshot *gitstore.Snapshot, asked *hub.CertificateRequest) *manifest.Certificate {
	wish := snapshot.Certificates[asked.Certificate]
	if wish == nil || wish.KeyCustody != manifest.CustodyServer || len(wish.Deployments) == 0 ||
		wish.Deployments[0].Server != asked.Server || !slices.Equal(wish.Names, asked.Names) {
		return nil
	}
	return wish
}

func (s *server) takeRequest(ctx context.Context, c *call, in *input[apiv1.CertificateRequest]) (*none, error) {
	asked, err := s.cfg.Data.CSR(ctx, in.Body.ID)
	switch {
	case errors.Is(err, hub.ErrNotFound):
		return nil, notAsked()
	case err != nil:
		return nil, err
	case asked.Server != c.principal.Name:
		return nil, &hub.Error{Class: hub.ErrForbidden, Message: "another server was asked for this certificate request"}
	}
	row, err := s.cfg.Data.Server(ctx, c.principal.Name)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.cfg.Fleet.Snapshot()
	if err != nil {
		return nil, err
	}
	if row.State != hub.ServerApproved || stillWished(snapshot, &asked) == nil {
		return nil, notAsked()
	}
	if len(in.Body.CSR) == 0 {
		return nil, s.takeRefusal(ctx, c, &asked, in.Body.Refusal)
	}
	answer := hub.CertificateRequest{ID: asked.ID, Server: asked.Server, CSR: in.Body.CSR}
	if answer.SPKISHA256, err = checkRequest(snapshot, &asked, in.Body.CSR); err != nil {
		return nil, err
	}
	event := s.event(c, asked.Certificate, hub.OutcomeOK, "key "+answer.SPKISHA256)
	if err := s.cfg.Data.AnswerCSR(ctx, answer, event); err != nil {
		return nil, err
	}
	s.cfg.changed()
	return nil, nil
}

func notAsked() error {
	return &hub.Error{Class: hub.ErrConflict, Message: "this certificate request is not asked for any more: the next heartbeat says what is"}
}

// checkRequest holds a request against what was asked for, and returns the hash of its key.
func checkRequest(snapshot *gitstore.Snapshot, asked *hub.CertificateRequest, csr []byte) (spki string, err error) {
	kind, err := bundle.ParseKeyType(asked.KeyType)
	if err != nil {
		return "", err
	}
	if spki, err = bundle.CheckCSR(csr, asked.Names, kind); err != nil {
		return "", invalid("body.csr", err.Error())
	}
	if spki == asked.Reuse {
		return spki, nil
	}
	for _, issued := range snapshot.Issued {
		if issued.SPKISHA256 == spki {
			return "", invalid("body.csr", "a new key was asked for, and this one is in use")
		}
	}
	return spki, nil
}

// takeRefusal notes why a server does not make a key.
func (s *server) takeRefusal(ctx context.Context, c *call, asked *hub.CertificateRequest, reason string) error {
	if reason = oneLine(reason); reason == "" {
		return invalid("body.csr", "is missing")
	}
	event := s.event(c, asked.Certificate, hub.OutcomeFailed, reason)
	if err := s.cfg.Data.RefuseCSR(ctx, asked.ID, asked.Server, reason, event); err != nil {
		return err
	}
	s.cfg.changed()
	return nil
}
