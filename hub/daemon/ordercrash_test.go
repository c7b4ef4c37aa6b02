//go:build failpoints

package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certferry/certferry/gitstore"
	"github.com/certferry/certferry/gitstore/gitrepo"
	"github.com/certferry/certferry/gitstore/manifest"
	"github.com/certferry/certferry/issuer/issuertest"
)

// Set in the environment, they make the test binary a hub with a configuration, as of hours from now.
const (
	orderCrashConfig = "HUB_ORDER_CRASH_CONFIG"
	orderCrashHours  = "HUB_ORDER_CRASH_HOURS"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == issuertest.StandInArg {
		os.Exit(issuertest.StandIn(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// TestOrderCrashChild is that hub; by itself it does nothing.
func TestOrderCrashChild(t *testing.T) {
	file := os.Getenv(orderCrashConfig)
	if file == "" {
		t.Skip("a part of TestOrdersKilledInEachState")
	}
	cfg, err := LoadConfig(file, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	hours, err := strconv.Atoi(os.Getenv(orderCrashHours))
	if err != nil {
		t.Fatal(err)
	}
	opt := options(io.Discard, os.Stderr)
	opt.Now = func() time.Time { return time.Now().Add(time.Duration(hours) * time.Hour) }
	h, err := New(t.Context(), cfg, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.reconciler.Once(t.Context()), h.Close()); err != nil {
		t.Fatal(err)
	}
}

// Secrets that stand in the administrator's own files and nowhere else: the credential of the DNS hook, and the key
// that binds the account at the CA.
const (
	orderCanary = "canary-of-the-dns-credential"
	eabCanary   = "Y2FuYXJ5LW9mLXRoZS1leHRlcm5hbC1hY2NvdW50LWJpbmRpbmcta2V5"
)

var canaries = []string{orderCanary, eabCanary}

// TestOrdersKilledInEachState kills a hub that orders at a real ACME server, through acme.sh where ACME_SH is set, at each
// step. The next one finishes with one order more at most, and nothing is left behind: no process, no TXT record, no
// credential. CRASH_ROUNDS sets how often.
func TestOrdersKilledInEachState(t *testing.T) {
	t.Parallel()
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv("CRASH_ROUNDS")); err == nil {
		rounds = n
	}
	for _, point := range []string{
		"hub.issue.queued", "hub.issue.waiting", "hub.issue.reserved", "hub.issue.phase-account", "hub.issue.phase-order", "hub.issue.phase-authorize", "hub.issue.phase-dns", "hub.issue.phase-validate",
		"hub.issue.phase-finalize", "hub.issue.phase-download", "hub.issue.ordered", "hub.issue.received", "hub.issue.sealed", "hub.commit.recorded",
		"hub.commit.moved", "hub.issue.done",
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			for n := range rounds {
				killOrderAt(t, point, fmt.Sprintf("k%d.%s.order.test", n, strings.ReplaceAll(strings.TrimPrefix(point, "hub."), ".", "-")))
			}
		})
	}
}

func killOrderAt(t *testing.T, point, name string) {
	t.Helper()
	var orders atomic.Int64
	pebble, err := issuertest.StartPebble(t.Context(), issuertest.PebbleConfig{Dir: t.TempDir(), EAB: map[string]string{"kid": eabCanary}, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.URL.Path == "/order-plz" {
				if n := orders.Add(1); n == 1 && point == "hub.issue.waiting" {
					http.Error(w, "as the test wants", http.StatusInternalServerError)
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pebble.Close() }()
	cfg, _ := initialised(t)
	file := prepareOrder(t, &cfg, pebble, name)

	var said bytes.Buffer
	told := watchArguments(t)
	if err := orderChild(t, &said, file, point, 0); !killed(err) {
		t.Fatalf("the hub was not killed at %s: %v\n%s", point, err, said.String())
	}
	var left crashed
	for hours := 0; hours < 72; hours += 6 { // a failed try waits
		if err := orderChild(t, &said, file, "", hours); err != nil {
			t.Fatalf("the hub did not recover: %v\n%s", err, said.String())
		}
		if left = stateAfterCrash(t, &cfg); left.leaf != "" {
			break
		}
	}
	if left.leaf == "" || strings.Join(left.jobs, " ") != "done" {
		t.Errorf("after recovery: %+v\n%s", left, said.String())
	}
	if n := orders.Load(); n < 1 || n > 2 {
		t.Errorf("%d orders", n)
	}
	if records := pebble.DNS.GetDNSTXTRecords("_acme-challenge." + name); len(records) > 0 {
		t.Errorf("records are left: %v", records)
	}
	homes, err := filepath.Glob(filepath.Join(cfg.paths().acme(), "work", "certferry-orders", "[^.]*"))
	if err != nil || len(homes) > 0 {
		t.Errorf("folders are left: %v, %v", homes, err)
	}
	if ps, err := exec.CommandContext(t.Context(), "ps", "-eo", "args").Output(); err != nil || bytes.Contains(ps, []byte(cfg.DataDir+"/")) {
		t.Errorf("a process is left: %v\n%s", err, ps)
	}
	for _, canary := range canaries {
		if bytes.Contains(said.Bytes(), []byte(canary)) {
			t.Errorf("the log holds %s", canary)
		}
	}
	told()
	holdsNoCanary(t, cfg.DataDir)
}

// watchArguments looks at the arguments of all processes until the function that it answers is called, which says
// whether a secret stood there.
func watchArguments(t *testing.T) (told func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan string, 1)
	go func() {
		ticks := time.NewTicker(2 * time.Millisecond)
		defer ticks.Stop()
		found := ""
		for {
			select {
			case <-stop:
				done <- found
				return
			case <-ticks.C:
			}
			all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range all {
				arguments, err := os.ReadFile(path)
				for _, canary := range canaries {
					if err == nil && bytes.Contains(arguments, []byte(canary)) {
						found = string(bytes.ReplaceAll(arguments, []byte{0}, []byte{' '}))
					}
				}
			}
		}
	}()
	return func() {
		t.Helper()
		close(stop)
		if found := <-done; found != "" {
			t.Errorf("a process was told a secret in its arguments: %s", found)
		}
	}
}

// holdsNoCanary searches the hub's files but the credential's own, and the objects of its repository as git unpacks them.
func holdsNoCanary(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || filepath.Base(filepath.Dir(path)) == "credentials" {
			return err
		}
		data, err := os.ReadFile(path)
		for _, canary := range canaries {
			if bytes.Contains(data, []byte(canary)) {
				t.Errorf("%s holds %s", path, canary)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	objects, err := exec.CommandContext(t.Context(), "git", "-C", filepath.Join(dir, "repo.git"), "cat-file", "--batch", "--batch-all-objects").Output()
	if err != nil || len(objects) == 0 {
		t.Errorf("read objects: %v", err)
	}
	for _, canary := range canaries {
		if bytes.Contains(objects, []byte(canary)) {
			t.Errorf("the repository holds %s", canary)
		}
	}
}

func orderChild(t *testing.T, said *bytes.Buffer, file, point string, hours int) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOrderCrashChild$")
	cmd.Env = append(os.Environ(), orderCrashConfig+"="+file, orderCrashHours+"="+strconv.Itoa(hours), "CERTFERRY_FAILPOINT="+point)
	cmd.Stdout, cmd.Stderr = said, said
	return cmd.Run()
}

// prepareOrder gives the hub an ACME issuer, a wish and a credential, and returns the file of its configuration.
func prepareOrder(t *testing.T, cfg *Config, pebble *issuertest.Pebble, name string) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	script := os.Getenv("ACME_SH")
	if script == "" {
		exe, err := os.Executable()
		must(err)
		script, err = issuertest.WriteStandIn(t.TempDir(), exe)
		must(err)
	}
	hooks := t.TempDir()
	must(issuertest.WriteDNSHook(hooks))
	file := filepath.Join(t.TempDir(), "hub.yaml")
	overwrite(t, file, fmt.Sprintf(`data_dir: %s
listen: 127.0.0.1:0
acme_user: root
acme_script: %s
acme_unpinned: true
acme_hooks_dir: %s
acme_directories: [%s]
acme_ca_bundle: %s
acme_preflight: off
acme_dns_blind: true
acme_dns_wait: 1ms
`, cfg.DataDir, script, hooks, pebble.Directory, pebble.CABundle))
	must(cfg.Complete())
	must(os.MkdirAll(cfg.CredentialsDir, 0o700))
	overwrite(t, filepath.Join(cfg.CredentialsDir, "dns.env"), "PEBBLETEST_URL="+pebble.DNSManagement+"\nPEBBLETEST_TOKEN="+orderCanary+"\n")
	overwrite(t, filepath.Join(cfg.CredentialsDir, "eab.env"), "EAB_KID=kid\nEAB_HMAC_KEY="+eabCanary+"\n")
	k, err := loadKeys(cfg, time.Now())
	must(err)
	store, err := openStore(cfg, k, time.Now, nil)
	must(err)
	issuer, err := (&manifest.Issuer{Name: "acme", Type: "acmesh", ACME: &manifest.ACMEIssuer{Directory: pebble.Directory, EABCredential: "eab"}}).Encode()
	must(err)
	certificate, err := (&manifest.Certificate{
		Name: "example.com", Names: []string{name}, Issuer: "acme",
		Challenge: &manifest.Challenge{Type: "dns-01", Hook: issuertest.HookName, Credential: "dns"},
	}).Encode()
	must(err)
	_, err = store.Apply(t.Context(), gitstore.Change{Subject: "prepare", Edits: []gitrepo.Edit{
		{Path: manifest.CertificatePath("example.com"), Data: certificate}, {Path: manifest.IssuerPath("acme"), Data: issuer},
	}})
	must(errors.Join(err, store.Close()))
	return file
}
