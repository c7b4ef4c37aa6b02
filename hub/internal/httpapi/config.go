// Package httpapi is the hub's HTTP face: the versioned API with its OpenAPI document, the door to Git for agents,
// the console's files and the health checks.
//
// Handlers read, and write intent; they never issue, seal or push. Authority is one table (access.go), errors become
// status codes in one place (problem.go), no answer repeats what was submitted, and each change and each denied
// attempt stands in the audit history before it is answered.
package httpapi

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/internal/auth"
)

// GitPath is where the Git handler is mounted.
const GitPath = "/git/certferry.git"

// Config is what the API works with. All is required unless it says otherwise.
type Config struct {
	Data   Data
	Auth   Auth
	Intent Intent
	Fleet  Fleet
	// Commits reads the repository's history for people.
	Commits Commits
	// Rollouts and Proposals describe what is on its way, or waits.
	Rollouts  Rollouts
	Proposals Proposals
	// Orders ends orders.
	Orders Orders
	// IssuerIntent writes issuers, CAs are what they order from.
	IssuerIntent IssuerIntent
	CAs          CAs
	// Authorities are what private CAs publish; nil where there are none.
	Authorities Authorities
	// Credentials keeps secrets for DNS providers and CAs.
	Credentials Credentials
	// Preflight checks orders without a CA; nil where nobody can.
	Preflight Preflight
	// RenewAt says when a certificate is due for renewal; nil where nobody knows.
	RenewAt func(*manifest.Certificate, *manifest.IssuedCertificate) time.Time
	// Changed is called when the database learned what the reconcile loop must act on, such as a server's approval;
	// it must not block. Nil for nobody to tell.
	Changed func()
	// Ready says why the hub is not ready to serve; nil for always ready.
	Ready func(context.Context) error
	// Remotes knows the Git remotes; nil for a hub without.
	Remotes Remotes
	// Bell wakes heartbeats that wait; nil answers each at once.
	Bell *Bell
	// Finds hears what agents find; nil for nobody to hear.
	Finds Finds
	// Freezes hears of each heartbeat of a server that is not held; nil for nobody to hear.
	Freezes Freezes
	// Git serves the repository below GitPath, which is stripped from its requests; nil for no such door.
	Git http.Handler
	// Console holds index.html and assets/; nil for no console.
	Console fs.FS

	// PublicURL is the hub's address as agents and people reach it. With https, cookies are Secure and HSTS is sent.
	PublicURL string
	RepoID    string
	// RootKey is the ASCII-armored root public key, RootFingerprint its fingerprint.
	RootKey         string
	RootFingerprint string
	Version         string
	// HeartbeatInterval is what agents are told; a server is online for three of them after its last heartbeat.
	HeartbeatInterval time.Duration

	Now    func() time.Time
	Logger *slog.Logger
}

func (c *Config) check() error {
	switch {
	case c.Data == nil, c.Auth == nil, c.Intent == nil, c.Fleet == nil, c.Commits == nil, c.Rollouts == nil, c.Proposals == nil, c.Orders == nil, c.Credentials == nil:
		return errors.New("make HTTP API: a service is missing")
	case c.Now == nil, c.Logger == nil:
		return errors.New("make HTTP API: clock or logger is missing")
	case c.HeartbeatInterval < time.Second:
		return errors.New("make HTTP API: the heartbeat interval is shorter than a second")
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New("make HTTP API: the public URL must be http:// or https:// and a host")
	}
	c.PublicURL = strings.TrimRight(c.PublicURL, "/")
	return nil
}

func (c *Config) changed() {
	if c.Changed != nil {
		c.Changed()
	}
}

func (c *Config) ring(server string) {
	if c.Bell != nil {
		c.Bell.Ring(server)
	}
}

// Data is the database.
type Data interface {
	Servers
	Keys
	Accounts
	Jobs
	Audit
	Telling
}

// Telling is what the hub tells by itself, and figures.
type Telling interface {
	Alerts
	Watches
	Figures
}

// Servers are the servers' rows and what agents reported.
type Servers interface {
	JoinToken(ctx context.Context, hash string) (hub.JoinToken, error)
	InsertServer(ctx context.Context, server hub.Server, tokenHash string, event hub.AuditEvent) error
	ApproveServer(ctx context.Context, name, fingerprint string, event hub.AuditEvent) error
	RecordHeartbeat(ctx context.Context, server hub.Server) error
	RecordReport(ctx context.Context, server, reportID string, observations []hub.Observation) (bool, error)
	ServerReader
}

