// Package acmesh gets certificates from ACME CAs by driving acme.sh, which is an external program (GPL-3.0) and never
// part of this one.
//
// acme.sh keeps its configuration as shell text and reads it back as such, so that one quote in a value runs as a
// command. Hence: every value is checked against a small alphabet before anything is written; each run gets a
// configuration home of its own, made by us and thrown away after it; acme.sh sees a CSR and never a TLS key; its
// exit code is not believed, and the chain that it left is checked here.
package acmesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/certferry/certferry/issuer"
)

// Config is what New needs.
type Config struct {
	// Script is the absolute path of acme.sh; its folder holds dnsapi and is only read.
	Script string
	// HooksDir holds further hooks in dnsapi/, or is empty.
	HooksDir string
	// StateDir keeps the ACME account of each directory, WorkDir the throw-away homes. Both are made with mode 0700.
	StateDir string
	WorkDir  string
	// Directory is the https URL of the CA's ACME directory.
	Directory string
	// Email is the account's contact, or empty.
	Email string
	// CABundle is a PEM file that the CA's TLS certificate must chain to; empty for the system's.
	CABundle string
	// StandalonePort is where the method standalone listens; 0 for 80.
	StandalonePort int
	// DNSWait is how long a TXT record is given to spread before the CA looks.
	DNSWait time.Duration
	// EAB returns what binds the account to one at the CA (RFC 8555 §7.3.4); nil where the CA asks for nothing.
	EAB func() (kid string, hmac []byte, err error)
	// User is the account that acme.sh runs as where this process is root; empty for this process' own.
	User string
	// Verify checks that files below Script's folder, such as dnsapi/dns_cf.sh, are as they were published; nil where
	// they are not known.
	Verify func(files ...string) error
	// Timeout bounds one order; 0 for 10 minutes.
	Timeout time.Duration
	Now     func() time.Time
	Logger  *slog.Logger
}

// Issuer orders certificates from one CA under one account. It is an issuer.Issuer.
type Issuer struct {
	cfg Config
	// order holds one token, the right to order: acme.sh and the CA's limits both count by account.
	order chan struct{}
}

var _ issuer.Issuer = (*Issuer)(nil)

// New checks cfg. It talks to nobody.
func New(cfg Config) (*Issuer, error) {
	if err := checkConfig(&cfg); err != nil {
		return nil, fmt.Errorf("set up acme.sh: %w", err)
	}
	for _, dir := range []string{cfg.StateDir, cfg.WorkDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("set up acme.sh: %w", err)
		}
	}
	return &Issuer{cfg: cfg, order: make(chan struct{}, 1)}, nil
}

func checkConfig(cfg *Config) error {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Minute
	}
	if cfg.StandalonePort == 0 {
		cfg.StandalonePort = 80
	}
	if cfg.Now == nil || cfg.Logger == nil {
		return errors.New("clock or logger is missing")
	}
	for _, path := range []string{cfg.Script, cfg.StateDir, cfg.WorkDir} {
		if !filepath.IsAbs(path) || !plainPath.MatchString(path) {
			return errors.New("script, state_dir and work_dir must be absolute paths of letters, digits and . _ / -")
		}
	}
	info, err := os.Stat(cfg.Script)
	if err != nil {
		return fmt.Errorf("acme.sh is not there: %w; get a copy and set its path", err)
	}
	if !info.Mode().IsRegular() {
		return errors.New("acme.sh is not a file")
	}
	return checkAccount(cfg)
}

// Issue orders a certificate for the CSR of req. One order of an account runs at a time; others wait.
func (i *Issuer) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	if err := i.checkRequest(req); err != nil {
		return nil, err
	}
	select {
	case i.order <- struct{}{}:
		defer func() { <-i.order }()
	case <-ctx.Done():
		return nil, &issuer.Error{Class: issuer.Retryable, Detail: "another order of the account took all the time", Err: ctx.Err()}
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Timeout)
	defer cancel()
	account, err := i.account(ctx)
	if err != nil {
		return nil, err
	}
	home, err := i.newHome(req, account)
	if err != nil {
		return nil, &issuer.Error{Class: issuer.Local, Detail: "prepare a folder for acme.sh", Err: err}
	}
	defer func() {
		if err := home.remove(); err != nil {
			i.cfg.Logger.ErrorContext(ctx, "folder of acme.sh not removed", slog.Any("error", err))
		}
	}()
	result, err := i.run(ctx, home, req)
	if err != nil {
		return nil, err
	}
	chain, checkErr := home.chain(req, i.cfg.Now())
	if checkErr == nil {
		return &issuer.Certificate{Chain: chain}, nil
	}
	if ctx.Err() != nil {
		return nil, &issuer.Error{Class: issuer.Retryable, Detail: "the order took too long or was cancelled", Err: ctx.Err()}
	}
	failed := classify(home.log(), result, i.cfg.Now())
	if failed.Detail == "" {
		failed.Detail = checkErr.Error()
	}
	return nil, failed
}

// Thumbprint is the JWK thumbprint of the account (RFC 7638): for the method stateless, a web server answers
// "<token>.<thumbprint>" below /.well-known/acme-challenge/. It registers the account where there is none yet.
func (i *Issuer) Thumbprint(ctx context.Context) (string, error) {
	account, err := i.account(ctx)
	if err != nil {
		return "", err
	}
	return account.thumbprint()
}
