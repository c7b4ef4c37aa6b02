// This file has certificates ordered for keys that their servers make and keep: the server is asked for its certificate
// request, and the job waits until it came.

package reconcile

import (
	"context"
	"crypto"
	"fmt"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/internal/failpoint"
	"github.com/certferry/certferry/issuer"
)

// askAgain is how long a job waits for a server's request before it looks whether the same is still wished. The answer
// itself ends the wait.
const askAgain = 10 * time.Minute

// Requests keeps what servers are asked for.
type Requests interface {
	AskCSR(ctx context.Context, want hub.CertificateRequest) (hub.CertificateRequest, error)
	PutOffForCSR(ctx context.Context, id string, notBefore time.Time, message string) error
}

// requestWaitError says that an order has to wait for its server's certificate request.
type requestWaitError struct{ server, refusal string }

// Error implements error.
func (w *requestWaitError) Error() string {
	if w.refusal != "" {
		return w.server + " refuses to send its certificate request: " + w.refusal
	}
	return "waits for " + w.server + " to send its certificate request"
}

// keyOnServer says whether the order is for a key that its server makes. A dry run does as well with any key.
func (o *order) keyOnServer() bool {
	return o.want.KeyCustody == manifest.CustodyServer && o.job.Kind != apiv1.JobDryRun
}

// signingRequest is the PKCS #10 request of the order: made with key, or by the server where key is nil; then the error
// is a *requestWaitError until it came.
func (o *order) signingRequest(ctx context.Context, key crypto.Signer) ([]byte, error) {
	if key != nil {
		csr, err := bundle.NewCSR(key, o.want.Names)
		if err != nil {
			return nil, fmt.Errorf("make certificate request: %w", err)
		}
		return csr, nil
	}
	want := hub.CertificateRequest{
		Certificate: o.want.Name, Server: serverOf(o.want), JobID: o.job.ID, Names: o.want.Names, KeyType: keyType(o.want.KeyType),
		NewKey: o.job.NewKey, Reuse: o.reuse(),
	}
	asked, err := o.r.cfg.Data.AskCSR(ctx, want)
	if err != nil {
		return nil, err
	}
	failpoint.Hit("hub.csr.asked")
	if !asked.Answered() {
		return nil, &requestWaitError{server: asked.Server, refusal: asked.Refusal}
	}
	o.tell(ctx, issuer.Event{Phase: issuer.PhasePrepare, Line: asked.Server + " made the key and sent its certificate request"})
	return asked.CSR, nil
}

// reuse is the key of the issue in use, where the server is to keep it.
func (o *order) reuse() string {
	have := o.snapshot.Issued[o.want.Name]
	if have == nil || o.want.Renewal.Key != "keep" || o.job.NewKey || have.Revoked != nil || have.KeyServer != serverOf(o.want) ||
		keyType(have.KeyType) != keyType(o.want.KeyType) {
		return ""
	}
	return have.SPKISHA256
}

// serverOf is the server that keeps the key of a certificate, empty where the hub does.
func serverOf(want *manifest.Certificate) string {
	if want.KeyCustody != manifest.CustodyServer || len(want.Deployments) == 0 {
		return ""
	}
	return want.Deployments[0].Server
}

// checkAnswer makes sure that a CA certified the key of the request. Where the hub has the key, the bundle's own check
// does.
func checkAnswer(b *bundle.Bundle, csr []byte, want *manifest.Certificate) error {
	kind, err := bundle.ParseKeyType(want.KeyType)
	if err != nil {
		return err
	}
	spki, err := bundle.CheckCSR(csr, want.Names, kind)
	if err != nil {
		return err
	}
	if spki != b.SPKISHA256() {
		return fmt.Errorf("check certificate: it is for another key than that of the request")
	}
	return nil
}

// waitForServer puts the job off until the server sent its request.
func (r *Reconciler) waitForServer(ctx context.Context, o *order, wait *requestWaitError) error {
	if o.job.Error != wait.Error() {
		o.tell(ctx, issuer.Event{Line: wait.Error()})
	}
	r.ring(wait.server)
	return r.cfg.Data.PutOffForCSR(ctx, o.job.ID, r.cfg.Now().Add(askAgain), wait.Error())
}
