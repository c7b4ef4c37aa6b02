// This file joins the preflight to what it asks: DNS, drivers, credentials, the ledger, the CA's clock and the disk.

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub"
	"github.com/certferry/certferry/hub/internal/intent"
	"github.com/certferry/certferry/hub/internal/ledger"
	"github.com/certferry/certferry/hub/internal/preflight"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/acmesh/distribution"
)

// What acme_preflight may be.
const (
	preflightEnforce = "enforce"
	preflightReport  = "report"
	preflightOff     = "off"
)

// resolvConf is where systems keep their DNS resolvers (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// preflights answers the API.
type preflights struct {
	*preflight.Checker
	*intent.Service
}

// newPreflight makes the checker.
func (h *Hub) newPreflight(drivers *issuers) (*preflight.Checker, error) {
	dns, err := preflight.SystemDNS(resolvConf)
	if err != nil {
		h.opt.Logger.Warn("preflights ask no DNS", "error", err)
		dns = &preflight.DNS{}
	}
	return preflight.New(preflight.Config{
		DNS: dns, Now: h.opt.Now, CA: caOf, Thumbprint: drivers.thumbprint, Time: drivers.caTime, Program: drivers.program,
		Webroot: drivers.webroot,
		Credential: func(_ context.Context, name string) error {
			_, err := drivers.credentials(name)
			return err
		},
		Ledger: h.checkLedger,
		Free:   func() (uint64, error) { return freeBytes(h.cfg.DataDir) },
	})
}

// preflightOrders is the preflight before orders, nil where the configuration wants none.
func (h *Hub) preflightOrders(c *preflight.Checker) func(context.Context, *manifest.Certificate, *manifest.Issuer, func(string)) error {
	switch h.cfg.ACMEPreflight {
	case preflightOff:
		return nil
	case preflightReport:
		return func(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer, tell func(string)) error {
			_ = c.Order(ctx, want, at, tell) // told, and no more
			return ctx.Err()
		}
	default:
		return c.Order
	}
}

// caOf says what is known of the CA of an issuer.
func caOf(at *manifest.Issuer) preflight.CA {
	ca, known := acmesh.CAOf(at.ACME.Directory)
	return preflight.CA{Public: known, Identities: ca.CAA}
}

// thumbprint is that of the issuer's account.
func (f *issuers) thumbprint(ctx context.Context, at *manifest.Issuer) (string, error) {
	holder, err := accounts{f}.Holder(at)
	if err != nil {
		return "", err
	}
	return holder.Thumbprint(ctx)
}

// program says why acme.sh cannot be run.
func (f *issuers) program(at *manifest.Issuer) error {
	_, err := f.driver(at)
	if known, ok := errors.AsType[*issuer.Error](err); ok && known.Detail != "" {
		return errors.New(known.Detail)
	}
	if err != nil {
		return err
	}
	if info, err := os.Stat(f.cfg.ACMEScript); err != nil || !info.Mode().IsRegular() {
		return errors.New("acme.sh is not where acme_script says")
	}
	if verify := f.cfg.verifyACME(); verify != nil {
		return verify(distribution.Script)
	}
	return nil
}

// webroot says why orders of an issuer put no tokens below a folder.
func (f *issuers) webroot(at *manifest.Issuer, folder string) error {
	driver, err := f.driver(at)
	if err != nil {
		return errors.New("no driver") // whatever its class: program tells why
	}
	places, ok := driver.(interface{ CheckWebroot(path string) error })
	if !ok {
		return nil
	}
	return places.CheckWebroot(folder)
}

// caTime is the clock of the issuer's CA; zero where it cannot be asked, which another check tells.
func (f *issuers) caTime(ctx context.Context, at *manifest.Issuer) (time.Time, error) {
	driver, err := f.driver(at)
	if err != nil {
		return time.Time{}, nil //nolint:nilerr // program tells it
	}
	clock, ok := driver.(interface {
		Time(ctx context.Context) (time.Time, error)
	})
	if !ok {
		return time.Time{}, nil
	}
	return clock.Time(ctx)
}

// checkLedger says whether an order would have to wait.
func (h *Hub) checkLedger(ctx context.Context, want *manifest.Certificate, at *manifest.Issuer) error {
	limits := limitsOf(at)
	if limits.Account == "" {
		return nil
	}
	snapshot, err := h.store.Snapshot()
	if err != nil {
		return err
	}
	have := snapshot.Issued[want.Name]
	order := ledger.Order{
		Account: limits.Account, Names: want.Names, Limits: limits.Limits, Renewal: have != nil && have.Issuer == at.Name,
	}
	return h.db.Reserve(ctx, func(b hub.Ledger) ([]hub.Spend, error) {
		return nil, ledger.Check(b, order, h.opt.Now())
	})
}

// freeBytes is the room on a folder's disk for who is not root.
func freeBytes(dir string) (uint64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(filepath.Clean(dir), &stat); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return stat.Bavail * uint64(stat.Bsize), nil //nolint:gosec // block sizes are positive
}
