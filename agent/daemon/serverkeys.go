// This file makes private keys that never leave this server: the hub asks for a certificate request, and gets that
// alone. The key is on disk before the request is sent, and joins its certificate when that is deployed.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/keystore"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
	"github.com/certferry/certferry/internal/failpoint"
)

const (
	// maxRequests is how many requests are made at one heartbeat: keys cost time.
	maxRequests = 16
	// maxNames is how many names a request may have.
	maxNames = 100
)

// sendRequests answers what the hub asked for. Where this server does not make a key, the hub is told why; what cannot
// be sent is asked for again.
func (a *Agent) sendRequests(ctx context.Context, wanted []apiv1.WantedRequest) {
	for i := range wanted[:min(len(wanted), maxRequests)] {
		w := &wanted[i]
		answer := apiv1.CertificateRequest{ID: w.ID}
		csr, err := a.makeRequest(ctx, w)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.log.WarnContext(ctx, "certificate request refused", slog.String("certificate", clip(w.Certificate)), slog.Any("error", err))
			answer.Refusal = clip(err.Error())
		}
		answer.CSR = csr
		failpoint.Hit("agent.csr.made")
		err = a.hub.SendCSR(ctx, answer)
		failpoint.Hit("agent.csr.sent")
		if refused := new(client.Error); errors.As(err, &refused) && refused.Status == http.StatusConflict {
			continue // asked for in another way by now
		}
		if err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "certificate request not delivered", slog.String("certificate", clip(w.Certificate)), slog.Any("error", err))
		}
	}
}

// makeRequest makes the request that is wanted, where this server's policy allows the certificate at all its targets.
func (a *Agent) makeRequest(ctx context.Context, w *apiv1.WantedRequest) ([]byte, error) {
	kind, err := checkWanted(w)
	if err != nil {
		return nil, err
	}
	if err := a.allows(w); err != nil {
		return nil, err
	}
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	wish := keystore.Wish{ID: w.ID, Certificate: w.Certificate, Type: kind}
	if !w.NewKey {
		wish.Reuse = w.SPKISHA256
	}
	key, err := a.keys.Key(wish, a.env.Now())
	if err != nil {
		return nil, err
	}
	failpoint.Hit("agent.csr.kept")
	return bundle.NewCSR(key, w.Names)
}

// checkWanted refuses what no honest hub asks for.
func checkWanted(w *apiv1.WantedRequest) (bundle.KeyType, error) {
	if err := manifest.ValidName(w.Certificate); err != nil {
		return "", fmt.Errorf("check certificate's name: %w", err)
	}
	if w.ID == "" || len(w.ID) > 64 || len(w.Names) == 0 || len(w.Names) > maxNames || len(w.Targets) == 0 {
		return "", errors.New("the hub asked for a certificate request without an id, names or targets")
	}
	for _, name := range w.Names {
		if err := manifest.ValidDNSName(name); err != nil {
			return "", fmt.Errorf("check name: %w", err)
		}
	}
	return bundle.ParseKeyType(w.KeyType)
}

// allows asks the administrator's policy.
func (a *Agent) allows(w *apiv1.WantedRequest) error {
	allowed, err := policy.Load(a.cfg.Policy)
	if err != nil {
		return err
	}
	for _, t := range w.Targets {
		target, err := allowed.Target(t.Deployer, t.Target)
		if err != nil {
			return err
		}
		if err := policy.Allows(target, w.Names); err != nil {
			return err
		}
	}
	return nil
}

// withKeys puts this server's own keys to their certificates. One that is not here is missing in its deployment alone,
// which says so.
func (a *Agent) withKeys(ctx context.Context, deployments []agent.Deployment) []agent.Deployment {
	all := make([]agent.Deployment, 0, len(deployments))
	for _, d := range deployments {
		if d.KeyOnServer {
			key, err := a.keys.Find(d.Certificate, d.Bundle.SPKISHA256())
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				a.log.ErrorContext(ctx, "private key of this server not readable", slog.String("certificate", d.Certificate), slog.Any("error", err))
			}
			if err == nil {
				whole := *d.Bundle
				whole.Key = key
				d.Bundle = &whole
			}
		}
		all = append(all, d)
	}
	return all
}

// noteKeys notes which keys have certificates, and removes those that nothing can need any more. A key that stays too
// long does no harm.
func (a *Agent) noteKeys(st *source.State) {
	if a.keys.Empty() {
		return
	}
	for i := range st.Deployments {
		d := &st.Deployments[i]
		if !d.KeyOnServer {
			continue
		}
		if err := a.keys.Used(d.Bundle.SPKISHA256(), d.Bundle.Leaf.NotAfter); err != nil {
			a.log.Warn("use of a private key not noted", slog.String("certificate", d.Certificate), slog.Any("error", err))
		}
	}
	keep, err := a.keysOfHistory()
	if err == nil {
		err = a.keys.Prune(keep, a.env.Now())
	}
	if err != nil {
		a.log.Warn("old private keys not removed", slog.Any("error", err))
	}
}

// keysOfHistory are the hashes of this server's own keys that the local history names.
func (a *Agent) keysOfHistory() (map[string]bool, error) {
	entries, err := a.dir.History()
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, e := range entries {
		_, files, err := a.dir.LoadCommit(e.Commit)
		if err != nil {
			return nil, err
		}
		m, err := manifest.Decode(files[manifest.File])
		if err != nil {
			return nil, fmt.Errorf("read commit %s: %w", e.Commit, err)
		}
		for i := range m.Deployments {
			if m.Deployments[i].Key == manifest.CustodyServer {
				keep[m.Deployments[i].SPKISHA256] = true
			}
		}
	}
	return keep, nil
}
