package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/hub/internal/preflight"
	"github.com/certferry/certferry/issuer"
)

// noPlace is a certificate whose order would fail, whatever the network: nothing says how its name is proven.
var noPlace = &manifest.Certificate{Name: "www", Names: []string{"www.example.com"}}

func testChecker(t *testing.T, drivers *issuers) *preflight.Checker {
	t.Helper()
	c, err := preflight.New(preflight.Config{
		DNS: &preflight.DNS{}, CA: caOf, Thumbprint: drivers.thumbprint, Program: drivers.program, Time: drivers.caTime, Webroot: drivers.webroot,
		Credential: func(context.Context, string) error { return nil }, Now: time.Now,
		Free: func() (uint64, error) { return freeBytes(drivers.cfg.DataDir) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPreflightOfOrders(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir()}
	cfg.setDefaults()
	checker := testChecker(t, newIssuers(&cfg, time.Now, slog.New(slog.DiscardHandler)))
	le := &manifest.Issuer{Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: cfg.ACMEDirectories[0]}}
	for mode, want := range map[string]struct{ runs, fails bool }{
		preflightEnforce: {true, true}, preflightReport: {true, false}, preflightOff: {},
	} {
		h := &Hub{cfg: cfg}
		h.cfg.ACMEPreflight = mode
		check := h.preflightOrders(checker)
		if (check != nil) != want.runs {
			t.Errorf("%s: checks %v", mode, check != nil)
		}
		if check == nil {
			continue
		}
		told := 0
		err := check(t.Context(), noPlace, le, func(string) { told++ })
		if (err != nil) != want.fails || told < 2 {
			t.Errorf("%s: %v, %d lines", mode, err, told)
		}
	}
	bad := Config{ACMEPreflight: "sometimes"}
	if err := bad.Complete(); err == nil {
		t.Error("acme_preflight may be anything")
	}
}

// A check writes nowhere where an order would not: an operator names the folder, and the hub may be root.
func TestPreflightWritesWhereOrdersMay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "acme.sh")
	overwrite(t, script, "#!/bin/sh\n")
	cfg := Config{DataDir: t.TempDir(), ACMEScript: script, ACMEUnpinned: true, ACMEUser: "root"}
	cfg.setDefaults()
	le := &manifest.Issuer{Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: cfg.ACMEDirectories[0]}}
	drivers := newIssuers(&cfg, time.Now, discard)
	for folder, permitted := range map[string]bool{dir: true, cfg.DataDir: false, "/etc": false, "/": false} {
		err := drivers.webroot(le, folder)
		if failed, ok := errors.AsType[*issuer.Error](err); (err == nil) != permitted || ok && failed.Class != issuer.Permanent {
			t.Errorf("%s: %v", folder, err)
		}
	}
	cfg.ACMEScript = ""
	if err := newIssuers(&cfg, time.Now, discard).webroot(le, dir); err == nil {
		t.Error("without acme.sh, tokens are written")
	}
}

// Without acme.sh one check says so, and no other blames the CA for it.
func TestPreflightWithoutACME(t *testing.T) {
	t.Parallel()
	cfg := Config{DataDir: t.TempDir()}
	cfg.setDefaults()
	drivers := newIssuers(&cfg, time.Now, slog.New(slog.DiscardHandler))
	le := &manifest.Issuer{Name: "le", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: cfg.ACMEDirectories[0]}}
	states := map[string]string{}
	for _, f := range testChecker(t, drivers).Check(t.Context(), noPlace, le) {
		states[f.Check] = string(f.State)
	}
	if states["acme.sh"] != "failed" || states["clock"] != "skipped" || states["disk"] == "skipped" {
		t.Errorf("%v", states)
	}
	if ca := caOf(le); !ca.Public || len(ca.Identities) == 0 {
		t.Errorf("Let's Encrypt is %+v", ca)
	}
	if _, err := freeBytes(filepath.Join(cfg.DataDir, "none")); err == nil {
		t.Error("a folder that is not there has room")
	}
}
