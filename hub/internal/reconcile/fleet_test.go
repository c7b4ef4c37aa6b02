package reconcile

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/database"
	"github.com/certferry/certferry/hub/internal/hubtest"
	"github.com/certferry/certferry/issuer"
)

// limits are those that Let's Encrypt publishes (letsencrypt.org/docs/rate-limits).
var limits = []issuer.Limit{
	{Name: "new orders", Scope: issuer.ScopeAccount, Of: issuer.SpendOrder, Count: 300, Per: 3 * time.Hour, RenewalExempt: true},
	{Name: "certificates of a registered domain", Scope: issuer.ScopeRegisteredDomain, Of: issuer.SpendIssuance, Count: 50, Per: 7 * day, RenewalExempt: true},
	{Name: "certificates of the same names", Scope: issuer.ScopeExactSet, Of: issuer.SpendIssuance, Count: 5, Per: 7 * day, RenewalExempt: true},
	{Name: "failed validations", Scope: issuer.ScopeHostname, Of: issuer.SpendFailedValidation, Count: 5, Per: time.Hour},
}

// tick is the time between two looks at the fleet.
const tick = 3 * time.Hour

// fleet is a repository in memory, and the CAs of many certificates. The database and the reconcile loop are real.
type fleet struct {
	*testing.T

	clock   *hubtest.Clock
	r       *Reconciler
	snap    *gitstore.Snapshot
	bundles map[string]*bundle.Bundle
	commits int

	cas    map[string]*countingCA
	issues int
	// latest is the least time that a certificate had left when it was renewed, as a share of its lifetime.
	latest float64
}

// countingCA is a CA that counts what is asked of it by itself, and has outages.
type countingCA struct {
	*hubtest.CA

	f       *fleet
	away    func(time.Time) bool
	orders  []time.Time
	domains map[string][]time.Time
	sets    map[string][]time.Time
}

func (c *countingCA) Issue(ctx context.Context, req issuer.Request) (*issuer.Certificate, error) {
	now := c.f.clock.Now()
	if c.away(now) {
		return nil, &issuer.Error{Class: issuer.Retryable, Phase: issuer.PhaseAccount, Detail: "the CA does not answer"}
	}
	if len(req.Previous) == 0 {
		c.orders = c.count(c.orders, 3*time.Hour, 300, "orders")
		name := req.Names[0]
		domain := name[len(name)-len("d0000.example"):]
		c.domains[domain] = c.count(c.domains[domain], 7*day, 50, "certificates of "+domain)
		c.sets[name] = c.count(c.sets[name], 7*day, 5, "certificates of the same names")
	}
	return c.CA.Issue(ctx, req)
}

// count adds now, and fails where more than limit lie within a time: the CA would have refused.
func (c *countingCA) count(times []time.Time, within time.Duration, limit int, what string) []time.Time {
	now := c.f.clock.Now()
	for len(times) > 0 && !times[0].After(now.Add(-within)) {
		times = times[1:]
	}
	if times = append(times, now); len(times) > limit {
		c.f.Fatalf("%s: %d %s within %s, the CA allows %d", now, len(times), what, within, limit)
	}
	return times
}

