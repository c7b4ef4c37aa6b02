// This file makes the inventory of this server, for its administrator and for the hub.

package daemon

import (
	"context"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/inventory"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/hub/apiv1"
)

const (
	// mostFound is how many certificates a heartbeat may tell of.
	mostFound = 1000
	// scanEvery is how long what was found is good for: a scan looks at each site, also while the hub is down and the
	// same is to be told again and again.
	scanEvery = 30 * time.Minute
)

// findings are what a scan found, and when.
type findings struct {
	found []apiv1.FoundCertificate
	at    time.Time
}

// findings answers what is on this server, from a scan of the last half hour where there was one. Heartbeats alone ask,
// one after the other.
func (a *Agent) findings(ctx context.Context) []apiv1.FoundCertificate {
	now := a.env.Now()
	if age := now.Sub(a.last.at); a.last.found == nil || age < 0 || age >= scanEvery {
		a.last = findings{foundOf(scan(ctx, a.cfg.Policy, &probe.Prober{}, a.env.Now)), now}
	}
	return a.last.found
}

// Scan makes the inventory of this server, enrolled or not: the certificates that its server software uses, and those
// at the targets of the policy at policyPath. With handshakes it also looks whether they are served.
func Scan(ctx context.Context, policyPath string, handshakes bool, now func() time.Time) apiv1.Inventory {
	if handshakes {
		return scan(ctx, policyPath, &probe.Prober{}, now)
	}
	return scan(ctx, policyPath, nil, now)
}

func scan(ctx context.Context, policyPath string, prober agent.Prober, now func() time.Time) apiv1.Inventory {
	var targets []agent.Target
	if allowed, err := policy.Load(policyPath); err == nil { // what is wrong with it is told by policy check and deployments
		targets = allowed.Targets()
	}
	return inventory.New(inventory.Config{Finders: deployer.Finders(), Prober: prober, Now: now}).Scan(ctx, targets)
}

// foundOf is what the hub watches of an inventory.
func foundOf(all apiv1.Inventory) []apiv1.FoundCertificate {
	found := []apiv1.FoundCertificate{}
	for i := range all.Certificates {
		r := &all.Certificates[i]
		if r.LeafSHA256 == "" || len(found) == mostFound {
			continue
		}
		f := apiv1.FoundCertificate{
			Target: r.Target, Names: r.Names, Issuer: r.Issuer, NotBefore: r.NotBefore, NotAfter: r.NotAfter, LeafSHA256: r.LeafSHA256,
		}
		if f.Target == "" {
			f.Path = r.Path
		}
		found = append(found, f)
	}
	return found
}
