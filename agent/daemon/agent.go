// This file puts an enrolled agent together from its state folder and configuration.

package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/certferry/certferry/agent"
	"github.com/certferry/certferry/agent/internal/deploy"
	"github.com/certferry/certferry/agent/internal/deployer"
	"github.com/certferry/certferry/agent/internal/keystore"
	"github.com/certferry/certferry/agent/internal/policy"
	"github.com/certferry/certferry/agent/internal/probe"
	"github.com/certferry/certferry/agent/internal/report"
	"github.com/certferry/certferry/agent/internal/source"
	"github.com/certferry/certferry/agent/internal/state"
	"github.com/certferry/certferry/hub/apiv1"
	"github.com/certferry/certferry/hub/client"
)

// Environment is what a program gives the agent from outside.
type Environment struct {
	Version string
	Now     func() time.Time
	Logger  *slog.Logger
}

// hubAPI is what the agent asks of the hub beside Git.
type hubAPI interface {
	Register(ctx context.Context, req apiv1.RegisterRequest) (apiv1.Registration, error)
	Heartbeat(ctx context.Context, req apiv1.HeartbeatRequest) (apiv1.HeartbeatReply, error)
	Report(ctx context.Context, req apiv1.ReportRequest) error
	OfferKey(ctx context.Context, req apiv1.OfferKeyRequest) (apiv1.OfferedKey, error)
	SendCSR(ctx context.Context, req apiv1.CertificateRequest) error
}

// deployments carries out and undoes deployments; *deploy.Deployer is one.
type deployments interface {
	Deploy(ctx context.Context, deployments []agent.Deployment) ([]agent.Outcome, error)
	Recover(ctx context.Context) ([]agent.Outcome, error)
}

// Agent is an enrolled agent. Its methods may be called by several processes at once: the state folder's lock
// makes the second wait.
type Agent struct {
	cfg    Config
	env    Environment
	log    *slog.Logger
	dir    *state.Dir
	id     state.Identity // as it was at the start; the key may be replaced since
	source *source.Source
	deploy deployments
	outbox *report.Outbox
	keys   *keystore.Store
	hub    hubAPI
	// last is what the last scan found.
	last findings
	// fingerprint is that of the present key: heartbeats and status ask for it while a cycle may replace the key.
	fingerprint atomic.Pointer[string]
}

// New opens the agent that was enrolled in cfg.StateDir; the error is state.ErrNotEnrolled where none was.
func New(cfg Config, env Environment) (*Agent, error) {
	if _, err := os.Stat(cfg.StateDir); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled // asking makes no folder
	}
	dir, err := state.Open(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	trust, err := keys.trust()
	if err != nil {
		return nil, err
	}
	id, credential := keys.id, keys.credential
	several, err := remotes(&cfg, id, credential, env.Logger)
	if err != nil {
		return nil, err
	}
	hub, err := newHubClient(cfg, id.HubURL, credential)
	if err != nil {
		return nil, err
	}
	outbox, err := report.Open(dir.Path("reports"))
	if err != nil {
		return nil, err
	}
	own, err := keystore.Open(dir.Path("keys"))
	if err != nil {
		return nil, err
	}
	deployer, err := deploy.New(deploy.Config{
		StateDir: cfg.StateDir, Deployers: deployer.Registry(), Prober: &probe.Prober{},
		Policy: func() (*policy.Policy, error) { return policy.Load(cfg.Policy) },
		Now:    env.Now, Logger: env.Logger,
	})
	if err != nil {
		return nil, err
	}
	from := source.NewSeveral(several, trust, env.Now)
	from.SetKeys(keys.present, keys.next, keys.old)
	a := &Agent{
		cfg: cfg, env: env, log: env.Logger, dir: dir, id: id,
		source: from, deploy: deployer, outbox: outbox, keys: own, hub: hub,
	}
	a.fingerprint.Store(&id.Fingerprint)
	return a, nil
}

// ErrNotEnrolled means that this server has no identity yet.
var ErrNotEnrolled = state.ErrNotEnrolled

// newTransport returns the one HTTP transport of the agent: TLS checked against cfg.CAFile where it is set.
func newTransport(cfg Config) (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		data, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("read CA file %s: it holds no PEM certificate", cfg.CAFile)
		}
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout: 5 * time.Minute, MaxIdleConnsPerHost: 2,
	}, nil
}

// hubTimeout bounds a request to the hub, which keeps the answer to a heartbeat for up to a minute.
const hubTimeout = 90 * time.Second

func newHubClient(cfg Config, url, credential string) (*client.Client, error) {
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	transport.ResponseHeaderTimeout = hubTimeout
	return client.New(client.Config{
		BaseURL: url, Token: client.Static(credential), UserAgent: "certferry-agent",
		HTTP: &http.Client{Transport: transport, Timeout: hubTimeout},
	})
}
