// Jobs, and renewals of many certificates.

package client

import (
	"context"

	"github.com/certferry/certferry/hub/apiv1"
)

// CertificateJobs lists the jobs of a certificate, newest first; of all where certificate is empty.
func (c *Client) CertificateJobs(ctx context.Context, certificate string, p Page) (out apiv1.List[apiv1.Job], err error) {
	v := p.values()
	if certificate != "" {
		v.Set("certificate", certificate)
	}
	return out, c.get(ctx, "/jobs", v, &out)
}

// JobLog lists the lines of a job's log, the oldest first.
func (c *Client) JobLog(ctx context.Context, id string, p Page) (out apiv1.List[apiv1.JobLine], err error) {
	return out, c.get(ctx, path("jobs", id, "log"), p.values(), &out)
}

// CancelJob ends a job that is not over.
func (c *Client) CancelJob(ctx context.Context, id string) (out apiv1.Job, err error) {
	return out, c.post(ctx, path("jobs", id, "cancel"), nil, &out)
}

// RenewAll renews all certificates of an issuer or an authority.
func (c *Client) RenewAll(ctx context.Context, in apiv1.RenewAllRequest) (out apiv1.RenewAllReply, err error) {
	return out, c.post(ctx, "/certificates/renew-all", in, &out)
}

// PauseCertificate stops renewals until somebody resumes them.
func (c *Client) PauseCertificate(ctx context.Context, name string, in apiv1.PauseRequest) (out apiv1.Certificate, err error) {
	return out, c.post(ctx, path("certificates", name, "pause"), in, &out)
}