func newFleet(t *testing.T, certificates int) *fleet {
	t.Helper()
	f := &fleet{
		T: t, clock: hubtest.NewClock(), bundles: map[string]*bundle.Bundle{}, cas: map[string]*countingCA{}, latest: 1,
		snap: &gitstore.Snapshot{
			Certificates: map[string]*manifest.Certificate{}, Issuers: map[string]*manifest.Issuer{},
			Issued: map[string]*manifest.IssuedCertificate{}, Servers: map[string]*manifest.Server{},
		},
	}
	begin := f.clock.Now()
	during := func(spans ...[2]time.Duration) func(time.Time) bool {
		return func(now time.Time) bool {
			for _, span := range spans {
				if since := now.Sub(begin); since >= span[0] && since < span[1] {
					return true
				}
			}
			return false
		}
	}
	// The CAs are away for as long as the certificates must outlast.
	f.ca("days-90", 90*day, during([2]time.Duration{200 * day, 214 * day}, [2]time.Duration{500 * day, 514 * day}))
	f.ca("days-47", 47*day, during([2]time.Duration{100 * day, 114 * day}, [2]time.Duration{600 * day, 614 * day}))
	f.ca("hours-160", 160*time.Hour, during([2]time.Duration{50 * day, 53 * day}, [2]time.Duration{300 * day, 303 * day}))
	for i := range certificates {
		name := fmt.Sprintf("c%05d.d%04d.example", i, i/20%10_000)
		at := "days-90"
		switch {
		case i%50 == 0:
			at = "hours-160"
		case i%4 == 0:
			at = "days-47"
		}
		f.snap.Certificates[name] = &manifest.Certificate{Name: name, Names: []string{name}, Issuer: at}
	}
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), f.clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	f.r, err = New(Config{
		Store: f, Repo: noRepo{}, Data: db, Alerts: db, Ledger: db, Workers: 1, Interval: time.Hour, WaveTimeout: time.Hour, OfflineAfter: time.Hour,
		Issuer:      func(i *manifest.Issuer) (issuer.Issuer, error) { return f.cas[i.Name], nil },
		Limits:      func(i *manifest.Issuer) Limits { return Limits{Account: i.Name, Limits: limits} },
		Credentials: func(string) (map[string]string, error) { return nil, fs.ErrNotExist },
		Domain:      "example.com", KeyringVersion: 1, Now: f.clock.Now, Logger: slog.New(slog.DiscardHandler), Random: rand.New(rand.NewPCG(1, 2)).Float64,
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) ca(name string, lifetime time.Duration, away func(time.Time) bool) {
	ca := hubtest.NewCA(f, f.clock.Now)
	ca.Lifetime = lifetime
	f.cas[name] = &countingCA{CA: ca, f: f, away: away, domains: map[string][]time.Time{}, sets: map[string][]time.Time{}}
	f.snap.Issuers[name] = &manifest.Issuer{Name: name, Type: "privateca"}
}

// pass does what the loop does, until nothing is left to do now.
func (f *fleet) pass() {
	f.Helper()
	for {
		if err := f.r.plan(f.Context()); err != nil {
			f.Fatal(err)
		}
		for begun := 0; ; {
			started, err := f.r.startOrders(f.Context())
			f.r.orders.Wait()
			if err != nil {
				f.Fatal(err)
			}
			if begun += started; started > 0 {
				continue
			}
			if begun == 0 {
				return
			}
			break
		}
	}
}

// check holds at each moment: what was issued once never expires.
func (f *fleet) check() {
	f.Helper()
	now := f.clock.Now()
	for name, have := range f.snap.Issued {
		if !now.Before(have.NotAfter) {
			f.Fatalf("%s: %s of %s expired: %+v", now, name, have.Issuer, f.job(name))
		}
	}
}

func (f *fleet) job(name string) hub.Job {
	orders, err := f.r.cfg.Data.LatestOrders(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	return orders[name]
}

// TestNoneOfManyCertificatesExpiresInTwoYears renews a fleet for two years, in which its CAs are away for two weeks, and
// for three days where certificates live for 160 hours. CERTFERRY_FLEET sets how many; 10000 take minutes.
func TestNoneOfManyCertificatesExpiresInTwoYears(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	n := 150
	if text := os.Getenv("CERTFERRY_FLEET"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	f := newFleet(t, n)
	begin := f.clock.Now()
	for f.clock.Now().Sub(begin) < 2*365*day {
		f.pass()
		f.check()
		f.clock.Advance(tick)
		if passed := f.clock.Now().Sub(begin); passed%(90*day) == 0 {
			t.Logf("%d days: %d issues", passed/day, f.issues)
		}
	}
	if len(f.snap.Issued) != n {
		t.Errorf("%d of %d certificates were issued", len(f.snap.Issued), n)
	}
	t.Logf("%d certificates, %d issues; the latest renewal had %.0f %% of its lifetime left", n, f.issues, 100*f.latest)
}

// Snapshot implements Store.
func (f *fleet) Snapshot() (*gitstore.Snapshot, error) { return f.snap, nil }

// PutIssued implements Store.
func (f *fleet) PutIssued(_ context.Context, issue gitstore.Issue) (string, error) {
	f.commits++
	commit := fmt.Sprintf("%040x", f.commits)
	if err := issue.Change.BeforeRef(commit); err != nil {
		return "", err
	}
	b, document := issue.Bundle, issue.Issued
	document.Name, document.Names = issue.Certificate, b.Leaf.DNSNames
	document.NotBefore, document.NotAfter = b.Leaf.NotBefore, b.Leaf.NotAfter
	document.LeafSHA256, document.SPKISHA256, document.Serial = b.LeafSHA256(), b.SPKISHA256(), b.Leaf.SerialNumber.Text(16)
	if old := f.snap.Issued[issue.Certificate]; old != nil {
		left := old.NotAfter.Sub(f.clock.Now())
		f.latest = min(f.latest, float64(left)/float64(old.NotAfter.Sub(old.NotBefore)))
	}
	f.snap.Issued[issue.Certificate], f.bundles[issue.Certificate] = &document, b
	f.issues++
	f.snap.Commit = commit
	return commit, nil
}

// OpenIssued implements Store.
func (f *fleet) OpenIssued(_ context.Context, _, name string) (*bundle.Bundle, error) {
	return f.bundles[name], nil
}

// The rest of Store and Repo is not asked for.

// Proposals implements Store.
func (f *fleet) Proposals() ([]*gitstore.Proposal, error) { return nil, nil }

// Apply implements Store.
func (f *fleet) Apply(context.Context, gitstore.Change) (string, error) { return "", fs.ErrInvalid }

// IssuedAt implements Store.
func (f *fleet) IssuedAt(string, string) (*manifest.IssuedCertificate, error) {
	return nil, fs.ErrInvalid
}

// IssuedChain implements Store.
func (f *fleet) IssuedChain(string, string) ([]*x509.Certificate, error) { return nil, fs.ErrInvalid }

// IssueWith implements Store.
func (f *fleet) IssueWith(string, string) (string, *manifest.IssuedCertificate, error) {
	return "", nil, fs.ErrInvalid
}

// Propose implements Store.
func (f *fleet) Propose(context.Context, gitstore.Issue) (string, error) { return "", fs.ErrInvalid }

// CloseProposal implements Store.
func (f *fleet) CloseProposal(context.Context, *gitstore.Proposal, gitstore.Change) error {
	return fs.ErrInvalid
}

// ServerTip implements Store.
func (f *fleet) ServerTip(string) (*gitstore.Tip, error) { return nil, fs.ErrInvalid }

// ServerHistory implements Store.
func (f *fleet) ServerHistory(string, int) ([]gitstore.ServerCommit, error) {
	return nil, fs.ErrInvalid
}

// Publish implements Store.
func (f *fleet) Publish(context.Context, string, []gitstore.ServerState) ([]gitstore.Published, error) {
	return nil, fs.ErrInvalid
}

// noRepo is a repository without commits.
type noRepo struct{}

// Changed implements Repo.
func (noRepo) Changed() <-chan struct{} { return nil }

// Ref implements Repo.
func (noRepo) Ref(string) (gitrepo.Hash, bool) { return gitrepo.Hash{}, false }

// Log implements Repo.
func (noRepo) Log(gitrepo.Hash, int) ([]*gitrepo.Commit, error) { return nil, fs.ErrInvalid }
