// The operations, one method each.

package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/certferry/certferry/hub/apiv1"
)

// Page asks for one page of a listing; the zero value is the first page in the hub's default length.
type Page struct {
	// After is Next of the page before.
	After string
	Limit int
	// Query keeps objects only whose name holds it.
	Query string
}

func (p Page) values() url.Values {
	v := url.Values{}
	if p.After != "" {
		v.Set("after", p.After)
	}
	if p.Limit > 0 {
		v.Set("limit", strconv.Itoa(p.Limit))
	}
	if p.Query != "" {
		v.Set("q", p.Query)
	}
	return v
}

// All goes through all pages of a listing such as c.Servers.
func All[T any](ctx context.Context, list func(context.Context, Page) (apiv1.List[T], error), page Page) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			l, err := list(ctx, page)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range l.Items {
				if !yield(item, nil) {
					return
				}
			}
			if l.Next == "" || l.Next == page.After {
				return
			}
			page.After = l.Next
		}
	}
}

// SetupState says whether the first administrator still has to be made.
func (c *Client) SetupState(ctx context.Context) (out apiv1.SetupState, err error) {
	return out, c.get(ctx, "/auth/setup", nil, &out)
}

// Setup makes the first administrator and logs in.
func (c *Client) Setup(ctx context.Context, in apiv1.SetupRequest) (apiv1.Session, error) {
	return c.startSession(ctx, "/auth/setup", in)
}

// Login logs in; the session is kept by the client and given to Config.OnSession.
func (c *Client) Login(ctx context.Context, name, password string) (apiv1.Session, error) {
	return c.startSession(ctx, "/auth/login", apiv1.LoginRequest{Name: name, Password: password})
}

// Logout ends the session, at the hub and here.
func (c *Client) Logout(ctx context.Context) error {
	if err := c.send(ctx, call{method: http.MethodPost, path: "/auth/logout"}, nil); err != nil {
		return err
	}
	return c.forget()
}

// Me answers who the caller is.
func (c *Client) Me(ctx context.Context) (out apiv1.User, err error) {
	return out, c.get(ctx, "/auth/me", nil, &out)
}

// Users lists accounts.
func (c *Client) Users(ctx context.Context, p Page) (out apiv1.List[apiv1.User], err error) {
	return out, c.get(ctx, "/users", p.values(), &out)
}

// CreateUser makes an account.
func (c *Client) CreateUser(ctx context.Context, in apiv1.CreateUserRequest) (out apiv1.User, err error) {
	return out, c.post(ctx, "/users", in, &out)
}

// CreateJoinToken makes a token that lets one server register once.
func (c *Client) CreateJoinToken(ctx context.Context, in apiv1.JoinTokenRequest) (out apiv1.JoinToken, err error) {
	return out, c.post(ctx, "/join-tokens", in, &out)
}

// Register enrols an agent.
func (c *Client) Register(ctx context.Context, in apiv1.RegisterRequest) (out apiv1.Registration, err error) {
	return out, c.post(ctx, "/servers/register", in, &out)
}

// Heartbeat tells the hub that an agent lives. It is sent once: the next one is as good as a retry.
func (c *Client) Heartbeat(ctx context.Context, in apiv1.HeartbeatRequest) (out apiv1.HeartbeatReply, err error) {
	return out, c.post(ctx, "/servers/heartbeat", in, &out)
}

// Report tells what became of a commit on the agent's server. The same report sent twice counts once, so it is
// retried.
func (c *Client) Report(ctx context.Context, in apiv1.ReportRequest) error {
	return c.send(ctx, call{method: http.MethodPost, path: "/certificates/sync", in: in, idempotent: true}, nil)
}

// Servers lists servers.
func (c *Client) Servers(ctx context.Context, p Page) (out apiv1.List[apiv1.Server], err error) {
	return out, c.get(ctx, "/servers", p.values(), &out)
}

// Server answers one server.
func (c *Client) Server(ctx context.Context, name string) (out apiv1.Server, err error) {
	return out, c.get(ctx, path("servers", name), nil, &out)
}

// ServerHistory lists the commits of a server's branch, newest first.
func (c *Client) ServerHistory(ctx context.Context, name string, p Page) (out apiv1.List[apiv1.Commit], err error) {
	return out, c.get(ctx, path("servers", name, "history"), p.values(), &out)
}

// ApproveServer lets a server receive certificates; fingerprint is that of its key, compared by a person.
func (c *Client) ApproveServer(ctx context.Context, name, fingerprint string) (out apiv1.Server, err error) {
	return out, c.post(ctx, path("servers", name, "approve"), apiv1.ApproveRequest{Fingerprint: fingerprint}, &out)
}

// RollbackServer takes a server back to an earlier commit and holds it there.
func (c *Client) RollbackServer(ctx context.Context, name string, in apiv1.RollbackRequest) (out apiv1.Server, err error) {
	return out, c.post(ctx, path("servers", name, "rollback"), in, &out)
}

// ResumeServer ends the hold of a server.
func (c *Client) ResumeServer(ctx context.Context, name string) (out apiv1.Server, err error) {
	return out, c.post(ctx, path("servers", name, "resume"), nil, &out)
}

// Certificates lists certificates.
func (c *Client) Certificates(ctx context.Context, p Page) (out apiv1.List[apiv1.Certificate], err error) {
	return out, c.get(ctx, "/certificates", p.values(), &out)
}

// Certificate answers one certificate.
func (c *Client) Certificate(ctx context.Context, name string) (out apiv1.Certificate, err error) {
	return out, c.get(ctx, path("certificates", name), nil, &out)
}

// CreateCertificate wishes for a certificate.
func (c *Client) CreateCertificate(ctx context.Context, in apiv1.CertificateSpec) (out apiv1.Certificate, err error) {
	return out, c.post(ctx, "/certificates", in, &out)
}

// CertificateHistory lists the commits of main that changed what was issued for a certificate, newest first.
func (c *Client) CertificateHistory(ctx context.Context, name string, p Page) (out apiv1.List[apiv1.Commit], err error) {
	return out, c.get(ctx, path("certificates", name, "history"), p.values(), &out)
}

// RenewCertificate asks for a renewal now.
func (c *Client) RenewCertificate(ctx context.Context, name string, in apiv1.RenewRequest) (out apiv1.Job, err error) {
	return out, c.post(ctx, path("certificates", name, "renew"), in, &out)
}

// RollbackCertificate returns to an earlier issued certificate and pauses renewals.
func (c *Client) RollbackCertificate(ctx context.Context, name string, in apiv1.RollbackRequest) (out apiv1.Certificate, err error) {
	return out, c.post(ctx, path("certificates", name, "rollback"), in, &out)
}

// ResumeCertificate lets renewals go on.
func (c *Client) ResumeCertificate(ctx context.Context, name string) (out apiv1.Certificate, err error) {
	return out, c.post(ctx, path("certificates", name, "resume"), nil, &out)
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, p Page) (out apiv1.List[apiv1.Job], err error) {
	return out, c.get(ctx, "/jobs", p.values(), &out)
}

// Job answers one job.
func (c *Client) Job(ctx context.Context, id string) (out apiv1.Job, err error) {
	return out, c.get(ctx, path("jobs", id), nil, &out)
}

// Audit lists the audit history, newest first.
func (c *Client) Audit(ctx context.Context, p Page) (out apiv1.List[apiv1.AuditEvent], err error) {
	return out, c.get(ctx, "/audit", p.values(), &out)
}

// Status answers the hub at a glance.
func (c *Client) Status(ctx context.Context) (out apiv1.Status, err error) {
	return out, c.get(ctx, "/stats", nil, &out)
}
