package acmesh_test

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// TestRenewalSaysWhatItReplaces reads the orders on their way to the CA (RFC 9773 §5).
func TestRenewalSaysWhatItReplaces(t *testing.T) {
	t.Parallel()
	orders := &issuertest.Orders{}
	w := newWorld(t, issuertest.PebbleConfig{Wrap: orders.Watch})
	first := w.issue(t, "replaced.test", nil)
	w.issue(t, "replaced.test", func(r *issuer.Request) {
		r.Previous = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first[0].Raw})
	})
	all := orders.All()
	if len(all) != 2 || len(all[0].Identifiers) != 1 || all[0].Identifiers[0].Value != "replaced.test" || all[0].Replaces != "" {
		t.Fatalf("%+v", all)
	}
	if want := ariID(t, first[0]); all[1].Replaces != want {
		t.Errorf("the renewal replaces %q, want %q", all[1].Replaces, want)
	}
}

// ariID is the identifier of a certificate (RFC 9773 §4.1).
func ariID(t *testing.T, leaf *x509.Certificate) string {
	t.Helper()
	serial, err := asn1.Marshal(leaf.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(leaf.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial[2:])
}

// TestPreferredChain gets the chain of the second root, and says where there is none of the wish.
func TestPreferredChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{AlternateRoots: 1})
	roots := w.pebble.Roots
	if len(roots) != 2 || roots[0] == roots[1] {
		t.Fatalf("roots %q", roots)
	}
	const missed = "preferred chain not offered"
	for _, tt := range []struct {
		wish, root string
		warned     bool
	}{
		{"", roots[0], false},
		{roots[1], roots[1], false},
		{strings.ToUpper(roots[1]), roots[1], false}, // as acme.sh compares names
		{"Nobody Root X9", roots[0], true},
	} {
		told := &events{}
		chain := w.issue(t, "chain.test", func(r *issuer.Request) { r.PreferredChain, r.Progress = tt.wish, told.tell })
		if got := chain[len(chain)-1].Issuer.CommonName; got != tt.root {
			t.Errorf("wish %q: the chain leads to %q, want %q", tt.wish, got, tt.root)
		}
		line := "the CA has no chain of " + tt.wish + ": this one leads to " + tt.root
		if strings.Contains(told.text(), line) != tt.warned || strings.Contains(w.log.String(), missed) != tt.warned {
			t.Errorf("wish %q: told\n%slogged\n%s", tt.wish, told.text(), w.log)
		}
	}
}

// TestLogStartsNoPrograms: acme.sh runs date(1) for each line of its log, of which an order has some hundred, unless it is
// told otherwise.
func TestLogStartsNoPrograms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	w.cfg.DNSWait = time.Minute
	var lines, dated atomic.Int64
	w.cfg.LookupTXT = func(ctx context.Context, name string) ([]string, error) { // while the order runs
		logs, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "*", "job.log"))
		if err != nil || len(logs) != 1 {
			t.Errorf("logs %v, %v", logs, err)
			return nil, err
		}
		data, err := os.ReadFile(logs[0])
		if err != nil {
			t.Error(err)
		}
		lines.Store(int64(strings.Count(string(data), "\n")))
		dated.Store(int64(strings.Count(string(data), " UTC 20")))
		return w.lookup(ctx, name)
	}
	w.open(t)
	w.issue(t, "log.test", nil)
	if lines.Load() == 0 || dated.Load() > 0 {
		t.Errorf("%d of %d lines have a date", dated.Load(), lines.Load())
	}
}
