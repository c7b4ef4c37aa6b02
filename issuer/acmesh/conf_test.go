package acmesh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore/bundle"
	"github.com/certferry/certferry/issuer"
	"github.com/certferry/certferry/issuer/issuertest"
)

// idHook keeps the id of its record by _savedomainconf, as dns_subreg, dns_bh, dns_bhosted and dns_jd do, and its
// credential too, as dns_cf, dns_acmedns, dns_googledomains, dns_yc and dns_dnshome do. Without the id it removes nothing.
const idHook = `dns_idtest_info='Ids
Site: localhost
Options:
 IDTEST_URL Management API
 IDTEST_TOKEN Credential
'

dns_idtest_add() {
  _savedomainconf IDTEST_TOKEN "$IDTEST_TOKEN"
  _savedomainconf IDTEST_QUOTED "it's"
  _post "{\"Host\": \"$1.\", \"Value\": \"$2\"}" "$IDTEST_URL/set-txt" >/dev/null || return 1
  _savedomainconf "IDTEST_ID_$(printf %s "$2" | tr -dc 0-9A-Za-z)" "id-of-$2"
}

dns_idtest_rm() {
  if [ "$(_readdomainconf "IDTEST_ID_$(printf %s "$2" | tr -dc 0-9A-Za-z)")" != "id-of-$2" ]; then
    _err "the id of the record is not known"
    return 1
  fi
  [ "$(_post "{\"Host\": \"$1.\", \"Value\": \"$2\"}" "$IDTEST_URL/clear-txt")" = "gone" ]
}
`

// idWorld has the hook dns_idtest, whose provider removes nothing while stuck says so.
func idWorld(t *testing.T) (w *world, c issuer.Challenge, stuck *atomic.Bool) {
	t.Helper()
	if os.Getenv("ACME_SH") == "" {
		t.Skip("skipped: hooks need the real acme.sh, which ACME_SH does not name")
	}
	w, stuck = newWorld(t, issuertest.PebbleConfig{}), &atomic.Bool{}
	if err := os.WriteFile(filepath.Join(w.cfg.HooksDir, "dnsapi", "dns_idtest.sh"), []byte(idHook), 0o600); err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		var record struct {
			Host  string `json:"Host"`
			Value string `json:"Value"`
		}
		if err := json.NewDecoder(r.Body).Decode(&record); err != nil {
			out.WriteHeader(http.StatusBadRequest)
			return
		}
		switch {
		case r.URL.Path == "/set-txt":
			w.pebble.DNS.AddDNSTXTRecord(record.Host, record.Value)
		case !stuck.Load():
			w.pebble.DNS.DeleteDNSTXTRecord(record.Host)
			_, _ = out.Write([]byte("gone"))
		}
	}))
	t.Cleanup(provider.Close)
	return w, issuer.Challenge{Type: issuer.DNS01, Hook: "dns_idtest", Credential: "ids", Credentials: map[string]string{
		"IDTEST_URL": provider.URL, "IDTEST_TOKEN": "canary-of-ids",
	}}, stuck
}

// holdsNo looks through the folders of orders for a text, and says how many files it looked at.
func (w *world) holdsNo(t *testing.T, text string) (files int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(w.cfg.WorkDir, "certferry-orders"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "job.log" {
			return err
		}
		files++
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("%s holds it: %s", path, data)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // acme.sh works there meanwhile
		t.Error(err)
	}
	return files
}

// TestHooksThatKeepIDs: the test of a credential, the order and what clears up after it read what the hook kept when it
// added the record, and no credential is kept with it.
func TestHooksThatKeepIDs(t *testing.T) {
	t.Parallel()
	w, c, stuck := idWorld(t)
	var looked atomic.Int64
	w.cfg.LookupTXT = func(ctx context.Context, name string) ([]string, error) { // while the order runs
		looked.Add(int64(w.holdsNo(t, "canary-of-ids")))
		w.holdsNo(t, "it's")
		return w.lookup(ctx, name)
	}
	w.cfg.DNSWait = time.Minute
	w.open(t)
	told := &events{}
	if err := w.issuer.TestDNS(t.Context(), c, "tested.ids.test", told.tell); err != nil {
		t.Errorf("%v\n%s", err, told.text())
	}
	w.issue(t, "ordered.ids.test", func(r *issuer.Request) { r.Challenge = c })
	if looked.Load() == 0 {
		t.Error("nothing was looked at")
	}
	w.leavesNothing(t, "canary-of-ids")

	stuck.Store(true)
	told = &events{}
	w.issue(t, "stuck.ids.test", func(r *issuer.Request) { r.Challenge, r.Progress = c, told.tell })
	if !strings.Contains(told.text(), "remove TXT record _acme-challenge.stuck.ids.test: ") || !strings.Contains(told.text(), "tries again when it starts") {
		t.Errorf("told:\n%s", told.text())
	}
	homes, err := filepath.Glob(filepath.Join(w.cfg.WorkDir, "certferry-orders", "t-*[0-9]"))
	if err != nil || len(homes) != 1 {
		t.Fatalf("%v, %v", homes, err)
	}
	for _, gone := range []string{"job.log", "ca", "certs", "http.header"} {
		if _, err := os.Lstat(filepath.Join(homes[0], gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stays: %v", gone, err)
		}
	}
	w.recoversIDs(t, c, "_acme-challenge.stuck.ids.test", 1)
	stuck.Store(false)
	w.recoversIDs(t, c, "_acme-challenge.stuck.ids.test", 0)
	w.leavesNothing(t, "canary-of-ids")
}

// recoversIDs clears up, and wants so many records left.
func (w *world) recoversIDs(t *testing.T, c issuer.Challenge, record string, want int) {
	t.Helper()
	left, err := w.issuer.Recover(t.Context(), func(string) (map[string]string, error) { return c.Credentials, nil })
	if (err != nil) != (want > 0) || len(left) != 1 || len(left[0].Records) != want || left[0].Phase != "" {
		t.Errorf("%+v, %v, want %d records left of an order that is over", left, err, want)
	}
	if have := w.pebble.DNS.GetDNSTXTRecords(record); len(have) != want {
		t.Errorf("%d records at %s, want %d", len(have), record, want)
	}
}

// TestARefusedRecordLeavesNothing: a record that the provider never took is not looked for at each start.
func TestARefusedRecordLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, issuertest.PebbleConfig{})
	req, _ := issuertest.NewRequest(t, bundle.ECDSAP256, "refused.ids.test")
	req.Challenge = w.dns("wrong")
	if _, err := w.issuer.Issue(t.Context(), req); classOf(t, err) != issuer.DNSProvider {
		t.Error(err)
	}
	w.leavesNothing(t, "canary")
}
