package acmesh_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/acmesh"
	"github.com/certferry/certferry/issuer/issuertest"
)

// accountFiles are those of the only account of a world whose names fit a pattern.
func (w *world) accountFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.cfg.StateDir, "*", pattern))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestDriversOfOneDirectoryShareAnAccount: also where they look for it at the same moment.
func TestDriversOfOneDirectoryShareAnAccount(t *testing.T) {
	t.Parallel()
	var registrations atomic.Int64
	w := newWorld(t, issuertest.PebbleConfig{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, issuertest.AtNewAccount) {
				registrations.Add(1)
			}
			next.ServeHTTP(out, r)
		})
	}})
	var group sync.WaitGroup
	found := make([]string, 4)
	for n := range found {
		w.open(t)
		driver := w.issuer
		group.Go(func() {
			thumbprint, err := driver.Thumbprint(t.Context())
			if err != nil {
				t.Error(err)
			}
			found[n] = thumbprint
		})
	}
	group.Wait()
	for _, thumbprint := range found {
		if thumbprint != found[0] {
			t.Errorf("accounts %v", found)
		}
	}
	if n := registrations.Load(); n != 1 {
		t.Errorf("registered %d times", n)
	}
}

// TestWhoWaitsForTheAccountCanBeCancelled: a CA that hangs keeps one order, and those behind it go when they should.
func TestWhoWaitsForTheAccountCanBeCancelled(t *testing.T) {
	t.Parallel()
	reached := make(chan struct{})
	w := newWorld(t, issuertest.PebbleConfig{Wrap: issuertest.Inject(issuertest.Fault{
		At: issuertest.AtNewAccount, Act: func(out http.ResponseWriter, r *http.Request, next http.Handler) {
			close(reached)
			issuertest.Hang(out, r, next)
		},
	})})
	first, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { _, _ = w.issuer.Account(first) })
	<-reached
	second, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.issuer.Account(second)
	if classOf(t, err) != issuer.Retryable || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another order") {
		t.Errorf("error %v", err)
	}
}

// TestACAThatAsksToWaitIsNotWaitedFor: the order gives its place back, and knows when to come again.
func TestACAThatAsksToWaitIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{Wrap: issuertest.Inject(issuertest.Fault{
		At: issuertest.AtNewAccount, Act: issuertest.Problem(http.StatusTooManyRequests, "rateLimited", "too many accounts", 3600),
	})})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := w.issuer.Account(ctx)
	failed, ok := errors.AsType[*issuer.Error](err)
	if !ok || failed.Class != issuer.RateLimited || failed.RetryAfter != time.Hour || ctx.Err() != nil {
		t.Errorf("%+v, %v", failed, ctx.Err())
	}
}

// TestAKeyThatIsRemovedMeansANewAccount: the hub itself advises to remove one that is damaged.
func TestAKeyThatIsRemovedMeansANewAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	before, err := w.issuer.Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range w.accountFiles(t, "account.key") {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	after, err := w.issuer.Account(t.Context())
	if err != nil || after.URL == before.URL {
		t.Errorf("%+v, %v", after, err)
	}
	// The same where another key is brought in its place.
	for _, path := range w.accountFiles(t, "account.key") {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	key, err := bundle.GenerateKey(bundle.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := (&bundle.Bundle{Key: key}).KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := acmesh.ImportAccount(w.cfg.StateDir, w.cfg.Directory, "", pem); err != nil {
		t.Fatal(err)
	}
	if brought, err := w.issuer.Account(t.Context()); err != nil || brought.URL == after.URL {
		t.Errorf("%+v, %v", brought, err)
	}
}

// TestDeactivateAgain: where the answer of the CA was lost, the second try ends what the first began.
func TestDeactivateAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	if err := w.issuer.Deactivate(t.Context()); classOf(t, err) != issuer.Permanent || len(w.accountFiles(t, "account.*")) > 0 {
		t.Errorf("no account: %v", err)
	}
	if _, err := w.issuer.Account(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, kept := range [][]string{{"account.key", "account.json"}, {"account.key"}} {
		if err := w.issuer.Deactivate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range kept {
			aside := w.accountFiles(t, name+".*")
			if err := os.Rename(aside[0], filepath.Join(filepath.Dir(aside[0]), name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.issuer.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files := w.accountFiles(t, "account.key"); len(files) > 0 {
		t.Errorf("still there: %v", files)
	}
	if info, err := w.issuer.Account(t.Context()); err != nil || info.Status != "valid" {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestAnAccountThatTheCAForgot: it can be reached, and says so.
func TestAnAccountThatTheCAForgot(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	forgot := issuertest.Problem(http.StatusBadRequest, "accountDoesNotExist", "no such account", 0)
	w := newWorld(t, issuertest.PebbleConfig{Wrap: issuertest.Inject(issuertest.Fault{
		At: issuertest.AtNewAccount, Act: func(out http.ResponseWriter, r *http.Request, next http.Handler) {
			if asked.Add(1) == 1 {
				next.ServeHTTP(out, r)
				return
			}
			forgot(out, r, next)
		},
	})})
	if _, err := w.issuer.Account(t.Context()); classOf(t, err) != issuer.Account || strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("error %v", err)
	}
}