// ServerReader reads servers.
type ServerReader interface {
	Server(ctx context.Context, name string) (hub.Server, error)
	Servers(ctx context.Context, after string, limit int) ([]hub.Server, error)
	ServerObservations(ctx context.Context, server string) ([]hub.Observation, error)
	CertificateObservations(ctx context.Context, certificate string) ([]hub.Observation, error)
}

// Accounts are users and join tokens.
type Accounts interface {
	User(ctx context.Context, name string) (hub.User, error)
	Users(ctx context.Context, after string, limit int) ([]hub.User, error)
	InsertJoinToken(ctx context.Context, token hub.JoinToken, event hub.AuditEvent) error
}

// Jobs reads jobs, newest first, and their logs.
type Jobs interface {
	Job(ctx context.Context, id string) (hub.Job, error)
	Jobs(ctx context.Context, certificate, after string, limit int) ([]hub.Job, error)
	JobLog(ctx context.Context, id string, after int64, limit int) ([]hub.JobLine, error)
	LatestJob(ctx context.Context, certificate string) (hub.Job, error)
	CountJobs(ctx context.Context) (map[apiv1.JobState]int, error)
	LatestOrders(ctx context.Context) (map[string]hub.Job, error)
}

// Audit is the audit history.
type Audit interface {
	Audit(ctx context.Context, event hub.AuditEvent) error
	AuditEvents(ctx context.Context, before int64, limit int) ([]hub.AuditEvent, error)
}

// Auth knows callers.
type Auth interface {
	Authenticate(ctx context.Context, bearer string) (hub.Principal, error)
	SetupNeeded(ctx context.Context) (bool, error)
	CreateUser(ctx context.Context, actor hub.Principal, name, password string, role apiv1.Role) (hub.User, error)
	Sessions
}

// Sessions start and end logins.
type Sessions interface {
	Setup(ctx context.Context, code, name, password string) (auth.Login, error)
	Login(ctx context.Context, name, password, address string) (auth.Login, error)
	Refresh(ctx context.Context, token string) (auth.Login, error)
	Logout(ctx context.Context, sessionID string) error
}

// Intent writes what people wish to Git, and records each act in the audit history under the operation's id.
type Intent interface {
	Certificates
	ServerIntent
	RolloutIntent
	ReviewIntent
	FleetIntent
	Plans
}

// Certificates is the part of Intent about certificates.
type Certificates interface {
	CreateCertificate(ctx context.Context, actor hub.Principal, requestID string, spec apiv1.CertificateSpec) error
	RollbackCertificate(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error
	Renewals
	Revocations
}

// Renewals is the part of Intent about renewing certificates.
type Renewals interface {
	RenewCertificate(ctx context.Context, actor hub.Principal, requestID, name string, req apiv1.RenewRequest) (hub.Job, error)
	RenewAll(ctx context.Context, actor hub.Principal, requestID string, req apiv1.RenewAllRequest) (apiv1.RenewAllReply, error)
	PauseCertificate(ctx context.Context, actor hub.Principal, requestID, name, reason string) error
	ResumeCertificate(ctx context.Context, actor hub.Principal, requestID, name string) error
}

// Revocations is the part of Intent about certificates that nobody should trust any more.
type Revocations interface {
	RevokeCertificate(ctx context.Context, actor hub.Principal, requestID, name string, req apiv1.RevokeRequest) error
}

// ServerIntent is the part of Intent about servers.
type ServerIntent interface {
	EnsureServer(ctx context.Context, name string, labels map[string]string) error
	RollbackServer(ctx context.Context, actor hub.Principal, requestID, name, commit, reason string) error
	HoldServer(ctx context.Context, actor hub.Principal, requestID, name, reason string) error
	ResumeServer(ctx context.Context, actor hub.Principal, requestID, name string) error
}

// Fleet reads desired state and history from Git.
type Fleet interface {
	Snapshot() (*gitstore.Snapshot, error)
	ServerTip(server string) (*gitstore.Tip, error)
	CertificateHistory(name string, limit int) ([]*gitrepo.Commit, error)
	ServerHistory(server string, limit int) ([]gitstore.ServerCommit, error)
}
