// Package preflight finds out what a CA would find before the CA is asked: a CA counts failed tries and stops those who
// have too many. It looks only, but for a token's file that it puts into a webroot and takes away again.
//
// What the hub cannot see from where it stands is a warning, and never keeps an order back.
package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/issuer"
)

const (
	// DefaultTimeout bounds a preflight. What is not done by then is skipped.
	DefaultTimeout = 15 * time.Second
	// atOnce is how many checks run at once.
	atOnce = 16
)

// CA is what is known of the CA of an issuer.
type CA struct {
	// Public says that it is one of those that the world trusts, which sign for public names at public addresses only.
	Public bool
	// Identities are the names by which CAA records allow it; none where that is not known.
	Identities []string
}

// Config is what a Checker needs. All is required unless it says otherwise.
type Config struct {
	DNS *DNS
	// CA knows the CA of an issuer of the type acmesh.
	CA func(*manifest.Issuer) CA
	// Thumbprint is that of the issuer's account (RFC 7638), for the method stateless.
	Thumbprint func(ctx context.Context, at *manifest.Issuer) (string, error)
	// Webroot says why an order puts no tokens below a folder, by an *issuer.Error of class permanent, and by another error
	// where nothing is ordered at all; nil for no check.
	Webroot func(at *manifest.Issuer, folder string) error
	// Credential says why a credential cannot be used, nil where it can.
	Credential func(ctx context.Context, name string) error
	// Ledger answers a *ledger.WaitError where the order would wait for a limit; nil where nothing is counted.
	Ledger func(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer) error
	// Time is what the CA's clock shows, by an answer of its directory (RFC 9110 §6.6.1); nil for no check.
	Time func(ctx context.Context, at *manifest.Issuer) (time.Time, error)
	// Free says how many bytes are free where orders write; nil for no check.
	Free func() (uint64, error)
	// Program says why the issuer's program cannot be run, such as that its files were changed; nil for no check.
	Program func(at *manifest.Issuer) error
	// Ports are other ports than those that CAs use, such as "80", for tests.
	Ports map[string]string
	// Timeout bounds a preflight; 0 for DefaultTimeout.
	Timeout time.Duration
	Now     func() time.Time
}

// Checker checks.
type Checker struct{ cfg Config }

// New makes a Checker.
func New(cfg Config) (*Checker, error) {
	if cfg.DNS == nil || cfg.CA == nil || cfg.Thumbprint == nil || cfg.Credential == nil || cfg.Now == nil {
		return nil, errors.New("make preflight: a service is missing")
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Checker{cfg}, nil
}

// check is one preflight under way.
type check struct {
	*Checker

	want *manifest.Certificate
	at   *manifest.Issuer
	ca   CA
}

// Check checks an order of want at an issuer.
func (c *Checker) Check(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer) hub.PreflightReport {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	k := &check{Checker: c, want: want, at: at}
	tasks := []func(context.Context) []hub.Finding{k.names, k.disk}
	if at.Type == "acmesh" && at.ACME != nil {
		k.ca = c.cfg.CA(at)
		tasks = append(tasks, k.program, k.clock, k.ledger)
		tasks = append(tasks, k.credentials()...)
		for _, name := range want.Names {
			tasks = append(tasks, func(ctx context.Context) []hub.Finding { return k.name(ctx, name) })
		}
	}
	found := make([][]hub.Finding, len(tasks))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, task := range tasks {
		group.Go(func() error {
			found[i] = task(ctx)
			return nil
		})
	}
	_ = group.Wait() // no task fails: what is wrong is a finding
	return slices.Concat(found...)
}

// Order is Check for an order: it tells what is not as it should be line by line, and answers the error that the order
// would end with.
func (c *Checker) Order(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer, tell func(line string)) error {
	report := c.Check(ctx, want, at)
	for _, f := range report {
		if f.State == hub.FindingFailed || f.State == hub.FindingWarning {
			tell(strings.TrimSpace(fmt.Sprintf("preflight %s: %s %s: %s", f.State, f.Check, f.Object, f.Detail)))
		}
	}
	tell(fmt.Sprintf("preflight: %d ok, %d skipped, %d warnings, %d failed", report.Count(hub.FindingOK),
		report.Count(hub.FindingSkipped), report.Count(hub.FindingWarning), report.Count(hub.FindingFailed)))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return report.Err()
}

// challenge is how control of a name is proven; nil where the certificate does not say.
func (k *check) challenge(name string) *manifest.Challenge {
	for i := range k.want.Challenges {
		if slices.Contains(k.want.Challenges[i].Names, name) {
			return &k.want.Challenges[i].Challenge
		}
	}
	return k.want.Challenge
}

// name checks what belongs to one name.
func (k *check) name(ctx context.Context, name string) []hub.Finding {
	c := k.challenge(name)
	switch {
	case c == nil:
		return []hub.Finding{failed("challenge", name, issuer.Permanent, "nothing says how control of the name is proven",
			"add a challenge to the certificate")}
	case strings.HasPrefix(name, "*.") && c.Type != string(issuer.DNS01):
		return []hub.Finding{failed("challenge", name, issuer.Permanent, "a wildcard can be proven by dns-01 only",
			"give this name the challenge dns-01")}
	}
	found := k.caa(ctx, name, c)
	if c.Type == string(issuer.DNS01) {
		return append(found, k.dns(ctx, name, c)...)
	}
	return append(found, k.reach(ctx, name, c)...)
}

func ok(check, object, detail string) hub.Finding {
	return hub.Finding{Check: check, Object: object, State: hub.FindingOK, Detail: detail}
}

func skipped(check, object, detail, next string) hub.Finding {
	return hub.Finding{Check: check, Object: object, State: hub.FindingSkipped, Detail: detail, Next: next}
}

func warning(check, object, detail, next string) hub.Finding {
	return hub.Finding{Check: check, Object: object, State: hub.FindingWarning, Detail: detail, Next: next}
}

func failed(check, object string, class issuer.Class, detail, next string) hub.Finding {
	return hub.Finding{Check: check, Object: object, State: hub.FindingFailed, Class: class, Detail: detail, Next: next}
}

// unasked is the finding where DNS could not be asked: it says nothing about the name.
func unasked(ctx context.Context, check, object string) hub.Finding {
	if ctx.Err() != nil {
		return skipped(check, object, "not done in time", "run the preflight again")
	}
	return warning(check, object, "could not be checked: "+errSilent.Error(), "give the hub's machine a DNS resolver")
}

// ledger says whether the order would wait for a limit of the CA.
func (k *check) ledger(ctx context.Context) []hub.Finding {
	if k.cfg.Ledger == nil {
		return nil
	}
	err := k.cfg.Ledger(ctx, k.want, k.at)
	wait, waits := errors.AsType[*ledger.WaitError](err)
	switch {
	case waits:
		return []hub.Finding{warning("ledger", "", wait.Error(), "nothing to do: the order waits by itself; a fallback issuer would not")}
	case err != nil:
		return []hub.Finding{skipped("ledger", "", "could not be read", "look at the hub's log")}
	}
	return []hub.Finding{ok("ledger", "", "within the limits of the CA that are known")}
}
