// Package acmesh gets certificates from ACME CAs by driving acme.sh, which is an external program (GPL-3.0) and never
// part of this one.
//
// acme.sh keeps its configuration as shell text and reads it back as such, so that one quote in a value runs as a
// command. Hence: every value is checked against a small alphabet before anything is written; each run gets a
// configuration home of its own, made by us and thrown away after it; acme.sh sees a CSR and never a TLS key; its
// exit code is not believed, and the chain that it left is checked here.
package acmesh

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/certferry/certferry/issuer"
)

// Config is what New needs.
type Config struct {
	// Script is the absolute path of acme.sh; its folder holds dnsapi and is only read.
	Script string
	// HooksDir holds further hooks in dnsapi/, or is empty.
	HooksDir string
	// CommandHooks are hooks that run commands out of their variables, and may be used.
	CommandHooks []string
	// Webroots are folders below which the webroots of http-01 lie; empty for all but those of the system
	// and those below Closed.
	Webroots []string
	Closed   []string
	// StateDir keeps the ACME account of each directory. It is made with mode 0700. WorkDir holds the throw-away homes, in
	// a folder of this program's own, certferry-orders; nothing else in it is touched.
	StateDir string
	WorkDir  string
	// Directory is the https URL of the CA's ACME directory.
	Directory string
	// Email is the account's contact, or empty.
	Email string
	// CABundle is a PEM file of roots that are trusted beside the system's; empty for the system's alone.
	CABundle string
	// Proxy is how CAs and DNS providers are reached; nil for what the environment of this process says.
	Proxy *httpproxy.Config
	// StandalonePort is where the method standalone listens, TLSPort where tls-alpn-01 does; 0 for 80 and 443.
	StandalonePort int
	TLSPort        int
	// DNSWait is how long TXT records are given to spread before the CA looks: at most, where LookupTXT sees them sooner.
	DNSWait time.Duration
	// LookupTXT asks the servers of a zone for the TXT records of a name; nil to wait without looking.
	LookupTXT func(ctx context.Context, name string) ([]string, error)
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

// Issuer orders certificates from one CA under one account. Orders run side by side: each has a home of its own.
type Issuer struct {
	cfg  Config
	wall wall
}

var (
	_ issuer.Issuer          = (*Issuer)(nil)
	_ issuer.Revoker         = (*Issuer)(nil)
	_ issuer.RenewalInformer = (*Issuer)(nil)
	_ issuer.AccountHolder   = (*Issuer)(nil)
	_ issuer.Recoverer       = (*Issuer)(nil)
	_ issuer.DNSTester       = (*Issuer)(nil)
	_ issuer.Checker         = (*Issuer)(nil)
)

// New checks cfg. It talks to nobody.
func New(cfg Config) (*Issuer, error) {
	if err := checkConfig(&cfg); err != nil {
		return nil, fmt.Errorf("set up acme.sh: %w", err)
	}
	cfg.WorkDir = filepath.Join(cfg.WorkDir, ordersDir)
	if err := errors.Join(os.MkdirAll(cfg.StateDir, 0o700), os.MkdirAll(cfg.WorkDir, 0o711)); err != nil { //nolint:gosec // User passes through
		return nil, fmt.Errorf("set up acme.sh: %w", err)
	}
	// What works in a home is known by its working folder, of which the kernel tells the true path.
	var err error
	if cfg.WorkDir, err = filepath.EvalSymlinks(cfg.WorkDir); err != nil {
		return nil, fmt.Errorf("set up acme.sh: %w", err)
	}
	if !plainPath.MatchString(cfg.WorkDir) {
		return nil, errors.New("set up acme.sh: work_dir leads to a path that is not of letters, digits and . _ / -")
	}
	if err := cfg.openToUser(); err != nil {
		return nil, fmt.Errorf("set up acme.sh: %w", err)
	}
	return &Issuer{cfg: cfg}, nil
}

// ordersDir is the folder of the homes. What it holds is deleted, and what works in it is killed, at the hub's start.
const ordersDir = "certferry-orders"

func checkConfig(cfg *Config) error {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Minute
	}
	if cfg.Proxy == nil {
		cfg.Proxy = httpproxy.FromEnvironment()
	}
	cfg.StandalonePort, cfg.TLSPort = cmp.Or(cfg.StandalonePort, 80), cmp.Or(cfg.TLSPort, 443)
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

// openToUser lets the user that acme.sh runs as pass through WorkDir, and checks that nothing above keeps it out.
func (c *Config) openToUser() error {
	if c.User == "" || os.Getuid() != 0 {
		return os.Chmod(c.WorkDir, 0o700) //nolint:gosec // a folder wants the x
	}
	if _, err := user.Lookup(c.User); err != nil {
		return fmt.Errorf("find user %s: %w; make it with useradd --system, or set another one", c.User, err)
	}
	if err := os.Chmod(c.WorkDir, 0o711); err != nil { //nolint:gosec // it can be passed and not be read
		return err
	}
	for _, path := range []string{c.WorkDir, filepath.Dir(c.Script)} {
		for dir := path; ; dir = filepath.Dir(dir) {
			info, err := os.Stat(dir)
			if err != nil {
				return err
			}
			if info.Mode()&0o001 == 0 {
				return fmt.Errorf("user %s cannot reach %s: %s is closed to others; put it elsewhere", c.User, path, dir)
			}
			if dir == "/" {
				break
			}
		}
	}
	return nil
}

// Issue orders a certificate for the CSR of req.
func (i *Issuer) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	if err := i.checkRequest(req); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Timeout)
	defer cancel()
	req.Tell(issuer.Event{Phase: issuer.PhaseAccount})
	account, err := i.account(ctx)
	if err != nil {
		return nil, at(err, issuer.PhaseAccount)
	}
	home, err := i.newHome(&req, account)
	if err != nil {
		return nil, local("prepare a folder for acme.sh", err)
	}
	defer i.remove(ctx, home)
	chain, err := i.order(ctx, home, &req)
	if cerr := i.clearAfter(ctx, home, &req); cerr != nil && err != nil {
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return nil, err
	}
	return &issuer.Certificate{Chain: chain}, nil
}

