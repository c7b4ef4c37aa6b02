// This file holds what the demo shows, step by step. Each step ends with what the hub recorded, in which commit, and
// what a TLS client sees.

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/hub/apiv1"
)

// issue wishes for a certificate for each site.
func (d *demo) issue(ctx context.Context) error {
	for _, s := range d.sites {
		spec := apiv1.CertificateSpec{
			Name: s.certificate, Names: []string{s.name}, Issuer: d.hub.issuer,
			Deployments: []apiv1.Placement{{Server: s.server, Deployer: s.deployer, Target: "site"}},
		}
		if d.acme {
			spec.Challenge = &apiv1.Challenge{Type: "http-01", Method: "webroot", Webroot: d.webroot()}
		}
		if _, err := d.hub.client.CreateCertificate(ctx, spec); err != nil {
			return err
		}
	}
	for _, s := range d.sites {
		if err := d.settle(ctx, "issue", s, "", apiv1.DeploymentDeployed); err != nil {
			return err
		}
	}
	return nil
}

// renew issues again, with a new key.
func (d *demo) renew(ctx context.Context) error {
	for _, s := range d.sites {
		if err := d.renewOne(ctx, "renew", s, apiv1.DeploymentDeployed); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) renewOne(ctx context.Context, step string, s *demoSite, want apiv1.DeploymentState) error {
	before, err := d.hub.client.Certificate(ctx, s.certificate)
	if err != nil {
		return err
	}
	if _, err := d.hub.client.RenewCertificate(ctx, s.certificate, apiv1.RenewRequest{Reason: "the demo's step " + step}); err != nil {
		return err
	}
	return d.settle(ctx, step, s, before.Issued.LeafSHA256, want)
}

// settle waits until another leaf than old is issued and the server reported want of it, and tells what there is.
func (d *demo) settle(ctx context.Context, step string, s *demoSite, old string, want apiv1.DeploymentState) error {
	var x apiv1.Certificate
	err := await(ctx, fmt.Sprintf("%s to be %s on %s", s.certificate, want, s.server), func(ctx context.Context) (bool, error) {
		var err error
		if x, err = d.hub.client.Certificate(ctx, s.certificate); err != nil {
			return false, err
		}
		if x.Job != nil && x.Job.State == apiv1.JobFailed {
			return false, fmt.Errorf("issue %s: %s", s.certificate, x.Job.Error)
		}
		return x.Issued != nil && x.Issued.LeafSHA256 != old && len(x.Placed) == 1 &&
			x.Placed[0].WantLeafSHA256 == x.Issued.LeafSHA256 && x.Placed[0].State == want, nil
	})
	if err != nil {
		return err
	}
	if want != apiv1.DeploymentDeployed {
		d.say(step, "%s at commit %.7s: %s at %s; a client still sees %s", s.server, x.Placed[0].Commit, x.Placed[0].State, x.Placed[0].Phase, s.describe(ctx))
		return nil
	}
	if leaf := s.seen(ctx); leaf == nil || bundle.LeafSHA256(leaf) != x.Issued.LeafSHA256 {
		return fmt.Errorf("%s reports the new certificate, but a client sees %s", s.server, s.describe(ctx))
	}
	d.say(step, "%s at commit %.7s; a client of %s sees %s", s.server, x.Placed[0].Commit, s.name, s.describe(ctx))
	return nil
}

// fail makes the site ignore reloads: the program says that all is well, and only the handshake tells.
func (d *demo) fail(ctx context.Context) error {
	s := d.sites[0]
	before := s.seen(ctx)
	if err := os.WriteFile(s.stuck, nil, 0o600); err != nil {
		return err
	}
	if err := d.renewOne(ctx, "rollback", s, apiv1.DeploymentRolledBack); err != nil {
		return err
	}
	if after := s.seen(ctx); before == nil || after == nil || !before.Equal(after) {
		return fmt.Errorf("after the automatic roll back a client sees %s", s.describe(ctx))
	}
	return nil
}

// recover mends the site and renews: another commit is tried at once.
func (d *demo) recover(ctx context.Context) error {
	if err := os.Remove(d.sites[0].stuck); err != nil {
		return err
	}
	return d.renewOne(ctx, "mended", d.sites[0], apiv1.DeploymentDeployed)
}

// rollback takes the last server back by hand, which holds it, and lets it go again.
func (d *demo) rollback(ctx context.Context) error {
	s := d.sites[len(d.sites)-1]
	newest := s.seen(ctx)
	held, err := d.hub.client.RollbackServer(ctx, s.server, apiv1.RollbackRequest{Reason: "the demo goes back by hand"})
	if err != nil {
		return err
	}
	if err := d.reaches(ctx, s, held.WantGeneration); err != nil {
		return err
	}
	if leaf := s.seen(ctx); leaf == nil || leaf.Equal(newest) {
		return fmt.Errorf("after the roll back by hand a client sees %s", s.describe(ctx))
	}
	server, err := d.hub.client.Server(ctx, s.server)
	if err != nil {
		return err
	}
	d.say("by hand", "%s held at commit %.7s; a client of %s sees %s", s.server, server.Commit, s.name, s.describe(ctx))
	if _, err := d.hub.client.ResumeServer(ctx, s.server); err != nil {
		return err
	}
	if err := d.reaches(ctx, s, server.Generation); err != nil {
		return err
	}
	if leaf := s.seen(ctx); leaf == nil || !leaf.Equal(newest) {
		return fmt.Errorf("after resuming a client sees %s", s.describe(ctx))
	}
	if server, err = d.hub.client.Server(ctx, s.server); err != nil {
		return err
	}
	d.say("resumed", "%s at commit %.7s; a client of %s sees %s", s.server, server.Commit, s.name, s.describe(ctx))
	return nil
}

// reaches waits until the server deployed a generation after than.
func (d *demo) reaches(ctx context.Context, s *demoSite, than uint64) error {
	return await(ctx, fmt.Sprintf("%s to get past generation %d", s.server, than), func(ctx context.Context) (bool, error) {
		server, err := d.hub.client.Server(ctx, s.server)
		return err == nil && server.Generation > than && server.Generation == server.WantGeneration, err
	})
}