// order runs acme.sh and takes what it left.
func (i *Issuer) order(ctx context.Context, home *home, req *issuer.Request) ([]*x509.Certificate, error) {
	result, err := i.issue(ctx, home, req)
	if err != nil && !result.phase.Spent() {
		return nil, err
	}
	chain, checkErr := home.chain(*req, i.cfg.Now())
	if checkErr == nil {
		req.Tell(issuer.Event{Phase: issuer.PhaseCheck, Line: "the certificate is what was ordered"})
		i.checkPreferred(ctx, req, chain)
		return chain, nil // also where it came in the last moment
	}
	if err != nil {
		return nil, err
	}
	failed := classify(home.log(), result, i.cfg.Now())
	if bad := home.guarded(); bad != "" {
		failed = &issuer.Error{Class: issuer.Permanent, Detail: bad + ": do not use this CA"}
	}
	if record := home.failedRecord(); record != "" {
		failed = &issuer.Error{
			Class: issuer.DNSProvider, Name: strings.TrimPrefix(record, "_acme-challenge."),
			Detail: "the DNS provider did not take the TXT record: check the credential; " + lastLine(result.output),
		}
	}
	failed.Phase = result.phase
	if failed.Detail == "" {
		failed.Detail = checkErr.Error()
		if failed.Class == issuer.Local && errors.Is(checkErr, errAnswer) {
			failed.Class = issuer.Retryable // nothing on this machine failed: the CA sent it so
		}
	}
	return nil, failed
}

// checkPreferred says where the CA has no chain of the wish: acme.sh takes the CA's first one then, without a word.
func (i *Issuer) checkPreferred(ctx context.Context, req *issuer.Request, chain []*x509.Certificate) {
	// As acme.sh compares: a part of the name is enough, in either case.
	wish := strings.ToLower(req.PreferredChain)
	if wish == "" || slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return strings.Contains(strings.ToLower(c.Issuer.CommonName), wish) }) {
		return
	}
	got := oneLine(chain[len(chain)-1].Issuer.CommonName)
	req.Tell(issuer.Event{Line: "the CA has no chain of " + req.PreferredChain + ": this one leads to " + got})
	i.cfg.Logger.WarnContext(ctx, "preferred chain not offered by the CA", slog.String("order", req.ID), slog.String("preferred", req.PreferredChain), slog.String("issuer", got))
}

// clearAfter removes the records that acme.sh did not remove, as after it was stopped.
func (i *Issuer) clearAfter(ctx context.Context, home *home, req *issuer.Request) error {
	if len(home.left()) == 0 {
		return nil
	}
	// Records are removed even when the order was cancelled.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTimeout)
	defer cancel()
	err := i.clearDNS(ctx, home, req.Progress)
	if err != nil {
		i.cfg.Logger.ErrorContext(ctx, "TXT records of an order are left", slog.String("order", req.ID), slog.Any("error", err))
		line := err.Error()
		if len(home.standing()) > 0 {
			line += "; the hub tries again when it starts next, or remove it by hand"
		}
		req.Tell(issuer.Event{Line: line})
	}
	return err
}

// remove deletes a home. Where records are left, what their removal needs stays for the next Recover.
func (i *Issuer) remove(ctx context.Context, home *home) {
	remove := home.remove
	if len(home.standing()) > 0 {
		remove = home.keep
	}
	if err := remove(); err != nil {
		i.cfg.Logger.ErrorContext(ctx, "folder of acme.sh not removed", slog.Any("error", err))
	}
}

// verifyFiles checks that the script and the hooks of a run are as they were published.
func (i *Issuer) verifyFiles(hooks []hookOf) error {
	if i.cfg.Verify == nil {
		return nil
	}
	files := []string{filepath.Base(i.cfg.Script)}
	for _, of := range hooks {
		// Hooks of the administrator's own have no published form.
		if filepath.Dir(filepath.Dir(of.path)) == filepath.Dir(i.cfg.Script) {
			files = append(files, "dnsapi/"+filepath.Base(of.path))
		}
	}
	slices.Sort(files)
	if err := i.cfg.Verify(slices.Compact(files)...); err != nil {
		return &issuer.Error{Class: issuer.Local, Phase: issuer.PhasePrepare, Detail: "acme.sh is not as it was published: run certferry-hub acme install, or set acme_unpinned for a version of your own", Err: err}
	}
	return nil
}

// at notes how far an order was when it failed.
func at(err error, phase issuer.Phase) error {
	if e := new(issuer.Error); errors.As(err, &e) && e.Phase == "" {
		e.Phase = phase
	}
	return err
}

// local gives err a class where it has none.
func local(detail string, err error) error {
	if e := new(issuer.Error); errors.As(err, &e) {
		return at(err, issuer.PhasePrepare)
	}
	return &issuer.Error{Class: issuer.Local, Phase: issuer.PhasePrepare, Detail: detail, Err: err}
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
